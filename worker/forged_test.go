package worker

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// A forged result of a shard, or a forged note about it, keeps no request from being run.
func TestWorkerRunsDespiteForgedResults(t *testing.T) {
	t.Parallel()

	lines := func(id string, indexes ...uint32) (text []byte) {
		for _, index := range indexes {
			text = proto.AppendResult(text, proto.Result{
				Run:         "r",
				Index:       index,
				CustomID:    fmt.Appendf(nil, id, index),
				Status:      200,
				Body:        []byte("{}"),
				RequestHash: chatRequests(index, index)[0].Hash(),
			})
		}

		return text
	}

	honest := func(change func(*nats.Msg)) *nats.Msg {
		msg := proto.EncodeResults("r", "0-0", []uint32{0, 1}, lines(`"c-%d"`, 0, 1))
		change(msg)
		return msg
	}

	note := func(text string) *nats.Msg {
		msg := proto.EncodeDeliveryNote("r", "0-0", proto.Returned(nil))
		msg.Header.Set(proto.HeaderDelivery, text)
		return msg
	}
	for _, tt := range []struct {
		name string
		msg  *nats.Msg
	}{
		{"indexes without lines", proto.EncodeResults("r", "0-0", []uint32{0, 1}, nil)},
		{"lines of other requests", proto.EncodeResults("r", "0-0", []uint32{0, 1}, lines(`"c-%d"`, 1, 0))},
		{"lines of another input", proto.EncodeResults("r", "0-0", []uint32{0, 1}, lines(`"other-%d"`, 0, 1))},
		{"an answer to another question", honest(func(m *nats.Msg) {
			for _, r := range chatRequests(0, 1) {
				m.Data = bytes.ReplaceAll(m.Data, []byte(proto.FormatHash(r.Hash())),
					[]byte(proto.FormatHash(r.Hash()+1)))
			}
		})},
		{"requests that the shard does not have",
			proto.EncodeResults("r", "0-0", []uint32{90, 91}, lines(`"c-%d"`, 90, 91))},
		{"of another version", honest(func(m *nats.Msg) { m.Header.Set(proto.HeaderVersion, "3") })},
		{"in an object that is not there",
			honest(func(m *nats.Msg) { m.Header.Set(proto.HeaderObject, "results-0-0-x") })},
		{"an answer of a server", honest(func(m *nats.Msg) { m.Header.Set("Nats-Stream", "x") })},
		{"an answer without a number", honest(func(m *nats.Msg) { m.Header.Set("Nats-Sequence", "x") })},
		{"an answer with the first number", honest(func(m *nats.Msg) { m.Header.Set("Nats-Sequence", "1") })},
		{"the end of the stream", &nats.Msg{
			Subject: proto.ResultsSubject("r", "0-0"),
			Header:  nats.Header{"Status": {"404"}},
		}},
		{"no responders", &nats.Msg{
			Subject: proto.ResultsSubject("r", "0-0"),
			Header:  nats.Header{"Status": {"503"}},
		}},
		{"a note about another request", note("isolated 90")},
		{"a note of no known kind", note("poison 0")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := sim.New(sim.Config{})
			b := newRunBed(t, startServer(t, server))
			for range 2 {
				if _, err := b.js.PublishMsg(t.Context(), tt.msg); err != nil {
					t.Fatal(err)
				}
			}

			b.publishShard("0-0", chatRequests(0, 3)...)
			w, stop := b.startWorker()
			b.awaitRun("r")
			stop()
			if server.Succeeded() != 4 || w.jobs.dropped.Count() == 0 {
				t.Errorf("%d requests were run, want 4; %d messages did not fit",
					server.Succeeded(), w.jobs.dropped.Count())
			}
		})
	}
}

// A shard that does not fit its run is dropped, and nothing of it reaches the server.
func TestWorkerDropsForgedShards(t *testing.T) {
	t.Parallel()

	shard := func(change func(*nats.Msg)) *nats.Msg {
		msg := proto.EncodeShard("r", "m", proto.Shard{ID: "0-0", Requests: chatRequests(0, 3)})
		change(msg)
		return msg
	}

	renamed := proto.EncodeShard("r", "m", proto.Shard{
		ID:       "0-0",
		Requests: []proto.Request{{CustomID: []byte(`"a\u0062"`), URL: "/admin", Body: []byte(`{}`)}},
	})
	for _, tt := range []struct {
		name string
		msg  *nats.Msg
	}{
		{"indexes that the run does not have",
			proto.EncodeShard("r", "m", proto.Shard{ID: "0-0", Requests: chatRequests(1<<20, 1<<20+3)})},
		{"another URL", renamed},
		{"the id of another shard", shard(func(m *nats.Msg) { m.Header.Set(proto.HeaderShard, "0-1") })},
		{"the id of an ending", shard(func(m *nats.Msg) {
			m.Subject = proto.WorkSubject("r", "m", "cancelled-1")
			m.Header.Set(proto.HeaderShard, "cancelled-1")
		})},
		{"the object of another shard", shard(func(m *nats.Msg) { m.Header.Set(proto.HeaderObject, "input-0") })},
		{"a line too few", shard(func(m *nats.Msg) { m.Header.Set(proto.HeaderIndexes, "0-4") })},
		{"an answer of a server", shard(func(m *nats.Msg) { m.Header.Set("Nats-Stream", "x") })},
		{"no shard", shard(func(m *nats.Msg) { m.Data = bytes.Repeat([]byte("x"), 100) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := sim.New(sim.Config{})
			b := newRunBed(t, startServer(t, server))
			if _, err := b.js.PublishMsg(t.Context(), tt.msg); err != nil {
				t.Fatal(err)
			}

			w, stop := b.startWorker()
			prototest.Poll(t, patience, "the shard to be dropped", func() bool { return b.unackedShards("r") == 0 })
			stop()
			if server.Succeeded() != 0 || w.jobs.dropped.Count() != 1 || len(b.results()) != 0 {
				t.Errorf("%d requests were run, and %d shards dropped", server.Succeeded(), w.jobs.dropped.Count())
			}
		})
	}
}
