package kvtest

import (
	"context"
	"time"

	"github.com/kvrecipes/kv"
)

// method is a method of a Store, called with a key and otherwise good arguments.
type method struct {
	name   string // as errors name it
	writes bool
	call   func(ctx context.Context, s *kv.Store, key string) error
}

// keyMethods are the methods that take keys.
var keyMethods = []method{
	{"get", false, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.Get(ctx, key); return err }},
	{"entry", false, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.Entry(ctx, key); return err }},
	{"getmany", false, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.GetMany(ctx, "good", key)
		return err
	}},
	{"getdelete", true, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.GetDelete(ctx, key); return err }},
	{"getexpire", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.GetExpire(ctx, key, time.Hour)
		return err
	}},
	{"exists", false, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.Exists(ctx, key); return err }},
	{"ttl", false, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.TTL(ctx, key); return err }},
	{"set", true, func(ctx context.Context, s *kv.Store, key string) error { return s.Set(ctx, key, "7", 0) }},
	{"setmany", true, func(ctx context.Context, s *kv.Store, key string) error {
		return s.SetMany(ctx, map[string]string{"good": "7", key: "7"}, 0)
	}},
	{"put", true, func(ctx context.Context, s *kv.Store, key string) error {
		return s.Put(ctx, kv.Entry{Key: key, Value: "7"})
	}},
	{"setnx", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.SetNX(ctx, key, "7", 0)
		return err
	}},
	{"compareandswap", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.CompareAndSwap(ctx, key, "7", "8", 0)
		return err
	}},
	{"compareanddelete", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.CompareAndDelete(ctx, key, "7")
		return err
	}},
	{"update", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.Update(ctx, key, 0, func(string, bool) (string, error) { return "7", nil })
		return err
	}},
	{"incr", true, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.Incr(ctx, key, 1, 0); return err }},
	{"expire", true, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.Expire(ctx, key, 0); return err }},
	{"delete", true, func(ctx context.Context, s *kv.Store, key string) error { _, err := s.Delete(ctx, key); return err }},
	{"delete", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, err := s.Delete(ctx, "good", key)
		return err
	}},
	{"txn", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, _, err := s.Txn(ctx, nil, kv.OpSet("good", "7", 0), kv.OpSet(key, "7", 0))
		return err
	}},
	{"txn", true, func(ctx context.Context, s *kv.Store, key string) error {
		_, _, err := s.Txn(ctx, []kv.Cond{kv.IfAbsent(key)}, kv.OpSet("good", "7", 0))
		return err
	}},
}

// otherMethods are the methods that take no key, or a prefix.
var otherMethods = []method{
	{"now", false, func(ctx context.Context, s *kv.Store, _ string) error { _, err := s.Now(ctx); return err }},
	{"batch", true, func(ctx context.Context, s *kv.Store, _ string) error {
		_, err := s.Batch(ctx, kv.OpSet("good", "7", 0))
		return err
	}},
	{"batch", true, func(ctx context.Context, s *kv.Store, _ string) error { _, err := s.Batch(ctx); return err }},
	{"getmany", false, func(ctx context.Context, s *kv.Store, _ string) error { _, err := s.GetMany(ctx); return err }},
	{"setmany", true, func(ctx context.Context, s *kv.Store, _ string) error { return s.SetMany(ctx, nil, 0) }},
	{"delete", true, func(ctx context.Context, s *kv.Store, _ string) error { _, err := s.Delete(ctx); return err }},
	{"txn", true, func(ctx context.Context, s *kv.Store, _ string) error { _, _, err := s.Txn(ctx, nil); return err }},
	{"deleteprefix", true, func(ctx context.Context, s *kv.Store, prefix string) error {
		_, err := s.DeletePrefix(ctx, prefix)
		return err
	}},
	{"count", false, func(ctx context.Context, s *kv.Store, prefix string) error {
		_, err := s.Count(ctx, prefix)
		return err
	}},
	{"page", false, func(ctx context.Context, s *kv.Store, prefix string) error {
		_, _, err := s.Page(ctx, kv.Range{Prefix: prefix}, "", 10)
		return err
	}},
	{"scan", false, func(ctx context.Context, s *kv.Store, prefix string) error {
		for _, err := range s.Scan(ctx, kv.Range{Prefix: prefix}) {
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{"watch", false, func(ctx context.Context, s *kv.Store, prefix string) error {
		w, err := s.Watch(ctx, prefix)
		if err == nil {
			w.Stop()
		}
		return err
	}},
}
