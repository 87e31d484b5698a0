package producer

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

func TestRunSendsBigRequestsByObject(t *testing.T) {
	t.Parallel()

	raw := make([]byte, 18<<20) // does not pack into the 16 MB of a message
	rand.NewChaCha8([32]byte{}).Read(raw)
	noise := []byte(base64.StdEncoding.EncodeToString(raw))
	b := newBench(t, `{"model":"m","prompt":"`+string(noise)+`"}`+"\n"+good("small", "m"), settings, 64<<20)
	b.publish(t)

	shards := b.take(t, 1, false)
	if len(shards) != 2 || !bytes.Contains(shards[0].Requests[0].Body, noise) {
		t.Fatalf("%d shards; the big request is not the same", len(shards))
	}

	if state := b.state(t); state.Bytes > 1<<20 {
		t.Errorf("the stream has %d bytes", state.Bytes)
	}
}

func TestRunPublishesMissing(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(1000), settings, 64<<20)
	b.publish(t)
	want := []uint32{0, 3, 500, 501, 999}
	base := b.nextRound(t, want...)
	b.publish(t)

	got := roaring.New()
	for i, s := range b.take(t, base+1, false) {
		if s.ID != proto.ShardID(1, uint64(i)) {
			t.Errorf("shard %d of round 1 is %s", i, s.ID)
		}

		for _, r := range s.Requests {
			if !got.CheckedAdd(r.Index) {
				t.Errorf("request %d is published twice", r.Index)
			}
		}
	}

	if !got.Equals(roaring.BitmapOf(want...)) {
		t.Errorf("published %v, want %v", got, want)
	}
}

func TestRunInvalidLines(t *testing.T) {
	t.Parallel()

	text := good("a", "m") + "broken\n" + good("a", "m") + good("b", "m")
	skipping := settings
	skipping.SkipInvalid = true
	b := newBench(t, text, skipping, 64<<20)
	b.publish(t)

	var got []string
	for _, s := range b.take(t, 1, false) {
		for _, r := range s.Requests {
			got = append(got, fmt.Sprintf("%d %s %.28s", r.Index, r.CustomID, r.Refused))
		}
	}

	want := []string{`0 "a" `, `1 "request-2" the line is not JSON: at byt`, `2 "a" the line has the custom_id o`, `3 "b" `}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}

	// Without the setting such lines can only be a change since validation.
	strict := newBench(t, text, settings, 64<<20)
	err := mustNew(t, Config{JS: strict.js, Run: "r"}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "in:2: the line is not JSON") {
		t.Errorf("error %v", err)
	}
}

// Run promises the cause of its context's end, also where it waits for a round.
func TestRunReturnsCause(t *testing.T) {
	t.Parallel()

	b := newBench(t, lines(1), settings, 64<<20)
	cause := errors.New("the role is lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	p := mustNew(t, Config{JS: b.js, Run: "r"})
	go func() { ended <- p.Run(ctx) }()
	prototest.Poll(t, 20*time.Second, "the whole input in the stream", func() bool { return b.published(t) })
	cancel(cause)
	if err := <-ended; !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
}
