package pipeline

import (
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A collector counts as on the bus only requests of the run that lack a line, even with other
// messages among the results. Its role is enough for that.
func TestCollectorCountsResults(t *testing.T) {
	t.Parallel()

	v := startServer(t)
	m := proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       "victim",
		CreatedAt: time.Now(),
		State:     proto.StateInProgress,
		Input:     proto.Input{Requests: 10, Models: map[string]int{"m": 10}},
	}

	must(t, bus.EnsureStreams(t.Context(), v.JS, m, v.Limits))

	for _, subject := range []string{proto.ResultsSubject("victim", "0-1"), "pm.victim.answers.large"} {
		_, err := v.JS.Publish(t.Context(), subject, []byte("no result"))
		must(t, err)
	}

	for _, msg := range []*nats.Msg{
		proto.EncodeResults("victim", "0-0", []uint32{0, 1}, nil),
		{Subject: proto.ResultsSubject("victim", "0-0"), Header: nats.Header{"Status": {"404"}}},
		{Subject: proto.ResultsSubject("victim", "0-0"), Header: nats.Header{"Nats-Sequence": {"1"}}},
		proto.EncodeResults("victim", "0-0", []uint32{99}, nil), // of no request
		proto.EncodeDeliveryNote("victim", "0-0", proto.Returned(nil)),
		proto.EncodeResults("victim", "0-1", []uint32{1, 2, 3}, nil),
	} {
		_, err := v.JS.PublishMsg(t.Context(), msg)
		must(t, err)
	}

	l := v.as(t, proto.RoleCollector)
	for _, tt := range []struct {
		after uint64
		done  []uint32
		want  int
	}{
		{0, nil, 4},
		{0, []uint32{0, 3}, 2},
		{3, nil, 3},
		{7, nil, 0},
	} {
		state := &journal.State{Done: roaring.BitmapOf(tt.done...), Position: journal.Position{Sequence: tt.after}}
		if got := countResults(t.Context(), l.JS, m, state); got != tt.want {
			t.Errorf("after message %d, without %v: %d results, want %d", tt.after, tt.done, got, tt.want)
		}
	}

	if err := l.Conn.LastError(); err != nil {
		t.Errorf("the bus refuses something: %v", err)
	}
}
