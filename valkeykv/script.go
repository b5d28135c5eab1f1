package valkeykv

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/valkey-io/valkey-go"
)

//go:embed lua
var luaFiles embed.FS

// script is a Lua script that runs as one atomic step on the server.
type script struct {
	body, sha string
	readOnly  bool // it may be repeated after a network error
}

var (
	casScript     = newScript("prelude", "cas")
	cadScript     = newScript("prelude", "cad")
	incrScript    = newScript("prelude", "incr")
	persistScript = newScript("persist")
	putScript     = newScript("put")
	takeScript    = newScript("prelude", "quota", "take")
	txnScript     = newScript("prelude", "txn")
	entryScript   = newReadOnly("entry")
	entriesScript = newReadOnly("entries")
)

// newScript returns the script that the named files make up.
func newScript(names ...string) *script {
	var body string
	for _, name := range names {
		body += mustRead(name)
	}
	body = strings.Replace(body, "{{MAGIC}}", luaEscape(magic), 1)
	sum := sha1.Sum([]byte(body)) // the server's name for it; no secret
	return &script{body: body, sha: hex.EncodeToString(sum[:])}
}

func newReadOnly(names ...string) *script {
	s := newScript(names...)
	s.readOnly = true
	return s
}

// mustRead returns the text of a file without its comments, which the server has no use for.
func mustRead(name string) string {
	text, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// luaEscape returns text as it stands between the quotes of a Lua string.
func luaEscape(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, "\\%03d", c)
	}
	return b.String()
}

// bySHA returns the command that runs s if the server knows it already.
func (s *script) bySHA(c valkey.Client, keys, args []string) valkey.Completed {
	if s.readOnly {
		return c.B().EvalshaRo().Sha1(s.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return c.B().Evalsha().Sha1(s.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// whole returns the command that brings s along. The server knows it from then on.
func (s *script) whole(c valkey.Client, keys, args []string) valkey.Completed {
	if s.readOnly {
		return c.B().EvalRo().Script(s.body).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return c.B().Eval().Script(s.body).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// run runs s. A server that does not know it has done nothing, so it is then sent whole.
func (e *engine) run(ctx context.Context, s *script, keys []string, args ...string) valkey.ValkeyResult {
	r := e.do(ctx, s.bySHA(e.client, keys, args))
	if isNoScript(r.Error()) {
		r = e.do(ctx, s.whole(e.client, keys, args))
	}
	return r
}

func isNoScript(err error) bool {
	e, ok := valkey.IsValkeyErr(err)
	return ok && e.IsNoScript()
}
