package kv

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEventOfAnEntryThatIsGone(t *testing.T) {
	put := func(expires time.Time) *Event {
		return &Event{Type: EventPut, Entry: Entry{Key: "k", ExpiresAt: expires}}
	}
	require.True(t, put(time.Time{}).live())
	require.True(t, put(time.Now()).live())
	require.False(t, put(time.Unix(0, 0)).live())
	require.False(t, (&Event{Type: EventDelete}).live())
	require.False(t, (&Event{Type: EventExpire}).live())
}
