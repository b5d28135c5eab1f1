package valkeykv_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvrecipes/kv/valkeykv"
)

func TestEnvelope(t *testing.T) {
	for _, c := range []struct{ value, metadata, raw string }{
		{"", "", ""},
		{"v", "", "v"},
		{"v", `{"a":1}`, valkeykv.Magic + "00000007" + `{"a":1}` + "v"},
		{"", "1", valkeykv.Magic + "00000001" + "1"},
		{valkeykv.Magic, "", valkeykv.Magic + "00000000" + valkeykv.Magic},
		{valkeykv.Magic + "00000001" + "1", "", valkeykv.Magic + "00000000" + valkeykv.Magic + "00000001" + "1"},
		{strings.Repeat("x", 300), strings.Repeat("m", 300), valkeykv.Magic + "0000012c" + strings.Repeat("m", 300) + strings.Repeat("x", 300)},
	} {
		require.Equal(t, c.raw, valkeykv.Seal(c.value, c.metadata))
		value, metadata := valkeykv.Unseal(c.raw)
		require.Equal(t, [2]string{c.value, c.metadata}, [2]string{value, metadata})
	}
}

// What another program wrote is a plain value unless it is a complete envelope.
func TestForeignValuesArePlain(t *testing.T) {
	for _, raw := range []string{
		valkeykv.Magic, valkeykv.Magic + "0000000", valkeykv.Magic + "00000001", valkeykv.Magic + "0000000A0123456789",
		valkeykv.Magic + "+0000000", valkeykv.Magic + "ffffffff", valkeykv.Magic[:15] + "x00000000", "\x00kv1",
	} {
		value, metadata := valkeykv.Unseal(raw)
		require.Equal(t, [2]string{raw, ""}, [2]string{value, metadata}, "%q", raw)
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add("v", "{}")
	f.Add(valkeykv.Magic+"00000001x", "")
	f.Fuzz(func(t *testing.T, value, metadata string) {
		v, m := valkeykv.Unseal(valkeykv.Seal(value, metadata))
		require.Equal(t, [2]string{value, metadata}, [2]string{v, m})
		if v, m := valkeykv.Unseal(value); m == "" && !strings.HasPrefix(value, valkeykv.Magic) {
			require.Equal(t, value, v)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("\x01\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03run")
	f.Fuzz(func(t *testing.T, text string) {
		ok, same := valkeykv.ParsePosition(text)
		require.Equal(t, ok, same)
	})
}
