// Package server starts private Valkey or Redis servers on loopback, for tests and examples.
package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
)

// Find returns the path of a server: valkey-server if it is on the PATH, else
// redis-server. On a Debian-like system it installs the package redis-server if
// there is neither and it may.
var Find = sync.OnceValues(find)

func find() (string, error) {
	for _, name := range []string{"valkey-server", "redis-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	if err := install(); err != nil {
		return "", fmt.Errorf("no valkey-server and no redis-server on the PATH, and none could be installed (%w). "+
			"Install Valkey or Redis 7.0 or newer: apt-get install redis-server, dnf install valkey, brew install valkey", err)
	}
	return exec.LookPath("redis-server")
}

// install installs redis-server with apt-get. Tests of several packages may do
// so at the same time, so they take turns.
func install() error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("no apt-get")
	}
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	const script = `exec 9>"${TMPDIR:-/tmp}/valkeykv-apt.lock"; flock 9
command -v redis-server && exit 0
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends redis-server ||
{ apt-get update && apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends redis-server; }`
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return fmt.Errorf("apt-get: %w: %s", err, lines[len(lines)-1])
	}
	return nil
}
