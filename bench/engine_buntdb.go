package main

import (
	"strconv"
	"time"

	"github.com/tidwall/buntdb"
)

type buntEngine struct{ db *buntdb.DB }

func openBuntDB(config) engine {
	db, err := buntdb.Open(":memory:")
	must(err)
	return &buntEngine{db}
}

func (e *buntEngine) get(key string) (value string, found bool) {
	err := e.db.View(func(tx *buntdb.Tx) (err error) {
		value, err = tx.Get(key)
		return err
	})
	return value, err == nil
}

func (e *buntEngine) set(key, value string, ttl time.Duration) {
	var options *buntdb.SetOptions
	if ttl > 0 {
		options = &buntdb.SetOptions{Expires: true, TTL: ttl}
	}
	must(e.db.Update(func(tx *buntdb.Tx) error {
		_, _, err := tx.Set(key, value, options)
		return err
	}))
}

func (e *buntEngine) delete(key string) {
	must(e.db.Update(func(tx *buntdb.Tx) error {
		_, err := tx.Delete(key)
		return err
	}))
}

func (e *buntEngine) incr(key string, delta int64) (n int64) {
	must(e.db.Update(func(tx *buntdb.Tx) error {
		old, err := tx.Get(key)
		if err != nil && err != buntdb.ErrNotFound {
			return err
		}
		n = parseInt(old) + delta
		_, _, err = tx.Set(key, strconv.FormatInt(n, 10), nil)
		return err
	}))
	return n
}

func (e *buntEngine) scan(from string, limit int, f func(key, value string)) {
	must(e.db.View(func(tx *buntdb.Tx) error {
		n := 0
		return tx.AscendGreaterOrEqual("", from, func(key, value string) bool {
			f(key, value)
			n++
			return n != limit
		})
	}))
}

func (e *buntEngine) len() (n int) {
	must(e.db.View(func(tx *buntdb.Tx) (err error) {
		n, err = tx.Len()
		return err
	}))
	return n
}

func (e *buntEngine) settle() {}
func (e *buntEngine) close()  { must(e.db.Close()) }

// parseInt parses a counter; "" is 0.
func parseInt(s string) int64 {
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	must(err)
	return n
}
