package valkeykv

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valkey-io/valkey-go"
)

// node is a server that holds a part of the keys: the only one, or a master of a cluster.
type node struct {
	client valkey.Client // sends to this node alone
	id     string        // of the cluster; "" without one
	epoch  uint64        // of its configuration: of two nodes that claim a slot the higher one is right
	slots  []slotRange   // in order; nil without a cluster
	moving bool          // keys of a slot are on their way from or to another node
}

type slotRange struct{ first, last int }

// nodeTimeout bounds how long a node of a cluster is waited for that does not say what it holds.
const nodeTimeout = 2 * time.Second

// patience is how long it may take until all slots have a node. A client that
// has come upon a node it did not know draws its map anew within a second.
const (
	patience  = 3 * time.Second
	lookAgain = 50 * time.Millisecond
)

// nodes returns the nodes that together hold all keys, in the order of their slots.
func (e *engine) nodes(ctx context.Context) ([]node, error) {
	if !e.cluster {
		return []node{{client: e.client}}, nil
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		found, err := e.askNodes(ctx)
		gap := uncovered(found)
		if gap < 0 {
			return found, nil
		}
		// The answer to a command on a slot tells the client who holds it.
		probe := e.do(ctx, e.client.B().Exists().Key(keyOfSlot(gap, e.slot)).Build())
		if errors.Is(probe.Error(), valkey.ErrClosing) {
			return nil, readFault(probe.Error())
		}
		err = errors.Join(err, probe.Error())
		select {
		case <-time.After(lookAgain):
		case <-late.C:
			return nil, readFault(cmp.Or(err, error(valkey.ErrNoSlot)))
		case <-ctx.Done():
			return nil, readFault(errors.Join(ctx.Err(), err))
		}
	}
}

// askNodes asks every node that the client knows which slots it holds, until all are covered.
func (e *engine) askNodes(ctx context.Context) (found []node, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	type answer struct {
		node node
		err  error
	}
	clients := e.client.Nodes()
	answers := make(chan answer, len(clients))
	for _, client := range clients {
		ask := func() {
			n, err := e.askNode(ctx, client)
			answers <- answer{n, err}
		}
		if !e.calls.start(ask) {
			return nil, valkey.ErrClosing
		}
	}
	for range clients {
		a := <-answers
		if a.err != nil {
			err = errors.Join(err, a.err)
			continue
		}
		found = add(found, a.node)
		if uncovered(found) < 0 {
			return found, nil
		}
	}
	return found, err
}

// add adds n to nodes if it holds slots, and keeps their order. A node that the
// client knows by two addresses counts once, and a slot belongs to the highest epoch.
func add(nodes []node, n node) []node {
	known := func(o node) bool { return o.id == n.id }
	if len(n.slots) == 0 || slices.ContainsFunc(nodes, known) {
		return nodes
	}
	for i, o := range nodes {
		if overlap(o.slots, n.slots) && o.epoch > n.epoch {
			return nodes
		} else if overlap(o.slots, n.slots) {
			nodes = slices.Delete(nodes, i, i+1)
			break
		}
	}
	nodes = append(nodes, n)
	slices.SortFunc(nodes, func(a, b node) int { return cmp.Compare(a.slots[0].first, b.slots[0].first) })
	return nodes
}

func overlap(a, b []slotRange) bool {
	for _, x := range a {
		for _, y := range b {
			if x.first <= y.last && y.first <= x.last {
				return true
			}
		}
	}
	return false
}

// askNode asks a node of a cluster what it is.
func (e *engine) askNode(ctx context.Context, client valkey.Client) (node, error) {
	text, err := e.doOn(ctx, client, client.B().ClusterNodes().Build()).ToString()
	if err != nil {
		return node{}, err
	}
	n := parseSelf(strings.TrimPrefix(text, "txt:")) // the client leaves the type of a verbatim string in front of it
	n.client = client
	return n, nil
}

// parseSelf reads the line of CLUSTER NODES on which a node describes itself:
//
//	id address flags master ping pong epoch link slot slot ...
//
// where a slot is "5", "5-9", or in brackets if it is on its way from or to another node. A replica has no slots.
func parseSelf(text string) (n node) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.Contains(fields[2], "myself") {
			continue
		}
		n.id = fields[0]
		n.epoch, _ = strconv.ParseUint(fields[6], 10, 64)
		if !strings.Contains(fields[2], "master") {
			continue
		}
		for _, field := range fields[8:] {
			if r, ok := parseSlots(field); ok {
				n.slots = append(n.slots, r)
			} else {
				n.moving = true
			}
		}
	}
	return n
}

func parseSlots(field string) (r slotRange, ok bool) {
	from, to, isRange := strings.Cut(field, "-")
	first, err := strconv.Atoi(from)
	if err != nil {
		return r, false
	}
	last := first
	if isRange {
		if last, err = strconv.Atoi(to); err != nil {
			return r, false
		}
	}
	return slotRange{first, last}, 0 <= first && first <= last && last < slots
}

// uncovered returns a slot that none of nodes holds, -1 if there is none.
func uncovered(nodes []node) int {
	var held []slotRange
	for _, n := range nodes {
		held = append(held, n.slots...)
	}
	slices.SortFunc(held, func(a, b slotRange) int { return cmp.Compare(a.first, b.first) })
	next := 0
	for _, r := range held {
		if r.first > next {
			break
		}
		next = max(next, r.last+1)
	}
	if next >= slots {
		return -1
	}
	return next
}

// keyOfSlot returns a key of a slot.
func keyOfSlot(slot int, slotOf func(string) uint16) string {
	for i := 0; ; i++ {
		if key := strconv.Itoa(i); int(slotOf(key)) == slot {
			return key
		}
	}
}

// layout returns a number for how the slots are divided among nodes, whichever nodes these are.
func layout(nodes []node) uint64 {
	h := fnv.New64a()
	for _, n := range nodes {
		for _, r := range n.slots {
			h.Write([]byte(strconv.Itoa(r.first) + "-" + strconv.Itoa(r.last) + " "))
		}
		h.Write([]byte{'\n'})
	}
	return h.Sum64()
}
