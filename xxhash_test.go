package kv

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Vectors of https://github.com/cespare/xxhash v2.3.0.
func TestXXH64(t *testing.T) {
	vectors := []struct {
		s    string
		seed uint64
		want uint64
	}{
		{"", 0, 0xef46db3751d8e999},
		{"", 0x9e3779b97f4a7c15, 0xc4349fc93c010000},
		{"a", 0, 0xd24ec4f1a98c6e5b},
		{"abc", 0, 0x44bc2cf5ad770999},
		{"xxhash", 0, 0x32dd38952c4bc720},
		{"xxhash", 20141025, 0xb559b98d844e0635},
		{"Nobody inspects the spammish repetition", 0, 0xfbcea83c8a378bf1},
	}
	for _, v := range vectors {
		require.Equal(t, v.want, xxh64(v.s, v.seed), "%q, seed %d", v.s, v.seed)
	}
}
