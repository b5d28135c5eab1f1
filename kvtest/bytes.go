package kvtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/kvrecipes/kv"
)

// oddValues are values that a wrong encoding changes.
var oddValues = []string{
	"", " ", "\x00", "\x00\x00", "a\x00b", "\xff", "\xfe\xff", "\xc3\x28", "\xed\xa0\x80", "é", "\r\n", "\n", "$5\r\nhello\r\n", "*1\r\n",
	"\x1b[0m", `"quoted"`, `{"json":true}`, "null", "nil", "true", "0", "-0", "+1", "01", "1.0", "1e3", "9223372036854775807", "9223372036854775808",
	"\u2028", "\ufeff", "%", "%00", "\\x00", "\\", "'", "`", "${x}", "\x01\x02\x03", strings.Repeat("\x00", 4096), strings.Repeat("\xff", 70_000),
}

var byteCases = []testCase{
	{
		name:     "bytes/values",
		contract: "Keys, values and metadata are Go strings holding any bytes: A number stays the number that was stored and a numeric string stays a string.",
		run: func(e *env) {
			for i, value := range oddValues {
				key, beside := fmt.Sprint("a", i), fmt.Sprint("b", i)
				e.set(key, value, kv.NoExpiry)
				e.NoError(e.store.SetMany(e.ctx, map[string]string{beside: value}, time.Hour))
			}
			for i, value := range oddValues {
				key, beside := fmt.Sprint("a", i), fmt.Sprint("b", i)
				e.value(key, value)
				e.Equal(value, e.entry(beside).Value)
				got, err := e.store.GetMany(e.ctx, key, beside)
				e.NoError(err)
				e.Equal(map[string]string{key: value, beside: value}, got)
				e.throughEveryMethod(key, value)
			}
		},
	},
	{
		name:     "bytes/keys",
		contract: "Keys, values and metadata are Go strings holding any bytes.",
		run: func(e *env) {
			keys := append([]string{" ", "a b", "a\nb", "\r\n", "\xff\xfe", "\xc3\x28", "é", "e\u0301", "%", "*", "?", "[a]", "\\", "'", `"`, "...", "/", "//"}, oddKeys...)
			for i, key := range keys {
				e.set(key, fmt.Sprint(i), kv.NoExpiry)
			}
			want := map[string]string{}
			for i, key := range keys { // a key that comes twice holds what was set last
				want[key] = fmt.Sprint(i)
			}
			for key, value := range want {
				e.value(key, value)
				e.Equal(key, e.entry(key).Key)
			}
			for entry, err := range e.store.Scan(e.ctx, kv.Range{}) {
				e.NoError(err)
				e.Equalf(want[entry.Key], entry.Value, "key %q", entry.Key)
			}
			n, err := e.store.Count(e.ctx, "")
			e.NoError(err)
			e.Equal(len(want), n)
		},
	},
	{
		name:     "bytes/25 MiB",
		contract: "value: 25 MiB; Keys, values and metadata are Go strings holding any bytes.",
		run: func(e *env) {
			raw := make([]byte, kv.DefaultMaxValueBytes)
			random := rand.NewChaCha8([32]byte{1})
			_, _ = random.Read(raw)
			value := string(raw)
			e.set("key", value, time.Hour)
			got, err := e.store.GetExpire(e.ctx, "key", kv.KeepTTL)
			e.NoError(err)
			e.True(got == value, "Get after Set")
			changed := value[1:] + "x"
			swapped, err := e.store.CompareAndSwap(e.ctx, "key", value, changed, kv.KeepTTL)
			e.NoError(err)
			e.True(swapped)
			swapped, err = e.store.CompareAndSwap(e.ctx, "key", value, changed, kv.KeepTTL)
			e.NoError(err)
			e.False(swapped)
			for entry, err := range e.store.Scan(e.ctx, kv.Range{}) {
				e.NoError(err)
				e.True(entry.Value == changed, "Scan")
			}
			got, err = e.store.GetDelete(e.ctx, "key")
			e.NoError(err)
			e.True(got == changed, "GetDelete")
			e.absent("key")
		},
	},
	{
		name:     "bytes/sizes",
		contract: "Keys, values and metadata are Go strings holding any bytes.",
		run: func(e *env) {
			var sizes []int
			for n := 1; n <= 1<<20; n *= 2 {
				sizes = append(sizes, n-1, n, n+1)
			}
			value := strings.Repeat("0123456789", 1<<17)
			for i, n := range sizes {
				e.set(fmt.Sprint(i), value[i:i+n], kv.NoExpiry)
			}
			for i, n := range sizes {
				got, err := e.store.Get(e.ctx, fmt.Sprint(i))
				e.NoError(err)
				e.Truef(got == value[i:i+n], "a value of %d bytes comes back changed", n)
			}
		},
	},
}

// throughEveryMethod checks that the value of key is value for every method that compares or returns it.
func (e *env) throughEveryMethod(key, value string) {
	swapped, err := e.store.CompareAndSwap(e.ctx, key, value, value, kv.KeepTTL)
	e.NoError(err)
	e.Truef(swapped, "CompareAndSwap from %.100q", value)
	ok, results, err := e.store.Txn(e.ctx, []kv.Cond{kv.IfValue(key, value)}, kv.OpGet(key), kv.OpSet(key, value, 0))
	e.NoError(err)
	e.Truef(ok, "IfValue(%.100q)", value)
	e.Equal(value, results[0].Value)
	results, err = e.store.Batch(e.ctx, kv.OpGet(key))
	e.NoError(err)
	e.Equal(value, results[0].Value)
	got, err := e.store.Update(e.ctx, key, 0, func(old string, _ bool) (string, error) { return old, nil })
	e.NoError(err)
	e.Equal(value, got)
	for _, entry := range e.pages(kv.Range{Prefix: key}, 10) {
		if entry.Key == key {
			e.Equal(value, entry.Value)
		}
	}
	deleted, err := e.store.CompareAndDelete(e.ctx, key, value)
	e.NoError(err)
	e.Truef(deleted, "CompareAndDelete of %.100q", value)
}
