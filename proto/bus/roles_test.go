package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func TestRolesCanDoTheirWork(t *testing.T) {
	t.Parallel()

	for role, work := range map[proto.Role]func(*testing.T, *testBus, *client){
		proto.RoleProducer:  produce,
		proto.RoleWorker:    work,
		proto.RoleCollector: collect,
		proto.RoleReader:    read,
	} {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()
			b := newBus(t)
			c := b.as(t, role)
			work(t, b, c)
			if err := c.refused(t); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

// produce makes the run "new", publishes it and controls it.
func produce(t *testing.T, _ *testBus, c *client) {
	ctx := t.Context()
	look(t, c)
	opened, err := bus.Open(ctx, c)
	must(t, err)
	runs := opened.Runs
	m := manifest("new")
	create(t, runs, m)

	for range 2 { // a producer that starts again finds them
		must(t, bus.EnsureStreams(ctx, c, m, limits))
	}

	subject := proto.WorkSubject("new", "org/n", "0-0")
	_, err = c.Publish(ctx, subject, []byte("shard"), jetstream.WithExpectLastSequence(0))
	must(t, err)

	_, err = c.Publish(ctx, subject, []byte("shard"), jetstream.WithExpectLastSequence(0))
	if api, ok := errors.AsType[*jetstream.APIError](err); !ok ||
		api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		t.Errorf("a shard is published twice: %v", err)
	}

	future, err := c.PublishMsgAsync(nats.NewMsg(proto.WorkSubject("new", "m", "0-1")),
		jetstream.WithExpectLastSequence(1))
	must(t, err)

	select {
	case <-future.Ok():
	case err := <-future.Err():
		t.Fatal(err)
	}

	putAndGet(t, c, "new", "work-0-0")

	must(t, runs.Pause(ctx, "new"))
	errSeen := errors.New("seen")
	err = watch(ctx, runs, "new", func(m proto.Manifest) error {
		if m.State == proto.StateCancelling {
			return errSeen
		}
		return runs.Cancel(ctx, "new")
	})
	if !errors.Is(err, errSeen) {
		t.Errorf("watch: %v", err)
	}
}

// work takes the shard and stores a result.
func work(t *testing.T, b *testBus, c *client) {
	ctx := t.Context()
	opened, err := bus.Open(ctx, c)
	must(t, err)
	runs := opened.Runs
	following, cancel := context.WithCancel(ctx)
	err = watchAll(following, runs, func(all map[string]proto.Manifest) {
		if _, ok := all["r"]; ok {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("watch all: %v", err)
	}

	must(t, opened.Heartbeats.Send(ctx, proto.WorkerInfo{Name: "gpu 1"}))

	// Extended and handed back, it comes again.
	msg := c.fetch(t, proto.WorkStream("r"), proto.ConsumerName("m"))
	must(t, msg.InProgress())
	must(t, msg.Nak())

	msg = c.fetch(t, proto.WorkStream("r"), proto.ConsumerName("m"))
	if meta, err := msg.Metadata(); err != nil || meta.NumDelivered != 2 {
		t.Errorf("delivery %+v, %v", meta, err)
	}

	offload(t, c, "r")

	subject := proto.ResultsSubject("r", "0-0")
	_, err = c.Publish(ctx, subject, []byte("again"))
	must(t, err)
	stream, err := c.Stream(ctx, proto.ResultsStream("r"))
	must(t, err)
	last, err := stream.GetLastMsgForSubject(ctx, subject)
	must(t, err)
	first, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subject))
	must(t, err)
	if string(first.Data) != "result" || string(last.Data) != "again" {
		t.Errorf("results %q to %q", first.Data, last.Data)
	}

	must(t, msg.DoubleAck(ctx))
	b.publish(t, proto.WorkSubject("r", "m", "0-1"), "unreadable")
	must(t, c.fetch(t, proto.WorkStream("r"), proto.ConsumerName("m")).TermWithReason("unreadable"))
	must(t, opened.Heartbeats.Remove(ctx, "gpu 1"))
}

// collect takes the result of the run, makes another, and cleans up.
func collect(t *testing.T, b *testBus, c *client) {
	ctx := t.Context()
	produce(t, b, c)
	read(t, b, c)
	opened, err := bus.Open(ctx, c)
	must(t, err)
	must(t, opened.Leases.Acquire(ctx, "r", proto.CollectorInfo{Host: "h", Output: "/o"}))

	stream, err := c.Stream(ctx, proto.ResultsStream("r"))
	must(t, err)

	for range 2 { // the second time for a collector that starts again
		_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			Name: proto.CollectorConsumer, AckPolicy: jetstream.AckNonePolicy,
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 1,
			MemoryStorage: true, InactiveThreshold: time.Minute,
		})

		must(t, err)
		if msg := c.fetch(t, proto.ResultsStream("r"), proto.CollectorConsumer); string(msg.Data()) != "result" {
			t.Errorf("result %q", msg.Data())
		}

		must(t, stream.DeleteConsumer(ctx, proto.CollectorConsumer))
	}

	must(t, stream.Purge(ctx, jetstream.WithPurgeSequence(2)))
	must(t, bus.New(c).Objects("new").Delete(ctx, "work-0-0"))
	must(t, bus.ResetConsumers(ctx, c, manifest("r")))
	runs := opened.Runs

	for _, run := range []string{"r", "new"} {
		must(t, bus.DeleteStreams(ctx, c, run))
		must(t, runs.Delete(ctx, run))
	}

	must(t, opened.Leases.Release(ctx, "r"))
}

// read looks on, and remembers how far it has come.
func read(t *testing.T, b *testBus, c *client) {
	ctx := t.Context()
	look(t, c)

	large := offload(t, b.admin, "r")
	if got, err := bus.New(c).Answers("r").Payload(ctx, large.Header, large.Data); err != nil ||
		len(got) != answerSize {
		t.Errorf("large answer of %d bytes, %v", len(got), err)
	}

	stream, err := c.Stream(ctx, proto.ResultsStream("r"))
	must(t, err)
	msg, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject("pm.r.results.*"))
	must(t, err)
	if string(msg.Data) != "result" {
		t.Errorf("result %q", msg.Data)
	}

	coming, err := c.Conn().SubscribeSync("pm.*.results.>")
	must(t, err)
	must(t, c.Conn().Flush())
	b.publish(t, proto.ResultsSubject("r", "0-1"), "more")
	_, err = b.as(t, proto.RoleWorker).Publish(ctx, proto.ResultsSubject("r", "0-2"), []byte("from a worker"))
	must(t, err)

	for i, want := range []string{"more", "from a worker"} {
		msg, err := coming.NextMsg(5 * time.Second)
		if err != nil || string(msg.Data) != want || msg.Subject != proto.ResultsSubject("r", fmt.Sprintf("0-%d", i+1)) {
			t.Errorf("the result that comes: %v, %v, want %q", msg, err, want)
		}
	}

	kv, err := c.KeyValue(ctx, proto.ReadersBucket)
	must(t, err)
	revision, err := kv.Create(ctx, "r.me", []byte("1"))
	must(t, err)
	_, err = kv.Update(ctx, "r.me", []byte("2"), revision)
	must(t, err)
	if entry, err := kv.Get(ctx, "r.me"); err != nil || string(entry.Value()) != "2" {
		t.Errorf("position %v, %v", entry, err)
	}
}

// look asks for the state of all.
func look(t *testing.T, c *client) {
	t.Helper()

	opened, err := bus.Open(t.Context(), c)
	must(t, err)

	runs := opened.Runs
	if list, err := runs.List(t.Context()); err != nil || len(list) == 0 {
		t.Errorf("runs %v, %v", list, err)
	}

	_, err = opened.Heartbeats.Workers(t.Context())
	must(t, err)
	_, _, err = opened.Leases.Holder(t.Context(), "r")
	must(t, err)
}

const answerSize = 300 << 10

// offload stores an answer that does not fit into its message, and reads it.
func offload(t *testing.T, c *client, run string) *nats.Msg {
	t.Helper()

	answers, want := bus.New(c).Answers(run), strings.Repeat("x", answerSize)
	msg := proto.EncodeResults(run, "0-0", []uint32{0}, []byte(want))
	must(t, answers.Offload(t.Context(), msg, 256<<10))
	if got, err := answers.Payload(t.Context(), msg.Header, msg.Data); err != nil || string(got) != want ||
		len(msg.Data) > 0 {
		t.Errorf("large answer of %d bytes, %v; %d bytes are left in the message", len(got), err, len(msg.Data))
	}

	return msg
}

// putAndGet stores an object of two chunks, twice as after a crash, and reads it.
func putAndGet(t *testing.T, c *client, run, name string) {
	t.Helper()

	objects, want := bus.New(c).Objects(run), strings.Repeat("x", 200<<10)
	for range 2 {
		must(t, objects.Put(t.Context(), name, []byte(want)))
	}

	if got, err := objects.Get(t.Context(), name); err != nil || string(got) != want {
		t.Errorf("object of %d bytes, %v", len(got), err)
	}
}

// The notice of a manifest that one role changed reaches the others, after the change is stored.
func TestNoticesReachOtherRoles(t *testing.T) {
	t.Parallel()

	b := newBus(t)
	w := b.as(t, proto.RoleWorker)
	notices, err := w.Conn().SubscribeSync("$KV." + proto.RunsBucket + ".*")
	must(t, err)
	must(t, w.Conn().Flush())

	for _, role := range []proto.Role{proto.RoleProducer, admin} {
		opened, err := bus.Open(t.Context(), b.as(t, role))
		must(t, err)

		m, err := opened.Runs.Get(t.Context(), "r")
		must(t, err)

		change, want := opened.Runs.Pause, proto.StatePaused
		if m.State == proto.StatePaused {
			change, want = opened.Runs.Resume, proto.StateInProgress
		}

		must(t, change(t.Context(), "r"))
		msg, err := notices.NextMsg(5 * time.Second)
		must(t, err)

		changed, err := proto.ParseManifest("r", msg.Data)
		if err != nil || changed.State != want || msg.Subject != "$KV."+proto.RunsBucket+".r" {
			t.Errorf("a notice on %s with the state %s (%v), want %s", msg.Subject, changed.State, err, want)
		}

		if now, err := opened.Runs.Get(t.Context(), "r"); err != nil || now.State != want {
			t.Errorf("the state is %s (%v) after the notice, want %s", now.State, err, want)
		}
	}

	if extra, err := notices.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("there is a further notice: %s", extra.Data)
	}
}
