package kv

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func randomBytes(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomResponse returns one with any bytes, and with nil and empty in all places.
func randomResponse(r *rand.Rand) Response {
	resp := Response{Status: int(r.Int64() >> r.IntN(64))}
	if r.IntN(4) > 0 {
		resp.Body = randomBytes(r, 1<<r.IntN(10))
	}
	if r.IntN(4) == 0 {
		return resp
	}
	resp.Header = map[string][]string{}
	for range r.IntN(5) {
		var values []string
		for range r.IntN(4) {
			values = append(values, string(randomBytes(r, 20)))
		}
		if values == nil && r.IntN(2) == 0 {
			values = []string{}
		}
		resp.Header[string(randomBytes(r, 10))] = values
	}
	return resp
}

func TestResponseSurvivesByteForByte(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		want := randomResponse(r)
		got, parts, ok := decodeResponse(encodeResponse(want, partHeader|partBody))
		require.True(t, ok)
		require.Zero(t, parts&(partTooLarge|partUnreadable))
		require.Equal(t, want, got) // which tells nil from empty
	}
}

func TestEqualHeadersAreEqualBytes(t *testing.T) {
	h := map[string][]string{}
	for _, name := range []string{"E", "B", "D", "A", "C"} {
		h[name] = []string{"2", "1"}
	}
	want := encodeResponse(Response{Header: h}, partHeader)
	for range 20 { // the order of a map is random
		require.Equal(t, want, encodeResponse(Response{Header: h}, partHeader))
	}
}

func TestReceiptSurvives(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		kind := []byte{receiptPending, receiptResult, receiptEvent}[r.IntN(3)]
		want := receipt{kind: kind, fingerprint: string(randomBytes(r, 300)), rest: string(randomBytes(r, 300))}
		want.raw = want.encode()
		got, ok := parseReceipt(want.raw)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
}

// Whatever else keeps values under our keys, or a bug elsewhere: it is told from ours, and no input panics.
func FuzzReceipt(f *testing.F) {
	f.Add("")
	f.Add("kvi1")
	f.Add("kvi1P")
	f.Add("kvi1R\x00\x01\x00\x01\x01a\x02\x01b")
	f.Add("kvi1E\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
	f.Add(receipt{kind: receiptPending, fingerprint: "fp", rest: newToken()}.encode())
	full := Response{Status: 201, Header: map[string][]string{"A": {"1", "2"}, "B": nil, "C": {}}, Body: []byte("body")}
	f.Add(receipt{kind: receiptResult, rest: encodeResponse(full, partHeader|partBody)}.encode())
	f.Fuzz(func(t *testing.T, raw string) {
		r, ok := parseReceipt(raw)
		if !ok {
			return
		}
		require.Equal(t, raw, r.encode())
		resp, parts, ok := decodeResponse(r.rest)
		if !ok {
			return
		}
		again, _, ok := decodeResponse(encodeResponse(resp, parts))
		require.True(t, ok)
		require.Equal(t, resp, again)
	})
}

// A few bytes must not make us allocate much, whatever lengths they claim.
func TestDecodingAllocatesInProportion(t *testing.T) {
	long := "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
	var before, after runtime.MemStats
	for _, s := range []string{"\x01\x00" + long, "\x01\x00\x01" + long, "\x01\x00\x01\x01a" + long, "\x01\x00\x01\x01a\x81\x80\x80\x80\x08"} {
		runtime.ReadMemStats(&before)
		_, _, ok := decodeResponse(s)
		runtime.ReadMemStats(&after)
		require.False(t, ok)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<10))
	}
}
