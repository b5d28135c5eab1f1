package kvtest

import (
	"context"
	"fmt"
	"time"

	"github.com/kvrecipes/kv"
)

func (e *env) watch(s *kv.Store, prefix string) *kv.Watcher {
	w, err := s.Watch(e.ctx, prefix)
	e.NoError(err)
	e.t.Cleanup(w.Stop)
	return w
}

// next returns the next event of w.
func (e *env) next(w *kv.Watcher) kv.Event {
	select {
	case event, ok := <-w.Events():
		e.Truef(ok, "the watch has ended: %v", w.Err())
		return event
	case <-time.After(e.patience()):
		e.Fail("no event comes")
		return kv.Event{}
	}
}

// expect checks that the next events of w are want. On an engine with bare
// events it compares their types and keys alone.
func (e *env) expect(w *kv.Watcher, want ...kv.Event) {
	for i, event := range want {
		got := e.next(w)
		if e.h.BareEvents {
			event.Entry, got.Entry = kv.Entry{Key: event.Entry.Key}, kv.Entry{Key: got.Entry.Key}
		}
		e.Equalf(event.Type, got.Type, "event %d: %+v", i, got)
		e.sameEntry(event.Entry, got.Entry)
	}
}

func put(key, value string) kv.Event {
	return kv.Event{Type: kv.EventPut, Entry: kv.Entry{Key: key, Value: value}}
}

func deleted(key, value string) kv.Event {
	return kv.Event{Type: kv.EventDelete, Entry: kv.Entry{Key: key, Value: value}}
}

func expired(last kv.Entry) kv.Event { return kv.Event{Type: kv.EventExpire, Entry: last} }

// ended checks that w ends with err, whatever is buffered.
func (e *env) ended(w *kv.Watcher, want error) {
	late := time.After(e.patience())
	for {
		select {
		case _, ok := <-w.Events():
			if ok {
				continue
			}
			if want == nil {
				e.NoError(w.Err())
			} else {
				e.ErrorIs(w.Err(), want)
			}
			return
		case <-late:
			e.Fail("the watch does not end")
		}
	}
}

var watchCases = []testCase{
	{
		name:     "Watch",
		contract: "EventPut: the new entry; in memory EventDelete and EventExpire carry the last value. Per key, events come in the order of the writes.",
		run: func(e *env) {
			key, n := e.key("key"), e.key("n") // of one node: the order is promised per key, not across nodes
			e.set(key, "before", kv.NoExpiry)
			w := e.watch(e.store, "")
			e.set(key, "a", kv.NoExpiry)
			e.set(key, "a", kv.NoExpiry)
			_, err := e.store.Incr(e.ctx, n, 5, 0)
			e.NoError(err)
			e.expect(w, put(key, "a"), put(key, "a"), put(n, "5"))
			count, err := e.store.Delete(e.ctx, key, "missing")
			e.NoError(err)
			e.Equal(1, count)
			e.set(key, "b", kv.NoExpiry)
			e.expect(w, deleted(key, "a"), put(key, "b"))
			e.NoError(w.Err())
		},
	},
	{
		name:     "Watch/every write",
		contract: "Watch: every change of a key is an event; per key in the order of the writes.",
		run: func(e *env) {
			w := e.watch(e.store, "key")
			writes := []func() error{
				func() error { return e.store.Set(e.ctx, "key", "1", 0) },
				func() error { return e.store.SetMany(e.ctx, map[string]string{"key": "2"}, 0) },
				func() error { return e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "3"}) },
				func() error { _, err := e.store.CompareAndSwap(e.ctx, "key", "3", "4", 0); return err },
				func() error {
					_, err := e.store.Update(e.ctx, "key", 0, func(string, bool) (string, error) { return "5", nil })
					return err
				},
				func() error { _, err := e.store.Incr(e.ctx, "key", 1, 0); return err },
				func() error { _, err := e.store.Batch(e.ctx, kv.OpIncr("key", 1, 0)); return err },
				func() error { _, _, err := e.store.Txn(e.ctx, nil, kv.OpSet("key", "8", 0)); return err },
			}
			for i, write := range writes {
				e.NoError(write())
				e.expect(w, put("key", fmt.Sprint(i+1)))
			}
			deletes := []func() error{
				func() error { _, err := e.store.Delete(e.ctx, "key"); return err },
				func() error { _, err := e.store.GetDelete(e.ctx, "key"); return err },
				func() error { _, err := e.store.CompareAndDelete(e.ctx, "key", "v"); return err },
				func() error { _, err := e.store.DeletePrefix(e.ctx, "k"); return err },
				func() error { _, err := e.store.Batch(e.ctx, kv.OpDelete("key")); return err },
				func() error { _, _, err := e.store.Txn(e.ctx, nil, kv.OpDelete("key")); return err },
				func() error { // Put with a past deadline over a live key gives EventDelete
					return e.store.Put(e.ctx, kv.Entry{Key: "key", Value: "late", ExpiresAt: e.now().Add(-time.Hour)})
				},
			}
			_, err := e.store.Delete(e.ctx, "key")
			e.NoError(err)
			e.expect(w, deleted("key", "8"))
			for _, write := range deletes {
				_, err := e.store.SetNX(e.ctx, "key", "v", 0)
				e.NoError(err)
				e.NoError(write())
				e.expect(w, put("key", "v"), deleted("key", "v"))
			}
		},
	},
	{
		name:     "Watch/what is no event",
		contract: "A changed deadline alone is no event.",
		run: func(e *env) {
			e.set("key", "v", kv.NoExpiry)
			e.set("text", "v", kv.NoExpiry)
			w := e.watch(e.store, "")
			for _, ttl := range []time.Duration{time.Hour, kv.KeepTTL, kv.NoExpiry} {
				_, err := e.store.Expire(e.ctx, "key", ttl)
				e.NoError(err)
				_, err = e.store.GetExpire(e.ctx, "key", ttl)
				e.NoError(err)
			}
			_, err := e.store.SetNX(e.ctx, "key", "other", 0)
			e.NoError(err)
			_, err = e.store.CompareAndSwap(e.ctx, "key", "other", "third", 0)
			e.NoError(err)
			_, err = e.store.CompareAndDelete(e.ctx, "key", "other")
			e.NoError(err)
			_, err = e.store.Incr(e.ctx, "text", 1, 0)
			e.ErrorIs(err, kv.ErrNotInteger)
			_, _, err = e.store.Txn(e.ctx, nil, kv.OpSet(e.key("key"), "x", 0), kv.OpSet(e.key("text"), "y", 0), kv.OpIncr(e.key("text"), 1, 0))
			e.ErrorIs(err, kv.ErrNotInteger)
			_, err = e.store.Delete(e.ctx, "missing", "other")
			e.NoError(err)
			e.NoError(e.store.Put(e.ctx, kv.Entry{Key: "missing", Value: "v", ExpiresAt: e.now().Add(-time.Hour)}))
			e.value("key", "v")
			for _, key := range []string{"key", "text", "missing"} {
				e.set(key, "last", kv.NoExpiry)
				e.expect(w, put(key, "last"))
			}
		},
	},
	{
		name:     "Watch/expiry",
		contract: "EventExpire: the key's deadline passed; in memory it carries the last value.",
		run: func(e *env) {
			w := e.watch(e.store, "")
			e.set("key", "v", e.unit())
			last := e.entryOr("key", e.now())
			event := e.next(w)
			e.Equal(kv.EventPut, event.Type)
			e.waitUntil(last.ExpiresAt.Add(e.slack() + e.h.Resolution))
			e.absent("key")
			e.expect(w, expired(last))
			e.set("key", "again", kv.NoExpiry)
			e.expect(w, put("key", "again"))
		},
	},
	{
		name:     "Watch/written again after expiry",
		contract: "an expired key that is written again before it was reclaimed gives EventExpire first.",
		run: func(e *env) {
			w := e.watch(e.store, "")
			writes := []func(key string) error{
				func(key string) error { return e.store.Set(e.ctx, key, "7", 0) },
				func(key string) error { _, err := e.store.SetNX(e.ctx, key, "7", 0); return err },
				func(key string) error { _, err := e.store.Incr(e.ctx, key, 7, 0); return err },
				func(key string) error { return e.store.Put(e.ctx, kv.Entry{Key: key, Value: "7"}) },
				func(key string) error { _, _, err := e.store.Txn(e.ctx, nil, kv.OpSet(key, "7", 0)); return err },
				func(key string) error { _, err := e.store.Batch(e.ctx, kv.OpSetNX(key, "7", 0)); return err },
			}
			for i, write := range writes {
				key := fmt.Sprint("key", i)
				e.set(key, "old", e.unit())
				last := e.entryOr(key, e.now())
				e.Equal(kv.EventPut, e.next(w).Type)
				e.wait(e.unit() + e.slack())
				e.NoError(write(key))
				e.expect(w, expired(last), put(key, "7"))
			}
		},
	},
	{
		name:     "Watch/with metadata and deadline",
		contract: "Event.Entry: EventPut: the new entry.",
		when:     fullEvents,
		run: func(e *env) {
			w := e.watch(e.store, "")
			want := kv.Entry{Key: "key", Value: "v", Metadata: someMetadata, ExpiresAt: e.now().Add(time.Hour)}
			e.NoError(e.store.Put(e.ctx, want))
			e.expect(w, kv.Event{Type: kv.EventPut, Entry: want})
			_, err := e.store.Delete(e.ctx, "key")
			e.NoError(err)
			e.expect(w, kv.Event{Type: kv.EventDelete, Entry: want})
		},
	},
	{
		name:     "Watch/prefix",
		contract: "Watch(ctx, prefix): subscribes to the changes of keys that begin with prefix; subscribed when it returns.",
		run: func(e *env) {
			all, a, ab, exact := e.watch(e.store, ""), e.watch(e.store, "a"), e.watch(e.store, "ab"), e.watch(e.store, "a*")
			for _, key := range []string{"b", "a", "ba", "ab", "bab", "abc", "ac", "ba*", "a*", "\xff"} {
				e.set(key, "v", kv.NoExpiry)
				e.expect(all, put(key, "v"))
			}
			for _, key := range []string{"a", "ab", "abc", "ac", "a*"} {
				e.expect(a, put(key, "v"))
			}
			e.expect(ab, put("ab", "v"), put("abc", "v"))
			e.expect(exact, put("a*", "v"))
			e.set("ab", "end", kv.NoExpiry)
			e.expect(ab, put("ab", "end"))
			e.set("a*", "end", kv.NoExpiry)
			e.expect(exact, put("a*", "end"))
		},
	},
	{
		name:     "Watch/Stop",
		contract: "Stop is idempotent and what is buffered stays readable.",
		run: func(e *env) {
			w, other := e.watch(e.store, ""), e.watch(e.store, "")
			for i := range 10 {
				e.set("key", fmt.Sprint(i), kv.NoExpiry)
				e.next(other)
			}
			first := e.next(w)
			e.Equal("key", first.Entry.Key)
			if e.h.Virtual {
				e.wait(time.Second) // whatever is under way arrives
			}
			e.parallel(8, func(int) error { w.Stop(); return nil })
			e.set("key", "after", kv.NoExpiry)
			buffered := 0
			for event := range w.Events() {
				e.NotEqual("after", event.Entry.Value)
				buffered++
			}
			if e.h.Virtual {
				e.Equal(9, buffered)
			}
			e.NoError(w.Err())
			w.Stop()
			e.expect(other, put("key", "after"))
		},
	},
	{
		name:     "Watch/ctx",
		contract: "Events: closed when stopped, ctx ended, store closed or fallen behind; Err after the close: nil, ctx's error, ErrClosed or ErrLagged.",
		run: func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx)
			w, err := e.store.Watch(ctx, "")
			e.NoError(err)
			late, cancelLate := context.WithTimeout(e.ctx, e.unit())
			defer cancelLate()
			timed, err := e.store.Watch(late, "")
			e.NoError(err)
			cancel()
			e.ended(w, context.Canceled)
			e.ended(timed, context.DeadlineExceeded)
			w.Stop()
			e.ErrorIs(w.Err(), context.Canceled)
			_, err = e.store.Watch(ctx, "")
			e.ErrorIs(err, context.Canceled)
		},
	},
	{
		name:     "Watch/Close",
		contract: "Err after the close: ErrClosed.",
		run: func(e *env) {
			w, stopped := e.watch(e.store, ""), e.watch(e.store, "")
			e.set("key", "v", kv.NoExpiry)
			e.next(w)
			stopped.Stop()
			e.NoError(e.root.Close())
			e.ended(w, kv.ErrClosed)
			e.NoError(stopped.Err())
			_, err := e.store.Watch(e.ctx, "")
			e.ErrorIs(err, kv.ErrClosed)
		},
	},
	{
		name:     "Watch/slow reader",
		contract: "A slow reader never blocks a writer: a watcher whose buffer is full is closed with ErrLagged, never silently short of an event. The buffer holds at least 1,024 events.",
		run: func(e *env) {
			slow, beside := e.watch(e.store, "key"), e.watch(e.store, "beside")
			const more = 20_000
			for written := 0; written < more; written += 1000 {
				var ops []kv.Op
				for range 1000 {
					ops = append(ops, kv.OpIncr("key", 1, 0))
				}
				_, err := e.store.Batch(e.ctx, ops...)
				e.NoError(err)
			}
			e.value("key", fmt.Sprint(more))
			e.eventually(func() bool { return slow.Err() != nil })
			read := 0
			for event := range slow.Events() {
				if read++; !e.h.BareEvents {
					e.Equal(fmt.Sprint(read), event.Entry.Value)
				}
			}
			e.ErrorIs(slow.Err(), kv.ErrLagged)
			e.GreaterOrEqual(read, 1024)
			e.Less(read, more)
			e.set("beside", "v", kv.NoExpiry)
			e.expect(beside, put("beside", "v"))
			again := e.watch(e.store, "key")
			e.set("key", "new", kv.NoExpiry)
			e.expect(again, put("key", "new"))
		},
	},
	{
		name:     "Watch/as many as the buffer",
		contract: "The buffer holds at least 1,024 events.",
		run: func(e *env) {
			w := e.watch(e.store, "")
			for range 1024 {
				_, err := e.store.Incr(e.ctx, "key", 1, 0)
				e.NoError(err)
			}
			for i := range 1024 {
				e.expect(w, put("key", fmt.Sprint(i+1)))
			}
		},
	},
	{
		name:     "Watch/order under load",
		contract: "Per key, events come in the order of the writes, never silently short of an event.",
		run: func(e *env) {
			const writers, each = 8, 128 // together not more than the buffer holds
			w := e.watch(e.store, "")
			result := make(chan error, 1)
			go func() { result <- e.inOrder(w, writers*each) }()
			e.parallel(writers, func(i int) error {
				for range each {
					if _, err := e.store.Incr(e.ctx, fmt.Sprint(i%2), 1, 0); err != nil {
						return err
					}
				}
				return nil
			})
			e.NoError(<-result)
		},
	},
}

// inOrder reads the events of two counters until both have got as far as the writers bring them.
func (e *env) inOrder(w *kv.Watcher, total int) error {
	last := map[string]int{}
	late := time.After(e.patience())
	for range total {
		var event kv.Event
		select {
		case event = <-w.Events():
		case <-late:
			return fmt.Errorf("events are missing: only %v have come", last)
		}
		var n int
		if _, err := fmt.Sscan(event.Entry.Value, &n); err != nil {
			return fmt.Errorf("event %+v (%w): %w", event, w.Err(), err)
		}
		before := last[event.Entry.Key]
		if n < before || !e.h.BareEvents && n != before+1 {
			return fmt.Errorf("event %d of counter %s follows %d", n, event.Entry.Key, before)
		}
		last[event.Entry.Key] = n
	}
	return nil
}
