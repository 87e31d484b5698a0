package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// A server can be made to send a stored message to the key of a run. Readers of manifests
// see that it was not put there.
func TestAimedManifest(t *testing.T) {
	t.Parallel()

	runs, js := openRuns(t)
	create(t, runs, manifest("a"), manifest("b"))
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:        "own",
		Subjects:    []string{"own"},
		AllowDirect: true,
	})

	must(t, err)
	m := manifest("a")
	m.State = proto.StateCancelling
	text, err := json.Marshal(m)
	must(t, err)
	_, err = js.Publish(t.Context(), "own", text)
	must(t, err)
	must(t, js.Conn().PublishRequest("$JS.API.DIRECT.GET.own", "$KV."+proto.RunsBucket+".a", []byte(`{"seq":1}`)))
	prototest.Poll(t, time.Minute, "the server's answer", func() bool {
		_, err := runs.Get(t.Context(), "a")
		return errors.Is(err, proto.ErrFormat)
	})

	list, err := runs.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Run != "b" {
		t.Errorf("%d runs are listed (%v), want b alone", len(list), err)
	}
}

// An announcement with the headers of a server's answer hides none behind it.
func TestAnnouncementsWithHeaders(t *testing.T) {
	t.Parallel()

	for name, header := range map[string]nats.Header{
		"a number":              {"Nats-Sequence": {"1"}},
		"no number":             {"Nats-Sequence": {"x"}},
		"no time":               {"Nats-Time-Stamp": {"x"}},
		"the end":               {"Status": {"404"}},
		"the end of the batch":  {"Status": {"204"}, "Description": {"EOB"}},
		"no responders":         {"Status": {"503"}},
		"a stream":              {"Nats-Stream": {"x"}},
		"nothing else to come":  {"Nats-Num-Pending": {"0"}},
		"the subject of others": {"Nats-Subject": {"$KV." + proto.PresenceBucket + ".worker.a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, js := openRuns(t)
			opened, err := bus.Open(t.Context(), js)
			must(t, err)
			must(t, opened.Heartbeats.Send(t.Context(), proto.WorkerInfo{ID: "a", Name: "a"}))

			for _, key := range []string{"x", "y"} {
				_, err = js.PublishMsg(t.Context(), &nats.Msg{
					Subject: "$KV." + proto.PresenceBucket + ".worker." + key,
					Header:  header,
				})
				must(t, err)
			}

			must(t, opened.Heartbeats.Send(t.Context(), proto.WorkerInfo{ID: "b", Name: "b"}))

			workers, err := opened.Heartbeats.Workers(t.Context())
			if err != nil || len(workers) != 2 || workers[0].ID != "a" || workers[1].ID != "b" {
				t.Errorf("workers %+v (%v), want a and b", workers, err)
			}
		})
	}
}

// A part of a large answer with the headers of a server's answer is refused, and does not hold up
// the reader.
func TestAnswerPartsWithHeaders(t *testing.T) {
	t.Parallel()

	for name, header := range map[string]nats.Header{
		"the first number": {"Nats-Sequence": {"0"}},
		"no time":          {"Nats-Time-Stamp": {"x"}},
		"the end":          {"Status": {"404"}},
		"no responders":    {"Status": {"503"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, js := openRuns(t)
			must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), bus.Limits{
				WorkBytes:    1 << 20,
				ResultsBytes: 1 << 20,
			}))

			for range 2 {
				_, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "pm.r.answers.results-0-0-x", Header: header})
				must(t, err)
			}

			h := nats.Header{proto.HeaderObject: {"results-0-0-x"}, proto.HeaderSize: {"5"}, proto.HeaderDigest: {"00"}}
			if _, err := bus.New(js).Answers("r").Payload(t.Context(), h, nil); !bus.IsUnrecoverable(err) {
				t.Errorf("Payload: %v, want one that is lost for good", err)
			}
		})
	}
}

// A request for a stored message is sent once more where no answer comes: the copy of the
// stream that was asked may be on a node that has just died.
func TestDirectGetIsAskedAgain(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	asked := 0
	sub, err := js.Conn().Subscribe("$JS.API.DIRECT.GET.away", func(msg *nats.Msg) {
		if asked++; asked < 2 {
			return
		}

		answer := nats.NewMsg(msg.Reply)
		answer.Header.Set("Nats-Sequence", "7")
		answer.Header.Set("Nats-Time-Stamp", time.Now().UTC().Format(time.RFC3339Nano))
		answer.Data = []byte("stored")
		msg.RespondMsg(answer)
	})

	must(t, err)
	defer sub.Unsubscribe()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	msg, err := bus.NextMessage(ctx, js, "away", 1, ">")
	if err != nil || msg.Sequence != 7 || string(msg.Data) != "stored" {
		t.Fatalf("%+v, %v", msg, err)
	}

	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// A value is stored once, though its confirmation was lost, and the change that it is of is
// not made again.
func TestUpdateConfirmedLate(t *testing.T) {
	t.Parallel()

	_, js := openRuns(t)
	opened, err := bus.Open(t.Context(), &deaf{JetStream: js, lose: 1})
	must(t, err)
	runs := opened.Runs
	create(t, runs, manifest("a"))
	changes := 0
	must(t, runs.Update(t.Context(), "a", func(m *proto.Manifest) error {
		changes++
		m.Retries++
		return nil
	}))

	m, err := runs.Get(t.Context(), "a")
	must(t, err)
	if changes != 1 || m.Retries != 1 {
		t.Errorf("changed %d times, %d retries", changes, m.Retries)
	}
}

// deaf is a JetStream of which the first confirmations are lost.
type deaf struct {
	jetstream.JetStream
	lose int
}

func (d *deaf) PublishMsg(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ack, err := d.JetStream.PublishMsg(ctx, msg, opts...)
	if d.lose--; d.lose >= 0 && err == nil {
		return nil, context.DeadlineExceeded
	}
	return ack, err
}
