package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/kvrecipes/kv"
)

// check prints the summary and returns an error if a promise was broken.
func check(ctx context.Context, s *kv.Store, reports []report) error {
	var allowed, sold, replayed int
	for i, r := range reports {
		fmt.Printf("process %d (pid %d): %d requests allowed, %d items sold, %d receipts (%d of them replayed), %d prices\n",
			i+1, r.PID, r.Allowed, r.Sold, len(r.Receipts), r.Replayed, len(r.Prices))
		allowed, sold, replayed = allowed+r.Allowed, sold+r.Sold, replayed+r.Replayed
	}
	fmt.Println()
	stock, err := s.Get(ctx, "sold")
	if err != nil {
		return err
	}
	charged, err := counters(ctx, s, "charged:")
	if err != nil {
		return err
	}
	computed, err := counters(ctx, s, "computed:")
	if err != nil {
		return err
	}
	c := &checks{}
	c.check(allowed == limit, "rate limit: %d of %d attempts allowed, the limit is %d", allowed, attempts*len(reports), limit)
	c.check(stock == strconv.Itoa(sold) && sold == sales*len(reports), "lock: %d items sold, the stock says %s", sold, stock)
	c.check(len(charged) == orders && most(charged) == 1, "idempotency: %d orders charged, at most %d time each", len(charged), most(charged))
	c.check(same(reports, func(r report) map[int]string { return r.Receipts }), "idempotency: every process has the same receipts, %d of %d were replayed", replayed, orders*len(reports))
	c.check(len(computed) == prices && most(computed) == 1, "guarded get: %d prices computed, at most %d time each", len(computed), most(computed))
	c.check(same(reports, func(r report) map[int]string { return r.Prices }), "guarded get: every process has the same prices")
	return c.err
}

type checks struct{ err error }

func (c *checks) check(ok bool, format string, args ...any) {
	text, verdict := fmt.Sprintf(format, args...), "ok  "
	if !ok {
		verdict = "FAIL"
		c.err = errors.Join(c.err, errors.New(text))
	}
	fmt.Println(verdict, text)
}

// counters returns the counters whose keys begin with prefix.
func counters(ctx context.Context, s *kv.Store, prefix string) (map[string]int, error) {
	all := map[string]int{}
	for e, err := range s.Scan(ctx, kv.Range{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		all[e.Key], _ = strconv.Atoi(e.Value)
	}
	return all, nil
}

func most(counters map[string]int) (m int) {
	for _, n := range counters {
		m = max(m, n)
	}
	return m
}

// same says whether all reports have the same in a part of them.
func same(reports []report, part func(report) map[int]string) bool {
	first := part(reports[0])
	for _, r := range reports[1:] {
		other := part(r)
		for i, text := range first {
			if other[i] != text {
				return false
			}
		}
		if len(other) != len(first) {
			return false
		}
	}
	return true
}
