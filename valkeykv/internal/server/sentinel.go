package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// StartSentinel starts a sentinel that watches over the master with this address
// under the name "main", and gives its place to a replica when it has been silent for half a second.
func StartSentinel(master *Server) (*Server, error) {
	s, err := prepare(nil)
	if err != nil {
		return nil, err
	}
	host, port, config := "127.0.0.1", master.port(), filepath.Join(s.dir, "sentinel.conf")
	text := fmt.Sprintf(`port %s
bind 127.0.0.1
dir %s
sentinel monitor main %s %s 1
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 2000
`, s.port(), s.dir, host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	s.args = []string{config, "--sentinel"}
	if err := s.startUntil("Sentinel ID"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}
