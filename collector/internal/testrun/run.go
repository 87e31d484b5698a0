// Package testrun sets up a run on a real bus for the tests of the collector's packages. A
// test plays the producer and the workers: it publishes results and changes the manifest.
package testrun

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// Patience is far longer than anything takes: the machine may be busy.
const Patience = 3 * time.Minute

// Run is the run "r" on a bus of its own.
type Run struct {
	T        testing.TB
	Server   *server.Server
	JS       jetstream.JetStream
	Bus      *bus.Bus
	Limits   bus.Limits
	Manifest proto.Manifest
}

// New creates a run and its streams, with a manifest changed by change.
func New(t testing.TB, requests int, resultsBytes int64, change ...func(*proto.Manifest)) *Run {
	t.Helper()

	server, js := prototest.Server(t)
	r := &Run{
		T:        t,
		Server:   server,
		JS:       js,
		Limits:   bus.Limits{WorkBytes: 1 << 20, ResultsBytes: resultsBytes},
		Manifest: fixture.Manifest(requests),
	}
	for _, c := range change {
		c(&r.Manifest)
	}

	fixture.Must(t, bus.CreateBuckets(t.Context(), js, bus.Limits{}))

	var err error
	r.Bus, err = bus.Open(t.Context(), js)
	fixture.Must(t, err)

	fixture.Must(t, r.Bus.Runs.Create(t.Context(), r.Manifest))
	r.CreateStreams()

	return r
}

// CreateStreams creates the streams of the run that do not exist.
func (r *Run) CreateStreams() {
	r.T.Helper()
	fixture.Must(r.T, bus.EnsureStreams(r.T.Context(), r.JS, r.Manifest, r.Limits))
}

// RecreateResults replaces the results stream by an empty one.
func (r *Run) RecreateResults() {
	r.T.Helper()
	fixture.Must(r.T, r.JS.DeleteStream(r.T.Context(), proto.ResultsStream("r")))
	r.CreateStreams()
}

// PurgeResults deletes the results before a sequence.
func (r *Run) PurgeResults(before uint64) {
	r.T.Helper()

	stream, err := r.JS.Stream(r.T.Context(), proto.ResultsStream("r"))
	fixture.Must(r.T, err)
	fixture.Must(r.T, stream.Purge(r.T.Context(), jetstream.WithPurgeSequence(before)))
}

// Stream returns a stream of the run as it is now.
func (r *Run) Stream(name string) *jetstream.StreamInfo {
	r.T.Helper()

	s, err := r.JS.Stream(r.T.Context(), name)
	fixture.Must(r.T, err)

	return s.CachedInfo()
}

// Publish stores one message with the lines of requests.
func (r *Run) Publish(shard string, indexes ...uint32) {
	r.T.Helper()
	r.PublishMsg(proto.EncodeResults("r", shard, indexes, []byte(fixture.Lines(fixture.Any, indexes...))))
}

// PublishMsg stores a message.
func (r *Run) PublishMsg(msg *nats.Msg) {
	r.T.Helper()

	_, err := r.JS.PublishMsg(r.T.Context(), msg)
	fixture.Must(r.T, err)
}

// LargeMsg returns a result message whose lines are in the stream of large answers.
func (r *Run) LargeMsg(lines string, indexes ...uint32) *nats.Msg {
	r.T.Helper()

	msg := proto.EncodeResults("r", "0-1", indexes, []byte(lines))
	fixture.Must(r.T, bus.New(r.JS).Answers("r").Offload(r.T.Context(), msg, 64))

	return msg
}

// LostMsg returns a result message whose lines are in an object that does not exist.
func LostMsg(name string, indexes ...uint32) *nats.Msg {
	msg := proto.EncodeResults("r", "0-1", indexes, nil)
	msg.Header.Set(proto.HeaderObject, name)
	return msg
}

// Update changes the manifest on the bus.
func (r *Run) Update(change func(*proto.Manifest)) {
	r.T.Helper()
	fixture.Must(r.T, r.Bus.Runs.Update(r.T.Context(), "r", func(m *proto.Manifest) error {
		change(m)
		return nil
	}))
}

// SetState changes the run's state, as its collector does where a test has none.
func (r *Run) SetState(s proto.State) {
	r.T.Helper()
	r.Update(func(m *proto.Manifest) { m.State = s })
}

// Await waits for a signal.
func Await(t testing.TB, signal <-chan struct{}, what string) {
	t.Helper()

	select {
	case <-signal:
	case <-time.After(Patience):
		t.Fatalf("after %v still waiting for %s", Patience, what)
	}
}
