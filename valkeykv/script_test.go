package valkeykv_test

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/kvrecipes/kv"
	"github.com/kvrecipes/kv/valkeykv"
)

// luaClient is a client of a server that runs scripts.
func luaClient(t testing.TB) valkey.Client {
	s, err := standalone()
	require.NoError(t, err)
	return rawClient(t, valkey.ClientOption{InitAddress: []string{s.Addr}})
}

func eval(t testing.TB, c valkey.Client, script string, args ...string) []string {
	t.Helper()
	out, err := c.Do(context.Background(), c.B().Eval().Script(script).Numkeys(0).Arg(args...).Build()).AsStrSlice()
	require.NoError(t, err)
	return out
}

// The scripts read and write the stored form as the Go code does.
func TestScriptsKnowEnvelopes(t *testing.T) {
	c := luaClient(t)
	script := valkeykv.Script(`
local value, meta = open(ARGV[1])
return {value, meta or '-', seal(ARGV[1], ARGV[2])}`, "prelude")
	raws := []string{
		"", "v", valkeykv.Magic, valkeykv.Magic + "00000000", valkeykv.Magic + "00000002{}v", valkeykv.Magic + "00000003{}",
		valkeykv.Magic + "0000000A0123456789", valkeykv.Magic + "-0000001x", valkeykv.Magic + "0x000001x", valkeykv.Magic + "00 00001x",
		valkeykv.Magic + "\x000000001x", valkeykv.Magic[:15] + "x00000000", "\x00\x01\x02\xff",
	}
	for _, raw := range raws {
		for _, meta := range []string{"", `{"a":"b"}`} {
			value, metadata := valkeykv.Unseal(raw)
			got := eval(t, c, script, raw, meta)
			require.Equalf(t, value, got[0], "value of %q", raw)
			require.Equalf(t, metadata, strings.TrimPrefix(got[1], "-"), "metadata of %q", raw)
			require.Equalf(t, valkeykv.Seal(raw, meta), got[2], "%q with %q", raw, meta)
		}
	}
}

// Sums of int64 in scripts are exact, though the numbers of Lua are doubles.
func TestScriptsAddExactly(t *testing.T) {
	c := luaClient(t)
	script := valkeykv.Script(`
local out = {}
for i = 1, #ARGV, 2 do
  local sum, wrong = add(ARGV[i], ARGV[i + 1])
  out[#out + 1] = sum or wrong
end
return out`, "prelude")
	edges := []int64{0, 1, -1, 999999999, 1000000000, 1000000001, -999999999, -1000000000, 1 << 53, 1<<53 + 1, -1<<53 - 1,
		math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1, 9223372036000000000, -9223372036000000000, 854775807}
	var args, want []string
	pair := func(a, b int64) {
		args = append(args, strconv.FormatInt(a, 10), strconv.FormatInt(b, 10))
		sum := new(big.Int).Add(big.NewInt(a), big.NewInt(b))
		if sum.IsInt64() {
			want = append(want, sum.String())
		} else {
			want = append(want, "KVOVERFLOW")
		}
	}
	for _, a := range edges {
		for _, b := range edges {
			pair(a, b)
		}
	}
	for range 1000 {
		pair(int64(rand.Uint64()), int64(rand.Uint64()>>rand.IntN(64)))
	}
	for _, bad := range []string{"", "-", "+1", "01", "-0", "00", "1.0", " 1", "1 ", "1e3", "0x1", "9223372036854775808",
		"-9223372036854775809", "99999999999999999999", "10000000000000000000", "1\x00", "nan", "inf"} {
		args, want = append(args, bad, "1"), append(want, "KVNOTINTEGER")
	}
	got := eval(t, c, script, args...)
	for i := range want {
		require.Equalf(t, want[i], got[i], "%s + %s", args[2*i], args[2*i+1])
	}
}

const takeLines = `
local out = {}
for i = 1, #ARGV, 7 do
  local next, ttl, u = take(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 6]), ARGV[i + 4], tonumber(ARGV[i + 5]))
  if next then
    out[#out + 1] = string.format('%s\t%.0f\t%d\t%.0f\t%.0f\t%.0f', next, ttl, u[1], u[2], u[3], u[4])
  else
    out[#out + 1] = 'wrong type'
  end
end
return out`

// The script computes what kv.Quota.Take computes, from the same text.
func TestScriptTakesAsQuotaDoes(t *testing.T) {
	c := luaClient(t)
	file, err := os.Open("../testdata/quota_vectors.txt")
	require.NoError(t, err)
	defer file.Close()
	var args, want []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if call, result, ok := strings.Cut(lines.Text(), "\t->\t"); ok && !strings.HasPrefix(call, "#") {
			args, want = append(args, strings.Split(call, "\t")...), append(want, result)
		}
	}
	require.NotEmpty(t, want)
	compareTakes(t, c, args, want)
}

// So it does for whatever comes, at the bounds and with states of any kind.
func TestScriptTakesAsQuotaDoesAtRandom(t *testing.T) {
	c := luaClient(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	letters := map[kv.Refill]string{kv.RefillWindow: "w", kv.RefillSliding: "s", kv.RefillSteady: "g"}
	upTo := func(bits int) int64 { return 1 + r.Int64N(int64(1)<<(1+r.IntN(bits))) }
	var args, want []string
	for len(want) < 3000 {
		q := kv.Quota{Refill: kv.Refill(r.IntN(3)), Capacity: upTo(50), Amount: upTo(50), Period: time.Duration(upTo(50)) * time.Microsecond}
		now, old := int64(1)<<50+upTo(40), ""
		for range 20 { // a life of one state
			n := r.Int64N(q.Capacity+1) >> r.IntN(20)
			if r.IntN(4) == 0 {
				n = -n
			}
			next, ttl, u, err := q.Take(old, now, n)
			if err == kv.ErrInvalidLimit {
				break
			}
			args = append(args, letters[q.Refill], fmt.Sprint(q.Capacity), fmt.Sprint(q.Amount), fmt.Sprint(q.Period.Microseconds()), old, fmt.Sprint(now), fmt.Sprint(n))
			want = append(want, takeLine(next, ttl, u, err))
			if ttl > 0 || next == "" {
				old = next
			}
			switch r.IntN(6) {
			case 0: // another quota on the same state
				q.Capacity, q.Amount = upTo(50), upTo(50)
			case 1: // a clock that goes back
				now -= upTo(50) % (1 << 49)
			case 2: // garbage
				old = []string{"w1", "s1 2", "g1 2 3", "x", "w1 2 ", "w-1 2", "w9007199254740992 1", "w9007199254740993 1", "g1 2251799813685248", "w007 01", " "}[r.IntN(11)]
			default:
				now += upTo(1+r.IntN(50)) % (1 << 49)
			}
			now = max(now, 0)
		}
	}
	compareTakes(t, c, args, want)
}

func takeLine(next string, ttl time.Duration, u kv.Usage, err error) string {
	if err != nil {
		return "wrong type"
	}
	ok := 0
	if u.OK {
		ok = 1
	}
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d", next, ttl.Microseconds(), ok, u.Used, u.RetryAfter.Microseconds(), u.ResetAfter.Microseconds())
}

func compareTakes(t *testing.T, c valkey.Client, args, want []string) {
	t.Helper()
	const chunk = 500
	script := valkeykv.Script(takeLines, "quota")
	for at := 0; at < len(want); at += chunk {
		end := min(at+chunk, len(want))
		got := eval(t, c, script, args[7*at:7*end]...)
		for i := range got {
			require.Equalf(t, want[at+i], got[i], "take %q", args[7*(at+i):7*(at+i+1)])
		}
	}
}
