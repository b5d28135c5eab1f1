package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kvrecipes/kv"
)

const (
	maxFiles  = 200_000
	maxBytes  = 8 << 20 // of one file that are read
	sniffed   = 8000    // bytes in which a NUL makes a file a binary one, as git has it
	maxInNote = kv.DefaultMaxKeyBytes - len("note:")
)

// folder is the files under a root, and what became of those that can't be counted.
type folder struct {
	root  string
	paths []string // relative to root, with slashes

	next atomic.Int64 // index of the next path to read

	mu         sync.Mutex
	passedOver map[string]int // reason -> files; guarded by mu
}

// openFolder lists the regular files under dir; "" is the source of the Go installation.
// Links are not followed, so that no file counts twice and no walk goes in circles.
func openFolder(ctx context.Context, dir string) (*folder, error) {
	if dir == "" {
		var err error
		if dir, err = goSource(ctx); err != nil {
			return nil, err
		}
	}
	root, err := filepath.EvalSymlinks(dir) // the folder itself may be a link
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(root); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	f := &folder{root: root, passedOver: make(map[string]int)}
	if _, err := os.ReadDir(root); err != nil {
		return nil, err
	}
	return f, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		return errors.Join(ctx.Err(), f.visit(path, d, err))
	})
}

func (f *folder) visit(path string, d fs.DirEntry, err error) error {
	if err != nil {
		f.passOver("unreadable")
		return nil
	}
	if d.IsDir() {
		return nil
	}
	name, err := filepath.Rel(f.root, path)
	if err != nil {
		return err
	}
	switch info, err := d.Info(); {
	case err != nil:
		f.passOver("unreadable")
	case !info.Mode().IsRegular():
		f.passOver("links and other special files")
	case info.Size() == 0: // or a file of /proc, where a read may wait for ever
		f.passOver("empty")
	case len(name) > maxInNote:
		f.passOver("path too long for a key")
	case len(f.paths) == maxFiles:
		f.passOver("more than 200,000 files")
		return filepath.SkipAll
	default:
		f.paths = append(f.paths, filepath.ToSlash(name))
	}
	return nil
}

func goSource(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask go for its own source (%w): name a folder to read", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src"), nil
}

// queue yields paths until there are none left or ctx ends. Workers share it: each path goes to one of them.
func (f *folder) queue(ctx context.Context) iter.Seq[string] {
	return func(yield func(string) bool) {
		for ctx.Err() == nil {
			i := int(f.next.Add(1)) - 1
			if i >= len(f.paths) || !yield(f.paths[i]) {
				return
			}
		}
	}
}

// read returns the text of a file, its first 8 MiB at most. ok is false if there is none.
func (f *folder) read(path string) (text string, ok bool) {
	file, err := os.Open(filepath.Join(f.root, filepath.FromSlash(path)))
	if err != nil {
		f.passOver("unreadable")
		return "", false
	}
	defer file.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, io.LimitReader(file, maxBytes)); err != nil {
		f.passOver("unreadable")
		return "", false
	}
	text = b.String()
	if strings.ContainsRune(text[:min(len(text), sniffed)], 0) {
		f.passOver("binary")
		return "", false
	}
	if len(text) == maxBytes {
		f.passOver("whatever follows the first 8 MiB of a file")
	}
	return text, true
}

// unread returns how many files no worker has taken.
func (f *folder) unread() int { return max(0, len(f.paths)-int(f.next.Load())) }

func (f *folder) passOver(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passedOver[reason]++
}
