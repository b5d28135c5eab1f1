package valkeykv_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a client and a real server, counts the round trips and can cut the line.
type proxy struct {
	addr string
	l    net.Listener
	to   string

	trips atomic.Int64 // how often clients sent something after they had been answered
	cut   atomic.Bool  // end the connection on which the server answers next, instead of passing the answer on
	all   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func startProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{addr: l.Addr().String(), l: l, to: to}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.closeAll()
		p.all.Wait()
	})
	return p
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		var answered atomic.Bool
		answered.Store(true)
		p.all.Go(func() {
			defer server.Close()
			p.copy(server, client, func() bool {
				if answered.Swap(false) {
					p.trips.Add(1)
				}
				return true
			})
		})
		p.all.Go(func() {
			defer client.Close()
			p.copy(client, server, func() bool {
				answered.Store(true)
				return !p.cut.CompareAndSwap(true, false)
			})
		})
	}
}

// copy passes on what comes while pass says so.
func (p *proxy) copy(to io.Writer, from io.Reader, pass func() bool) {
	buf := make([]byte, 1<<20)
	for {
		n, err := from.Read(buf)
		if err != nil || !pass() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
