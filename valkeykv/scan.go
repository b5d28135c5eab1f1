package valkeykv

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
)

const (
	scanCount   = 1000    // keys that the server looks at in one step of a scan
	readAtOnce  = 500     // keys whose values are asked for in one round trip
	enoughBytes = 1 << 20 // of values in one answer: a scan over large values must not fill the memory
	maxLayouts  = 8       // how often a scan begins again because slots moved meanwhile
)

// Scan implements [kv.Engine]. It walks the nodes one after the other; what it
// has seen is remembered until it ends, because a server that is about to grow or shrink its table
// tells keys twice. When slots have moved from node to node meanwhile, it walks all nodes again.
func (e *engine) Scan(ctx context.Context, r kv.Range) iter.Seq2[kv.Entry, error] {
	return func(yield func(kv.Entry, error) bool) {
		if err := unordered(r); err != nil {
			yield(kv.Entry{}, err)
			return
		}
		s := &scan{e: e, r: r, seen: make(map[string]struct{}), yield: yield}
		if err := s.run(ctx); err != nil && !s.stopped {
			yield(kv.Entry{}, err)
		}
	}
}

func unordered(r kv.Range) error {
	if r.Reverse || r.From != "" || r.To != "" {
		return kv.ErrUnsupported
	}
	return nil
}

// scan is one Scan under way.
type scan struct {
	e       *engine
	r       kv.Range
	seen    map[string]struct{}
	yield   func(kv.Entry, error) bool
	stopped bool // by the consumer
}

func (s *scan) run(ctx context.Context) error {
	nodes, err := s.e.nodes(ctx)
	for range maxLayouts {
		if err != nil {
			return err
		}
		before := identity(nodes)
		for _, n := range nodes {
			if err := s.node(ctx, n); err != nil || s.stopped {
				return err
			}
		}
		if nodes, err = s.e.nodes(ctx); err == nil && identity(nodes) == before {
			return nil
		}
	}
	return &fault{kinds: []error{ErrUnavailable}, cause: fmt.Errorf("slots moved during each of %d scans", maxLayouts)}
}

// identity says which nodes hold which slots.
func identity(nodes []node) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintln(&b, n.id, n.slots)
	}
	return b.String()
}

// node scans n from the beginning to the end.
func (s *scan) node(ctx context.Context, n node) error {
	var at place
	for {
		step, err := s.e.step(ctx, n, s.r.Prefix, at, scanCount)
		if err != nil {
			return err
		}
		fresh := step.keys[:0]
		for _, key := range step.keys {
			if _, seen := s.seen[key]; !seen {
				s.seen[key] = struct{}{}
				fresh = append(fresh, key)
			}
		}
		if err := s.pass(ctx, fresh); err != nil || s.stopped {
			return err
		}
		if at = step.next; at.cursor == 0 {
			return nil
		}
	}
}

// pass passes the entries of keys to the consumer.
func (s *scan) pass(ctx context.Context, keys []string) error {
	for entries, err := range s.e.entries(ctx, keys, s.r.KeysOnly) {
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !s.yield(entry, nil) {
				s.stopped = true
				return nil
			}
		}
	}
	return nil
}

// place is a point in the scan of one node.
type place struct {
	run    string // id of the server's process: a cursor means nothing to another one
	cursor uint64 // 0 is the beginning, and the end
}

type step struct {
	keys []string
	next place
}

// step asks n for the keys that come after at. A server that was restarted
// since is asked from the beginning, because its table has another order.
func (e *engine) step(ctx context.Context, n node, prefix string, at place, count int) (step, error) {
	for {
		run, s, err := e.askStep(ctx, n, prefix, at.cursor, count)
		if err != nil {
			return step{}, readFault(err)
		}
		if at.cursor == 0 || run == at.run {
			return step{keys: s.Elements, next: place{run: run, cursor: s.Cursor}}, nil
		}
		at = place{}
	}
}

// askStep asks for the keys and, in the same round trip, which process it is that answers.
func (e *engine) askStep(ctx context.Context, n node, prefix string, cursor uint64, count int) (run string, s valkey.ScanEntry, err error) {
	b := n.client.B()
	answers := e.doMultiOn(ctx, n.client,
		b.Info().Section("server").Build(),
		b.Scan().Cursor(cursor).Match(escapeGlob(prefix)+"*").Count(int64(count)).Type("string").Build())
	info, err := answers[0].ToString()
	if err != nil {
		return "", s, err
	}
	s, err = answers[1].AsScanEntry()
	return infoField(info, "run_id"), s, err
}

// infoField returns a field of what INFO answers.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// escapeGlob returns the pattern that matches text alone.
func escapeGlob(text string) string { return globEscaper.Replace(text) }

// entries yields the live entries of keys, some at a time. A key that is no string is none.
func (e *engine) entries(ctx context.Context, keys []string, keysOnly bool) iter.Seq2[[]kv.Entry, error] {
	return func(yield func([]kv.Entry, error) bool) {
		for len(keys) > 0 {
			chunk := keys[:min(len(keys), readAtOnce)]
			keys = keys[len(chunk):]
			for len(chunk) > 0 {
				var entries []kv.Entry
				var err error
				if keysOnly {
					entries, err = e.readDeadlines(ctx, chunk)
					chunk = nil
				} else {
					entries, chunk, err = e.readSome(ctx, chunk)
				}
				if !yield(entries, err) || err != nil {
					return
				}
			}
		}
	}
}

// readDeadlines returns the entries of keys that are live, without value and metadata.
func (e *engine) readDeadlines(ctx context.Context, keys []string) ([]kv.Entry, error) {
	cmds := make([]valkey.Completed, len(keys))
	for i, key := range keys {
		cmds[i] = e.client.B().Pexpiretime().Key(key).Build()
	}
	entries := make([]kv.Entry, 0, len(keys))
	for i, answer := range e.doMulti(ctx, cmds...) {
		ms, err := answer.AsInt64()
		if err != nil {
			return nil, readFault(err)
		}
		if ms != -2 {
			entries = append(entries, kv.Entry{Key: keys[i], ExpiresAt: deadline(ms)})
		}
	}
	return entries, nil
}

// readSome returns the entries of the first of keys, at least one, and the keys
// that are left because what came before is large.
func (e *engine) readSome(ctx context.Context, keys []string) (entries []kv.Entry, left []string, err error) {
	groups := e.groups(keys)
	answers := e.runGroups(ctx, groups)
	for i, group := range groups {
		values, err := answers[i].ToArray()
		if err != nil {
			return nil, nil, readFault(err)
		}
		for j, value := range values {
			fields, err := value.ToArray()
			if err != nil {
				return nil, nil, readFault(err)
			}
			if entry, ok := decodeEntry(group[j], fields); ok {
				entries = append(entries, entry)
			}
		}
		left = append(left, group[len(values):]...)
	}
	return entries, left, nil
}

// groups divides keys into those that one script may read.
func (e *engine) groups(keys []string) [][]string {
	if !e.cluster {
		return [][]string{keys}
	}
	bySlot := make(map[uint16]int)
	var groups [][]string
	for _, key := range keys {
		i, ok := bySlot[e.slot(key)]
		if !ok {
			i = len(groups)
			bySlot[e.slot(key)] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], key)
	}
	return groups
}

// runGroups runs the script that reads entries on each of groups.
func (e *engine) runGroups(ctx context.Context, groups [][]string) []valkey.ValkeyResult {
	args := []string{strconv.Itoa(enoughBytes)}
	cmds := make([]valkey.Completed, len(groups))
	for i, group := range groups {
		cmds[i] = entriesScript.bySHA(e.client, group, args)
	}
	answers := e.doMulti(ctx, cmds...)
	for i, answer := range answers {
		if isNoScript(answer.Error()) {
			answers[i] = e.do(ctx, entriesScript.whole(e.client, groups[i], args))
		}
	}
	return answers
}

// pageSteps bounds the steps of one page over keys of which few have the prefix.
const pageSteps = 32

// Page implements [kv.Engine].
func (e *engine) Page(ctx context.Context, r kv.Range, cursor string, limit int) ([]kv.Entry, string, error) {
	if err := unordered(r); err != nil {
		return nil, "", err
	}
	p, err := parsePosition(cursor)
	if err != nil {
		return nil, "", err
	}
	nodes, err := e.nodes(ctx)
	if err != nil {
		return nil, "", err
	}
	p = p.in(nodes)
	var keys []string
	for range pageSteps {
		s, err := e.step(ctx, nodes[p.node], r.Prefix, p.place, max(limit-len(keys), 10))
		if err != nil {
			return nil, "", err
		}
		keys = append(keys, s.keys...)
		p.place = s.next
		if p.cursor == 0 {
			p.node++
		}
		if p.node == len(nodes) || 2*len(keys) >= limit {
			break
		}
	}
	entries, err := e.page(ctx, keys, r.KeysOnly)
	if err != nil {
		return nil, "", err
	}
	return entries, p.text(len(nodes)), nil
}

// page returns the live entries of keys, each once.
func (e *engine) page(ctx context.Context, keys []string, keysOnly bool) (page []kv.Entry, err error) {
	seen := make(map[string]struct{}, len(keys))
	once := keys[:0]
	for _, key := range keys {
		if _, known := seen[key]; !known {
			seen[key] = struct{}{}
			once = append(once, key)
		}
	}
	for entries, err := range e.entries(ctx, once, keysOnly) {
		if err != nil {
			return nil, err
		}
		page = append(page, entries...)
	}
	return page, nil
}

// position is where a page begins. In it, a node is the index of a part of the slots,
// so that it stays good when a failover gives the part to another server.
type position struct {
	layout uint64 // of the cluster as the pages began
	node   int
	place
}

const (
	positionVersion = 1
	runBytes        = 20 // of a process id, which is written in hexadecimal digits
)

// text returns p as it is handed out: version, layout, node, cursor, process id. "" is the end.
func (p position) text(nodes int) string {
	if p.node == nodes {
		return ""
	}
	b := []byte{positionVersion}
	b = binary.BigEndian.AppendUint64(b, p.layout)
	b = binary.AppendUvarint(b, uint64(p.node))
	b = binary.AppendUvarint(b, p.cursor)
	return string(append(b, p.run...))
}

func parsePosition(text string) (p position, err error) {
	if text == "" {
		return p, nil
	}
	b := []byte(text)
	if b[0] != positionVersion || len(b) < 9 {
		return p, kv.ErrCursor
	}
	p.layout, b = binary.BigEndian.Uint64(b[1:]), b[9:]
	index, n := binary.Uvarint(b)
	if n <= 0 || index >= slots {
		return p, kv.ErrCursor
	}
	p.node, b = int(index), b[n:]
	if p.cursor, n = binary.Uvarint(b); n <= 0 || len(b[n:]) > 2*runBytes {
		return p, kv.ErrCursor
	}
	p.run = string(b[n:])
	return p, nil
}

// in returns p for nodes. If the slots are divided in another way than when the
// pages began, keys may have moved to where the pages have been: they begin again.
func (p position) in(nodes []node) position {
	if now := layout(nodes); p.layout != now || p.node >= len(nodes) {
		return position{layout: now}
	}
	return p
}
