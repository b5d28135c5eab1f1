package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// tally is how far the work is.
type tally struct {
	files atomic.Int64
	words atomic.Int64
	took  time.Duration // set when the reading is over
}

// add counts a file that has been read.
func (t *tally) add(words int) {
	t.files.Add(1)
	t.words.Add(int64(words))
}

// operations is how often the store was called: Incr for a word, Put for a file.
func (t *tally) operations() int { return int(t.words.Load() + t.files.Load()) }

// show starts the clock, and a line of progress if somebody sits at a terminal. The function that it returns ends both.
func (t *tally) show(total int) (hide func()) {
	begun := time.Now()
	if !isTerminal(os.Stderr) {
		return func() { t.took = time.Since(begun) }
	}
	stop := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.print(total, time.Since(begun))
			case <-stop:
				fmt.Fprint(os.Stderr, "\r\x1b[K") // leave no trace
				return
			}
		}
	})
	return func() {
		t.took = time.Since(begun)
		close(stop)
		shown.Wait()
	}
}

func (t *tally) print(total int, since time.Duration) {
	files := int(t.files.Load())
	perSecond := int(float64(t.operations()) / since.Seconds())
	fmt.Fprintf(os.Stderr, "\r\x1b[K  %-20s %s files, %s words, %s/s",
		bar(files, total, 20), group(files), group(int(t.words.Load())), group(perSecond))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// bar draws part of whole, to an eighth of a column.
func bar(part, whole, columns int) string {
	eighths := part * columns * 8 / max(whole, 1)
	return strings.Repeat("█", eighths/8) + []string{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"}[eighths%8]
}

// group writes 1234567 as 1,234,567.
func group(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
