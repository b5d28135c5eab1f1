package valkeykv

import (
	"strconv"
	"strings"
)

// magic is what the stored form of a value with metadata begins with. Eleven of
// its bytes were drawn at random, so that nobody else's value begins with it by chance.
const magic = "\x00kv1\x00\xe3\x8d\x1f\xb6\x02\x94\xd9\x7c\xa5\x48\xf1"

const (
	sizeDigits = 8 // hexadecimal digits of the size of the metadata
	headerSize = len(magic) + sizeDigits
)

// seal returns the string that is stored for a value and its metadata: the plain
// value if there is no metadata, else magic, the size of the metadata as eight
// hexadecimal digits, the metadata, the value. A plain value that begins with
// magic could be taken for that and gets an envelope, too, with metadata of size 0.
func seal(value, metadata string) string {
	if metadata == "" && !strings.HasPrefix(value, magic) {
		return value
	}
	size := strconv.FormatInt(int64(len(metadata)), 16)
	var b strings.Builder
	b.Grow(headerSize + len(metadata) + len(value))
	b.WriteString(magic)
	b.WriteString("00000000"[len(size):])
	b.WriteString(size)
	b.WriteString(metadata)
	b.WriteString(value)
	return b.String()
}

// unseal is the reverse of seal. What is no complete envelope is a plain value, whoever wrote it.
func unseal(raw string) (value, metadata string) {
	if !strings.HasPrefix(raw, magic) || len(raw) < headerSize {
		return raw, ""
	}
	digits := raw[len(magic):headerSize]
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return raw, ""
	}
	size, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || size > uint64(len(raw)-headerSize) {
		return raw, ""
	}
	end := headerSize + int(size)
	return raw[end:], raw[headerSize:end]
}
