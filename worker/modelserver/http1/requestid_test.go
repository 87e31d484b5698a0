package http1

import (
	"strconv"
	"strings"
	"testing"
)

// Only the latest requests are remembered; an older one counts as another.
func TestDigestRing(t *testing.T) {
	t.Parallel()

	var d digestRing
	last := uint64(len(d.ring)) + 5
	for id := uint64(1); id <= last; id++ {
		d.add(RequestID{id, id + 100})
	}

	for _, tt := range []struct {
		id, digest uint64
		want       bool
	}{
		{last, last + 100, true},
		{6, 106, true},
		{5, 105, false},
		{last, 105, false},
		{last + 1, 106, false},
	} {
		if got := d.contains(RequestID{tt.id, tt.digest}); got != tt.want {
			t.Errorf("request %d with digest %d: %t", tt.id, tt.digest, got)
		}
	}
}

// An id in a body ends where its digits end, also behind the part that is searched.
func TestIDInBody(t *testing.T) {
	t.Parallel()

	const id = 123456789
	own := string(strconv.AppendUint([]byte(requestIDPrefix), id, 36))
	for _, tt := range []struct {
		body  string
		other bool
	}{
		{own, false},
		{own + `"`, false},
		{own + "-0", false},
		{own + "0", true},
		{own[:len(own)-1], true},
		{requestIDPrefix, true},
		{requestIDPrefix + "zzzzzzzzzzzzzzzzzz", true},
		{strings.Repeat(" ", 256-len(requestIDPrefix)) + own + `"`, false},
	} {
		if got := (RequestID{id, 1}).IsOther(nil, []byte(tt.body)); got != tt.other {
			t.Errorf("%q is of another request: %t", tt.body, got)
		}
	}
}
