package collector

import (
	"bytes"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// forgedMessages returns messages that would complete the requests of a run of 6, have its
// input deleted, or stop its readers, if a reader believed them.
func forgedMessages() map[string]*nats.Msg {
	honest := func(change func(*nats.Msg)) *nats.Msg {
		msg := proto.EncodeResults("r", "0-0", []uint32{0, 1}, []byte(fixture.AllLines(0, 1)))
		change(msg)
		return msg
	}

	header := func(name, value string) *nats.Msg {
		return honest(func(m *nats.Msg) { m.Header.Set(name, value) })
	}

	payload := func(own, foreign string) *nats.Msg {
		return honest(func(m *nats.Msg) { m.Data = bytes.ReplaceAll(m.Data, []byte(own), []byte(foreign)) })
	}

	none := nats.NewMsg(proto.ResultsSubject("r", "0-0"))
	none.Header.Set("Status", "404")
	end := nats.NewMsg(proto.ResultsSubject("r", "0-0"))
	end.Header = nats.Header{"Status": {"204"}, "Description": {"EOB"}}

	return map[string]*nats.Msg{
		"lines of other requests":   proto.EncodeResults("r", "0-0", []uint32{0, 1}, []byte(fixture.AllLines(1, 0))),
		"a line for another number": proto.EncodeResults("r", "0-0", []uint32{0}, []byte(fixture.AllLines(3))),
		"lines of another run":      payload("batch_req_r_", "batch_req_s_"),
		"extras of other requests":  payload(`"index":`, `"index":1`),
		"of another shard":          header(proto.HeaderShard, "0-1"),
		"of no shard": honest(func(m *nats.Msg) {
			m.Subject = "pm.r.results.x"
			m.Header.Set(proto.HeaderShard, "x")
		}),
		"of a version to come":              header(proto.HeaderVersion, "3"),
		"with the input as its source":      header(proto.HeaderSource, proto.InputObject(0)),
		"in the input":                      header(proto.HeaderObject, proto.InputObject(0)),
		"of an ending that there is not":    proto.EncodeResults("r", "cancelled-1", []uint32{0, 1}, endedLines(0, 1)),
		"an answer of a server":             header("Nats-Stream", "x"),
		"an answer with a number":           header("Nats-Sequence", "1"),
		"an answer without a number":        header("Nats-Sequence", "x"),
		"an answer at no time":              header("Nats-Time-Stamp", "x"),
		"the end of the stream":             none,
		"the end of the requested messages": end,
		"no responder": {
			Subject: proto.ResultsSubject("r", "0-0"),
			Header:  nats.Header{"Status": {"503"}},
		},
	}
}

func endedLines(indexes ...uint32) (lines []byte) {
	for _, index := range indexes {
		lines = proto.AppendResult(lines, proto.Result{
			Run:      "r",
			Index:    index,
			CustomID: fixture.CustomID(index),
			Err:      &proto.ResultError{Code: proto.CodeCancelled},
		})
	}

	return lines
}

// Whatever anybody publishes as results, the output has the lines of the workers alone,
// no object is deleted, and the collector and a reader downstream come to the end.
func TestForgedResults(t *testing.T) {
	t.Parallel()

	for name, msg := range forgedMessages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 6, 16<<20)
			objects := bus.New(b.JS).Objects("r")
			fixture.Must(t, objects.Put(t.Context(), proto.InputObject(0), []byte(fixture.AllLines(0, 1))))
			b.Publish("0-1", 2)
			b.PublishMsg(msg)
			b.PublishMsg(msg)
			b.Publish("0-1", 3)
			b.PublishMsg(msg)

			var log bytes.Buffer
			logged := func(cfg *Config) { cfg.Log = zerolog.New(zerolog.SyncWriter(&log)) }
			c := b.start(logged)
			c.waitDurable(2)
			prototest.Poll(t, testrun.Patience, "the last of them", func() bool {
				return c.Progress().Received.Dropped >= 3
			})

			c.stopped() // at a message of them
			c = b.start()
			tl := b.StartReader(tail.Config{}, nil)
			tl.WaitGiven(fixture.AllLines(2, 3))
			b.Publish("0-0", 0, 1)
			b.Publish("0-1", 4, 5)
			meta := b.waitCompleted(c)
			tl.Finish(proto.StateCompleted, fixture.AllLines(2, 3, 0, 1, 4, 5))

			fixture.CheckText(t, b.out.Results(), fixture.Lines(fixture.Answered, 2, 3, 0, 1, 4, 5))
			if n := meta.Results.Dropped; n < 3 || n > 6 { // of a message with two lines each is one
				t.Errorf("%d messages and lines were dropped, want 3 to 6", n)
			}

			if n := strings.Count(log.String(), "dropped results that do not fit the run"); n != 1 &&
				name != "extras of other requests" {
				t.Errorf("the log says it %d times:\n%s", n, log.String())
			}

			if m, err := b.Bus.Runs.Get(t.Context(), "r"); err != nil || m.Counts.Dropped != meta.Results.Dropped {
				t.Errorf("the manifest has %d (%v), the metadata %d", m.Counts.Dropped, err, meta.Results.Dropped)
			}

			if _, err := objects.Get(t.Context(), proto.InputObject(0)); err != nil {
				t.Errorf("the input: %v", err)
			}
		})
	}
}

// A client that may only read can have the server itself send a message that it has stored
// elsewhere, to the subject of a result.
func TestAimedResults(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	_, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:        "own",
		Subjects:    []string{"own"},
		AllowDirect: true,
	})

	fixture.Must(t, err)
	msg := proto.EncodeResults("r", "0-0", []uint32{0, 1}, []byte(fixture.AllLines(0, 1)))
	msg.Subject = "own"
	b.PublishMsg(msg)
	fixture.Must(t, b.JS.Conn().PublishRequest("$JS.API.DIRECT.GET.own", proto.ResultsSubject("r", "0-0"),
		[]byte(`{"seq":1}`)))
	prototest.Poll(t, testrun.Patience, "the server's answer", func() bool {
		return b.Stream(proto.ResultsStream("r")).State.Msgs == 1
	})

	b.Publish("0-0", 2, 3)
	c, tl := b.start(), b.StartReader(tail.Config{}, nil)
	c.waitDurable(2)
	tl.WaitGiven(fixture.AllLines(2, 3))
	b.Publish("0-0", 0, 1)
	if meta := b.waitCompleted(c); meta.Results.Dropped != 1 || meta.Results.DuplicatesDropped != 0 {
		t.Errorf("%d messages were dropped, and %d lines came twice, want 1 and none",
			meta.Results.Dropped, meta.Results.DuplicatesDropped)
	}

	tl.Finish(proto.StateCompleted, fixture.AllLines(2, 3, 0, 1))
}
