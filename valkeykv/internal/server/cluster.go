package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"
)

// Cluster is a private cluster.
type Cluster struct {
	Nodes []*Server // as they were started: the masters first

	clients []valkey.Client // of Nodes
}

const (
	clusterSlots   = 16384
	clusterTimeout = 30 * time.Second
	lookAgain      = 20 * time.Millisecond // a cluster tells nobody that it has agreed: it has to be asked
)

// StartCluster starts a cluster of so many masters, each with so many replicas.
func StartCluster(masters, replicas int) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clusterTimeout)
	defer cancel()
	c := &Cluster{Nodes: make([]*Server, masters*(1+replicas)), clients: make([]valkey.Client, masters*(1+replicas))}
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i := range c.Nodes {
		all.Go(func() { errs[i] = c.start(i) })
	}
	all.Wait()
	err := errors.Join(errs...)
	if err == nil {
		err = c.join(ctx, masters)
	}
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(i int) (err error) {
	c.Nodes[i], err = Start("--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
		"--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
	if err != nil {
		return err
	}
	c.clients[i], err = valkey.NewClient(valkey.ClientOption{
		InitAddress: []string{c.Nodes[i].Addr}, ForceSingleClient: true, DisableCache: true,
	})
	return err
}

// join makes the nodes one cluster.
func (c *Cluster) join(ctx context.Context, masters int) error {
	for i := range masters {
		first, next := i*clusterSlots/masters, (i+1)*clusterSlots/masters
		if _, err := c.command(ctx, i, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(next-1)); err != nil {
			return err
		}
	}
	for i := range c.Nodes {
		if _, err := c.command(ctx, i, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	host, port, _ := net.SplitHostPort(c.Nodes[0].Addr)
	for i := 1; i < len(c.Nodes); i++ {
		if _, err := c.command(ctx, i, "CLUSTER", "MEET", host, port, c.Nodes[0].busPort); err != nil {
			return err
		}
	}
	if err := c.replicate(ctx, masters); err != nil {
		return err
	}
	return c.Settled(ctx)
}

// replicate makes the nodes behind the first of them replicas of these, in turn.
func (c *Cluster) replicate(ctx context.Context, masters int) error {
	for i := masters; i < len(c.Nodes); i++ {
		id, err := c.command(ctx, i%masters, "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		err = c.until(ctx, func() error { // it has to have heard of its master
			_, err := c.command(ctx, i, "CLUSTER", "REPLICATE", id)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Settled returns when all nodes agree who holds what, and every replica is connected to its master.
func (c *Cluster) Settled(ctx context.Context) error {
	return c.until(ctx, func() error {
		var agreed string
		for i, n := range c.Nodes {
			view, err := c.view(ctx, i)
			if err != nil {
				return fmt.Errorf("%s: %w", n.Addr, err)
			}
			if i > 0 && view != agreed {
				return errors.New("the nodes do not agree")
			}
			agreed = view
		}
		return nil
	})
}

// view returns what node i takes the cluster for: id, role, master and slots of each node.
func (c *Cluster) view(ctx context.Context, i int) (string, error) {
	info, err := c.command(ctx, i, "CLUSTER", "INFO")
	if err != nil {
		return "", err
	}
	if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", len(c.Nodes))) {
		return "", errors.New("the cluster has not come together")
	}
	replication, err := c.command(ctx, i, "INFO", "replication")
	if err != nil {
		return "", err
	}
	if strings.Contains(replication, "master_link_status:down") {
		return "", errors.New("a replica is not connected")
	}
	text, err := c.command(ctx, i, "CLUSTER", "NODES")
	if err != nil {
		return "", err
	}
	var lines []string
	for line := range strings.Lines(strings.TrimPrefix(text, "txt:")) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		role := strings.TrimPrefix(f[2], "myself,")
		if role != "master" && role != "slave" {
			return "", fmt.Errorf("node %s is %s", f[1], role)
		}
		lines = append(lines, strings.Join(append([]string{f[0], role, f[3]}, f[8:]...), " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// until calls f until it succeeds.
func (c *Cluster) until(ctx context.Context, f func() error) error {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// IsMaster says whether node i is a master.
func (c *Cluster) IsMaster(ctx context.Context, i int) (bool, error) {
	info, err := c.command(ctx, i, "INFO", "replication")
	return strings.Contains(info, "role:master"), err
}

// Failover makes a replica the master of its slots, and returns when the
// cluster has settled. With force it does not wait for what its master has not sent yet.
func (c *Cluster) Failover(ctx context.Context, replica int, force bool) error {
	args := []string{"CLUSTER", "FAILOVER"}
	if force {
		args = append(args, "FORCE")
	}
	if _, err := c.command(ctx, replica, args...); err != nil {
		return err
	}
	err := c.until(ctx, func() error {
		if is, err := c.IsMaster(ctx, replica); err != nil || !is {
			return errors.Join(errors.New("not a master yet"), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.Settled(ctx)
}

// MoveSlot moves the keys of a slot, and the slot, to another master, as a resharding does.
func (c *Cluster) MoveSlot(ctx context.Context, slot int) error {
	var masters []int
	from := -1
	for i := range c.Nodes {
		if is, err := c.IsMaster(ctx, i); err != nil {
			return err
		} else if !is {
			continue
		}
		text, err := c.command(ctx, i, "CLUSTER", "NODES")
		if err != nil {
			return err
		}
		if holds(text, slot) {
			from = i
		} else {
			masters = append(masters, i)
		}
	}
	if from < 0 || len(masters) == 0 {
		return fmt.Errorf("nobody holds slot %d, or nobody else could", slot)
	}
	return c.moveSlot(ctx, strconv.Itoa(slot), from, masters[0])
}

func (c *Cluster) moveSlot(ctx context.Context, slot string, from, to int) error {
	fromID, err := c.command(ctx, from, "CLUSTER", "MYID")
	if err != nil {
		return err
	}
	toID, err := c.command(ctx, to, "CLUSTER", "MYID")
	if err != nil {
		return err
	}
	if _, err := c.command(ctx, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID); err != nil {
		return err
	}
	if _, err := c.command(ctx, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID); err != nil {
		return err
	}
	client := c.clients[from]
	keys, err := client.Do(ctx, client.B().Arbitrary("CLUSTER", "GETKEYSINSLOT", slot, "1000000").Build()).AsStrSlice()
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		host, port, _ := net.SplitHostPort(c.Nodes[to].Addr)
		if _, err := c.command(ctx, from, append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, keys...)...); err != nil {
			return err
		}
	}
	for _, i := range []int{to, from} {
		if _, err := c.command(ctx, i, "CLUSTER", "SETSLOT", slot, "NODE", toID); err != nil {
			return err
		}
	}
	return c.Settled(ctx)
}

// holds says whether the node that wrote text, the answer to CLUSTER NODES, holds slot.
func holds(text string, slot int) bool {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.Contains(fields[2], "myself") {
			continue
		}
		for _, field := range fields[8:] {
			first, last, isRange := strings.Cut(field, "-")
			a, err := strconv.Atoi(first)
			b, err2 := strconv.Atoi(last)
			if err == nil && (a == slot || isRange && err2 == nil && a <= slot && slot <= b) {
				return true
			}
		}
	}
	return false
}

// command sends a command to node i, and returns what it answers as text.
func (c *Cluster) command(ctx context.Context, i int, args ...string) (string, error) {
	answer, err := c.clients[i].Do(ctx, c.clients[i].B().Arbitrary(args...).Build()).ToString()
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(args[:min(len(args), 2)], " "), err)
	}
	return answer, err
}

// Addrs returns the addresses of the nodes.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs
}

// Stop ends all nodes and removes their files.
func (c *Cluster) Stop() (err error) {
	for _, client := range c.clients {
		if client != nil {
			client.Close()
		}
	}
	for _, n := range c.Nodes {
		if n != nil {
			err = errors.Join(err, n.Stop())
		}
	}
	return err
}
