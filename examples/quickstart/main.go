// Quickstart counts the words of every text file under a folder in a kv.Store,
// and keeps a note about each file that expires by itself.
//
//	go run ./examples/quickstart            # the source of your Go installation
//	go run ./examples/quickstart ~/letters
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/kvrecipes/kv"
)

const (
	noteTTL = 2 * time.Second // how long the store remembers a file
	minWord = 2               // what is shorter is no word but a variable
	maxWord = 64              // what is longer is no word but data
)

func main() {
	limit := flag.Duration("for", 30*time.Second, "read for at most this long")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: quickstart [-for 30s] [DIR]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	err := run(ctx, flag.Arg(0), *limit)
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "quickstart: interrupted")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, limit time.Duration) error {
	folder, err := openFolder(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Printf("Reading %s files under %s\n", group(len(folder.paths)), folder.root)

	store := kv.New(nil)
	defer store.Close()
	c := &counter{
		folder: folder,
		words:  store.Namespace("word"),
		notes:  store.Namespace("note"),
	}
	expiries, err := watchExpiries(ctx, c.notes) // before the first note is written
	if err != nil {
		return err
	}
	if err := c.readAll(ctx, limit); err != nil {
		return err
	}
	if err := printWords(ctx, c.words); err != nil {
		return err
	}
	if err := printNotes(ctx, c, expiries); err != nil {
		return err
	}
	printCost(c, store.Stats())
	return nil
}

// counter counts words and takes notes. Both live in one store: a namespace is
// a prefix of its keys.
type counter struct {
	folder *folder
	words  *kv.Store // word -> how often it occurs
	notes  *kv.Store // path -> how many words it has, for noteTTL
	tally  tally
}

var errTimeUp = errors.New("time is up")

// readAll reads the folder's files, with one worker per core.
func (c *counter) readAll(ctx context.Context, limit time.Duration) error {
	ctx, stop := context.WithTimeoutCause(ctx, limit, errTimeUp)
	defer stop()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	hide := c.tally.show(len(c.folder.paths))
	defer hide()

	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for path := range c.folder.queue(ctx) {
				if err := c.readOne(ctx, path); err != nil {
					fail(err)
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errTimeUp) {
		return err
	}
	return nil
}

// readOne counts the words of one file and takes a note about it.
func (c *counter) readOne(ctx context.Context, path string) error {
	text, ok := c.folder.read(path)
	if !ok {
		return nil
	}
	count := 0
	for word := range strings.FieldsFuncSeq(text, notLetter) {
		if len(word) < minWord || len(word) > maxWord {
			continue
		}
		// One atomic step, whoever else counts the same word now.
		if _, err := c.words.Incr(ctx, strings.ToLower(word), 1, kv.NoExpiry); err != nil {
			return err
		}
		count++
	}
	c.tally.add(count)
	return c.notes.Put(ctx, kv.Entry{
		Key:       path,
		Value:     strconv.Itoa(count),
		Metadata:  fmt.Sprintf(`{"bytes":%d,"lines":%d}`, len(text), strings.Count(text, "\n")),
		ExpiresAt: time.Now().Add(noteTTL),
	})
}

func notLetter(r rune) bool { return !unicode.IsLetter(r) }
