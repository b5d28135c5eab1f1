package kvtest

import (
	"fmt"
	"strings"
	"time"

	"github.com/kvrecipes/kv"
)

const someMetadata = `{"size": 3,  "by":"möbius"}` // with its odd spaces

func (e *env) putMetadata(key, value string) {
	e.NoError(e.store.Put(e.ctx, kv.Entry{Key: key, Value: value, Metadata: someMetadata, ExpiresAt: e.now().Add(time.Hour)}))
}

var metadataCases = []testCase{
	{
		name:     "metadata",
		contract: "metadata: valid JSON; Keys, values and metadata are Go strings holding any bytes.",
		run: func(e *env) {
			for _, metadata := range []string{someMetadata, `{}`, `[]`, `null`, `0`, `""`, `"x"`, "\t{ }\n", `{"a":"\u0000"}`, "", `[1,2]`} {
				want := kv.Entry{Key: "key", Value: "v", Metadata: metadata}
				e.NoError(e.store.Put(e.ctx, want))
				e.Equal(want, e.entry("key"))
				e.value("key", "v")
			}
		},
	},
	{
		name:     "metadata/bad",
		contract: "metadata: valid JSON, 1,024 bytes: ErrInvalidMetadata / ErrTooLarge.",
		run: func(e *env) {
			e.putMetadata("key", "old")
			before := e.entry("key")
			for _, metadata := range []string{" ", "{", "x", "{'a':1}", `{"a":1,}`, `{} {}`, "\x00", "nul", `"\x"`} {
				err := e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "new", Metadata: metadata})
				e.ErrorIsf(err, kv.ErrInvalidMetadata, "metadata %q", metadata)
				e.sameEntry(before, e.entry("key"))
			}
			full := `"` + strings.Repeat("m", kv.DefaultMaxMetadataBytes-2) + `"`
			err := e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "new", Metadata: full[:5] + full[4:]})
			e.ErrorIs(err, kv.ErrTooLarge)
			e.sameEntry(before, e.entry("key"))
			e.NoError(e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "new", Metadata: full}))
			e.Equal(full, e.entry("key").Metadata)
		},
	},
	{
		name:     "metadata/kept",
		contract: "Incr, Update, Expire, GetExpire and CompareAndSwap keep metadata.",
		run: func(e *env) {
			keeps := map[string]func() error{
				"incr": func() error { _, err := e.store.Incr(e.ctx, "key", 1, kv.NoExpiry); return err },
				"update": func() error {
					_, err := e.store.Update(e.ctx, "key", kv.NoExpiry, func(string, bool) (string, error) { return "8", nil })
					return err
				},
				"expire":         func() error { _, err := e.store.Expire(e.ctx, "key", time.Minute); return err },
				"persist":        func() error { _, err := e.store.Expire(e.ctx, "key", kv.NoExpiry); return err },
				"getexpire":      func() error { _, err := e.store.GetExpire(e.ctx, "key", time.Minute); return err },
				"compareandswap": func() error { _, err := e.store.CompareAndSwap(e.ctx, "key", "7", "9", kv.KeepTTL); return err },
				"batch": func() error {
					_, err := e.store.Batch(e.ctx, kv.OpIncr("key", 1, 0), kv.OpExpire("key", time.Minute), kv.OpGet("key"))
					return err
				},
				"txn": func() error {
					_, _, err := e.store.Txn(e.ctx, nil, kv.OpIncr("key", 1, 0), kv.OpExpire("key", time.Minute), kv.OpGet("key"))
					return err
				},
				"get":              func() error { _, err := e.store.Get(e.ctx, "key"); return err },
				"setnx that loses": func() error { _, err := e.store.SetNX(e.ctx, "key", "0", 0); return err },
			}
			for name, call := range keeps {
				e.putMetadata("key", "7")
				e.NoError(call(), name)
				e.Equal(someMetadata, e.entry("key").Metadata, name)
			}
		},
	},
	{
		name:     "metadata/dropped",
		contract: "Set, SetNX and SetMany have none.",
		run: func(e *env) {
			drops := map[string]func() error{
				"set":     func() error { return e.store.Set(e.ctx, "key", "v", kv.KeepTTL) },
				"setmany": func() error { return e.store.SetMany(e.ctx, map[string]string{"key": "v"}, kv.NoExpiry) },
				"put":     func() error { return e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "v"}) },
				"opset":   func() error { _, err := e.store.Batch(e.ctx, kv.OpSet("key", "v", 0)); return err },
				"txn":     func() error { _, _, err := e.store.Txn(e.ctx, nil, kv.OpSet("key", "v", 0)); return err },
				"recreate": func() error {
					_, err := e.store.Batch(e.ctx, kv.OpDelete("key"), kv.OpSetNX("key", "v", 0))
					return err
				},
			}
			for name, call := range drops {
				e.putMetadata("key", "7")
				e.NoError(call(), name)
				e.Empty(e.entry("key").Metadata, name)
				e.value("key", "v")
			}
		},
	},
	{
		name:     "metadata/of an expired key",
		contract: "Set, SetNX and SetMany have none; an expired key is not live.",
		run: func(e *env) {
			write := map[string]func(key string) error{
				"setnx": func(key string) error { _, err := e.store.SetNX(e.ctx, key, "1", 0); return err },
				"incr":  func(key string) error { _, err := e.store.Incr(e.ctx, key, 1, 0); return err },
				"update": func(key string) error {
					_, err := e.store.Update(e.ctx, key, 0, func(string, bool) (string, error) { return "1", nil })
					return err
				},
				"opsetnx": func(key string) error { _, err := e.store.Batch(e.ctx, kv.OpSetNX(key, "1", 0)); return err },
				"txn":     func(key string) error { _, _, err := e.store.Txn(e.ctx, nil, kv.OpIncr(key, 1, 0)); return err },
			}
			at := e.now().Add(e.unit())
			for name := range write {
				e.NoError(e.store.Put(e.ctx, kv.Entry{Key: name, Value: "9", Metadata: someMetadata, ExpiresAt: at}))
			}
			e.waitUntil(at.Add(e.slack() + e.h.Resolution))
			for name, call := range write {
				e.NoError(call(name), name)
				e.Equal(kv.Entry{Key: name, Value: "1"}, e.entry(name))
			}
		},
	},
	{
		name:     "metadata/of many",
		contract: "Scan yields entries: Key, Value, Metadata, ExpiresAt; KeysOnly: entries come without value and metadata.",
		run: func(e *env) {
			at := e.now().Add(time.Hour).Truncate(time.Millisecond)
			for i := range 10 {
				entry := kv.Entry{Key: fmt.Sprint(i), Value: fmt.Sprint(i * i), Metadata: fmt.Sprintf(`{"i":%d}`, i), ExpiresAt: at}
				e.NoError(e.store.Put(e.ctx, entry))
			}
			for _, keysOnly := range []bool{false, true} {
				n := 0
				for entry, err := range e.store.Scan(e.ctx, kv.Range{KeysOnly: keysOnly}) {
					e.NoError(err)
					e.checkNumbered(entry, keysOnly, at)
					n++
				}
				e.Equal(10, n)
				for _, entry := range e.pages(kv.Range{KeysOnly: keysOnly}, 3) {
					e.checkNumbered(entry, keysOnly, at)
				}
			}
		},
	},
}

// checkNumbered checks one of the entries of the case above.
func (e *env) checkNumbered(entry kv.Entry, keysOnly bool, at time.Time) {
	var i int
	_, err := fmt.Sscan(entry.Key, &i)
	e.NoError(err)
	if keysOnly {
		e.Empty(entry.Value)
		e.Empty(entry.Metadata)
		return
	}
	want := kv.Entry{Key: fmt.Sprint(i), Value: fmt.Sprint(i * i), Metadata: fmt.Sprintf(`{"i":%d}`, i), ExpiresAt: at}
	e.sameEntry(want, entry)
}
