package kvtest

import (
	"context"
	"errors"
	"time"

	"github.com/kvrecipes/kv"
)

// The methods of [kv.Engine] that make one call of the store beneath.

// Now is part of [kv.Engine].
func (f *Faulty) Now(ctx context.Context) (time.Time, error) {
	return through(ctx, f, Call{Method: "Now"}, func() (time.Time, error) { return f.inner.Now(ctx) })
}

// Get is part of [kv.Engine].
func (f *Faulty) Get(ctx context.Context, key string) (string, error) {
	return through(ctx, f, Call{Method: "Get", Key: key}, func() (string, error) { return f.inner.Get(ctx, key) })
}

// Entry is part of [kv.Engine].
func (f *Faulty) Entry(ctx context.Context, key string) (kv.Entry, error) {
	return through(ctx, f, Call{Method: "Entry", Key: key}, func() (kv.Entry, error) { return f.inner.Entry(ctx, key) })
}

// TTL is part of [kv.Engine].
func (f *Faulty) TTL(ctx context.Context, key string) (time.Duration, error) {
	return through(ctx, f, Call{Method: "TTL", Key: key}, func() (time.Duration, error) { return f.inner.TTL(ctx, key) })
}

// Set is part of [kv.Engine].
func (f *Faulty) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	_, err := through(ctx, f, Call{Method: "Set", Key: key}, nothing(func() error {
		return f.inner.Set(ctx, key, value, ttl)
	}))
	return err
}

// Put is part of [kv.Engine].
func (f *Faulty) Put(ctx context.Context, e kv.Entry) error {
	_, err := through(ctx, f, Call{Method: "Put", Key: e.Key}, nothing(func() error { return f.inner.Put(ctx, e) }))
	return err
}

// SetNX is part of [kv.Engine].
func (f *Faulty) SetNX(ctx context.Context, key, value string, ttl time.Duration) (bool, error) {
	return through(ctx, f, Call{Method: "SetNX", Key: key}, func() (bool, error) {
		return f.inner.SetNX(ctx, key, value, ttl)
	})
}

// CompareAndSwap is part of [kv.Engine].
func (f *Faulty) CompareAndSwap(ctx context.Context, key, old, new string, ttl time.Duration) (bool, error) {
	return through(ctx, f, Call{Method: "CompareAndSwap", Key: key}, func() (bool, error) {
		return f.inner.CompareAndSwap(ctx, key, old, new, ttl)
	})
}

// CompareAndDelete is part of [kv.Engine].
func (f *Faulty) CompareAndDelete(ctx context.Context, key, old string) (bool, error) {
	return through(ctx, f, Call{Method: "CompareAndDelete", Key: key}, func() (bool, error) {
		return f.inner.CompareAndDelete(ctx, key, old)
	})
}

// Incr is part of [kv.Engine].
func (f *Faulty) Incr(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	return through(ctx, f, Call{Method: "Incr", Key: key}, func() (int64, error) {
		return f.inner.Incr(ctx, key, delta, ttl)
	})
}

// Expire is part of [kv.Engine].
func (f *Faulty) Expire(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	return through(ctx, f, Call{Method: "Expire", Key: key}, func() (bool, error) {
		return f.inner.Expire(ctx, key, ttl)
	})
}

// Delete is part of [kv.Engine].
func (f *Faulty) Delete(ctx context.Context, key string) (bool, error) {
	n, err := through(ctx, f, Call{Method: "Delete", Key: key}, func() (int, error) { return f.inner.Delete(ctx, key) })
	return n == 1, err
}

// GetDelete is part of [kv.Engine].
func (f *Faulty) GetDelete(ctx context.Context, key string) (string, error) {
	return through(ctx, f, Call{Method: "GetDelete", Key: key}, func() (string, error) {
		return f.inner.GetDelete(ctx, key)
	})
}

// GetExpire is part of [kv.Engine].
func (f *Faulty) GetExpire(ctx context.Context, key string, ttl time.Duration) (string, error) {
	return through(ctx, f, Call{Method: "GetExpire", Key: key}, func() (string, error) {
		return f.inner.GetExpire(ctx, key, ttl)
	})
}

// Take is part of [kv.Engine].
func (f *Faulty) Take(ctx context.Context, key string, q kv.Quota, n int64, dry bool) (kv.Usage, error) {
	return through(ctx, f, Call{Method: "Take", Key: key}, func() (kv.Usage, error) {
		for {
			u, done, err := f.tryTake(ctx, key, q, n, dry)
			if done || err != nil {
				return u, err
			}
		}
	})
}

// tryTake is one round of an optimistic Take: a Store has no method for it that another package could call.
func (f *Faulty) tryTake(ctx context.Context, key string, q kv.Quota, n int64, dry bool) (u kv.Usage, done bool, err error) {
	old, err := f.inner.Get(ctx, key)
	exists := err == nil
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return u, false, err
	}
	now, err := f.inner.Now(ctx)
	if err != nil {
		return u, false, err
	}
	next, ttl, u, err := q.Take(old, now.UnixMicro(), n)
	switch {
	case err != nil || dry:
		return u, true, err
	case ttl == 0 && next == old:
		return u, true, nil
	case ttl == 0: // nothing is left to keep
		done, err = f.inner.CompareAndDelete(ctx, key, old)
	case exists:
		done, err = f.inner.CompareAndSwap(ctx, key, old, next, ttl)
	default:
		done, err = f.inner.SetNX(ctx, key, next, ttl)
	}
	return u, done, err
}

// Batch is part of [kv.Engine].
func (f *Faulty) Batch(ctx context.Context, ops []kv.Op) ([]kv.Result, error) {
	return through(ctx, f, Call{Method: "Batch", Ops: ops}, func() ([]kv.Result, error) {
		results, err := f.inner.Batch(ctx, ops...)
		for i := range results {
			results[i].Err = bare(results[i].Err)
		}
		return results, err
	})
}

// Txn is part of [kv.Engine].
func (f *Faulty) Txn(ctx context.Context, conds []kv.Cond, ops []kv.Op) (ok bool, results []kv.Result, err error) {
	type outcome struct {
		ok      bool
		results []kv.Result
		failed  error // of an operation, which an engine has to name: not for bare
	}
	o, err := through(ctx, f, Call{Method: "Txn", Conds: conds, Ops: ops}, func() (o outcome, err error) {
		o.ok, o.results, err = f.inner.Txn(ctx, conds, ops...)
		if e, is := err.(*kv.Error); is && e.Key != "" {
			o.failed, err = e, nil
		}
		return o, err
	})
	if err == nil {
		err = o.failed
	}
	return o.ok, o.results, err
}

// Page is part of [kv.Engine].
func (f *Faulty) Page(ctx context.Context, r kv.Range, cursor string, limit int) ([]kv.Entry, string, error) {
	var next string
	entries, err := through(ctx, f, Call{Method: "Page", Key: r.Prefix}, func() (entries []kv.Entry, err error) {
		entries, next, err = f.inner.Page(ctx, r, cursor, limit)
		return entries, err
	})
	return entries, next, err
}

var _ kv.Engine = (*Faulty)(nil)
