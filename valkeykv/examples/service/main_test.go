package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The processes are real ones, so the program is built and run.
func TestService(t *testing.T) {
	program := filepath.Join(t.TempDir(), "service")
	out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.Command(program, "-processes", "3").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, 6, bytes.Count(out, []byte("ok  ")), string(out))
}
