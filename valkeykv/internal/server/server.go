package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is a process of a private server.
type Server struct {
	Addr string // host:port

	args    []string
	busPort string // on which the nodes of a cluster talk
	dir     string

	mu   sync.Mutex
	cmd  *exec.Cmd     // guarded by mu; nil while it is down
	gone chan struct{} // guarded by mu; closed when the process has ended
}

// startTimeout bounds how long a server may take to serve.
const startTimeout = 20 * time.Second

// Start starts a server without persistence that listens on a free loopback
// port, with more arguments as on its command line ("--maxmemory", "10mb").
func Start(args ...string) (*Server, error) {
	var err error
	for range 5 { // somebody else may take the port before the server does
		var s *Server
		if s, err = prepare(args); err != nil {
			return nil, err
		}
		if err = s.Restart(); err == nil {
			return s, nil
		}
		os.RemoveAll(s.dir)
	}
	return nil, err
}

func prepare(args []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "valkeykv")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	port, busPort := strconv.Itoa(ports[0]), strconv.Itoa(ports[1])
	return &Server{
		Addr:    net.JoinHostPort("127.0.0.1", port),
		busPort: busPort,
		dir:     dir,
		args: append([]string{
			"--port", port, "--cluster-port", busPort, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no",
		}, args...),
	}, nil
}

// port returns the port of the server.
func (s *Server) port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// freePorts returns n different ports that nobody listens on.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Restart starts the server again, on the same port, with the data that was
// saved by the command SAVE, if any. It returns when the server serves.
func (s *Server) Restart() error { return s.startUntil("Ready to accept connections") }

// RestartLoading starts the server again and returns while it is still loading its data.
func (s *Server) RestartLoading() error { return s.startUntil("Loading RDB") }

// startUntil starts the process and returns when its log has a line with words.
func (s *Server) startUntil(words string) error {
	path, err := Find()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return errors.New("the server is running")
	}
	cmd := exec.Command(path, s.args...)
	cmd.SysProcAttr = withParent()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		ready <- awaitLine(out, words)
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}()
	s.cmd, s.gone = cmd, gone
	select {
	case err = <-ready:
	case <-time.After(startTimeout):
		err = errors.New("the server did not serve in time")
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-gone
		s.cmd = nil
		return fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	return nil
}

// awaitLine reads a log until it has a line with words.
func awaitLine(log io.Reader, words string) error {
	var last string
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		last = lines.Text()
		if strings.Contains(last, words) {
			return nil
		}
	}
	return fmt.Errorf("it ended: %s", last)
}

// Kill ends the process at once, as a crash does. It returns when it has ended.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	<-s.gone
	s.cmd = nil
	return nil
}

// Stop ends the process and removes its files.
func (s *Server) Stop() error {
	return errors.Join(s.Kill(), os.RemoveAll(s.dir))
}
