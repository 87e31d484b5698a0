package batch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// externalBus is a bus that heads join, and that can be stopped and started again.
type externalBus struct {
	t      testing.TB
	dir    string
	listen natsserver.ListenAddress
	server *natsserver.Server
}

// startBus starts a bus. The end of the test stops it.
func startBus(t testing.TB) *externalBus {
	t.Helper()

	port, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &externalBus{t: t, dir: t.TempDir(), listen: natsserver.ListenAddress{Address: port.Addr().String()}}
	must(t, port.Close())
	b.start()
	t.Cleanup(b.stop)

	return b
}

func (b *externalBus) start() {
	b.t.Helper()

	var err error
	b.server, err = natsserver.Start(natsserver.Config{
		State:  b.dir,
		Dir:    b.dir,
		Listen: b.listen,
		Shared: true,
		Log:    zerolog.Nop(),
	})

	must(b.t, err)
}

func (b *externalBus) stop() {
	if b.server != nil {
		b.server.Stop()
		b.server = nil
	}
}

// newHead returns a head that joins the bus, with workers that join it by themselves.
func (b *externalBus) newHead() *head {
	h := newHead(b.t)
	h.bus = busconn.Options{Join: b.server.JoinString(proto.RoleCollector), Command: "serve"}
	h.workers = busconn.Options{Join: b.server.JoinString(proto.RoleWorker), Command: "worker"}

	return h
}

// Two servers on one bus have their own batches: each collects its own, under the rights of a
// collector.
func TestTwoServers(t *testing.T) {
	t.Parallel()

	b := startBus(t)
	one, two := b.newHead(), b.newHead()
	one.start()
	two.start()

	ids := map[*head][]string{}
	for i := range 6 {
		h := []*head{one, two}[i%2]
		ids[h] = append(ids[h], h.create(request(h.upload(questions(10+i)))).ID)
	}

	for h, its := range ids {
		if n := len(h.svc.List()); n != len(its) {
			t.Errorf("a server has %d batches, want %d", n, len(its))
		}

		for _, id := range its {
			got := h.awaitState(id, proto.StateCompleted)
			h.checkOutput(got, got.Total)
		}

		journals, err := filepath.Glob(filepath.Join(h.outputs(), "*.jsonl.zst"))
		if err != nil || len(journals) != len(its) {
			t.Errorf("a server has the outputs %v, %v; want those of %v", journals, err, its)
		}
	}
}

// While the bus is away, batches are created and read, and those that work cannot be cancelled.
// They continue when it is back.
func TestBusIsAway(t *testing.T) {
	t.Parallel()

	bus := startBus(t)
	h := bus.newHead()
	h.sim = &sim.Config{Slots: 4, TTFT: 20 * time.Millisecond, Tokens: 1}
	h.start()

	const requests = 600
	working := h.create(request(h.upload(questions(requests))))
	before := h.await(working.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	bus.stop()

	text := h.read(before.OutputFileID)
	if text == "" {
		t.Errorf("the output is empty")
	}

	waiting := h.create(request(h.upload(questions(5))))
	cancelled := h.create(request(h.upload(questions(5))))

	if len(h.svc.List()) != 3 || len(h.svc.OutputFiles()) != 1 {
		t.Errorf("the batches are %+v", h.svc.List())
	}

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()

	if _, err := h.svc.Cancel(ctx, working.ID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled while the bus is away: %v", err)
	}

	if b, err := h.svc.Cancel(t.Context(), cancelled.ID); err != nil || b.State != proto.StateCancelled {
		t.Errorf("cancelled before it was on the bus: %+v, %v", b, err)
	}

	bus.start()

	h.checkOutput(h.awaitState(working.ID, proto.StateCompleted), requests)
	h.checkOutput(h.awaitState(waiting.ID, proto.StateCompleted), 5)
	h.awaitNoParts(cancelled.Run)
}

// The store of a bus that is not ours is lost: the server puts the batches there again.
func TestExternalBusLosesItsStore(t *testing.T) {
	t.Parallel()

	bus := startBus(t)
	h := bus.newHead()
	h.sim = &sim.Config{Slots: 4, TTFT: 5 * time.Millisecond, Tokens: 1}
	h.start()

	const requests = 600
	b := h.create(request(h.upload(questions(requests))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	h.stop()
	bus.stop()
	must(t, os.RemoveAll(filepath.Join(bus.dir, "nats")))
	bus.start()
	h.start()

	h.checkOutput(h.awaitState(b.ID, proto.StateCompleted), requests)
}

// A bus with room for few runs has more batches than that: those that have ended make room, and the
// others wait for their turn.
func TestBusIsFull(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.bus = busconn.Options{URL: startSmallBus(t), Command: "serve"}
	h.start()

	var ids []string
	for i := range 8 {
		ids = append(ids, h.create(request(h.upload(questions(10+i)))).ID)
	}

	for i, id := range ids {
		h.checkOutput(h.awaitState(id, proto.StateCompleted), 10+i)
	}
}

// A batch that finds no room on the bus until its time is over has expired, and others keep their place.
func TestExpiresBeforeItIsOnTheBus(t *testing.T) {
	t.Parallel()

	h, working := newHeadOfFullBus(t)
	waiting := h.create(request(h.upload(questions(3))))
	q := request(h.upload(questions(3)))
	q.CompletionWindow = "2s"
	late := h.create(q)

	got := h.awaitState(late.ID, proto.StateExpired)
	if got.ExpiredAt.Before(got.ExpiresAt) || got.ExpiredAt.Sub(got.ExpiresAt) > 10*time.Second ||
		!got.InProgressAt.IsZero() || got.OutputFileID != "" {
		t.Errorf("got %+v", got)
	}

	h.awaitNoParts(late.Run)

	if b, err := h.svc.Get(waiting.ID); err != nil || b.State != proto.StateValidating {
		t.Errorf("the batch that has time is %+v, %v", b, err)
	}

	for _, b := range working {
		h.awaitState(b.ID, proto.StateInProgress)
	}
}

// A batch that waits behind another, and has a stream from an attempt that failed, does not keep the
// other off the bus.
func TestWaitingBatchHoldsNoStream(t *testing.T) {
	t.Parallel()

	h, _ := newHeadOfFullBus(t)
	h.create(request(h.upload(questions(3)))) // has the next turn
	behind := h.create(request(h.upload(questions(3))))

	must(t, h.svc.bus.Runs.Create(t.Context(), proto.Manifest{
		Schema: proto.ManifestSchema,
		Run:    behind.Run,
		State:  proto.StateValidating,
	}))

	cfg := bus.WorkStreamConfig(behind.Run, bus.Limits{WorkBytes: 1 << 20})
	prototest.Poll(t, awaitTime, "there is room for the stream", func() bool { // an attempt may hold it
		_, err := h.link.JS.CreateStream(t.Context(), cfg)
		return err == nil
	})

	prototest.Poll(t, awaitTime, "the stream is gone", func() bool {
		_, err := h.link.JS.Stream(t.Context(), cfg.Name)
		return errors.Is(err, jetstream.ErrStreamNotFound)
	})
}

// newHeadOfFullBus starts a server whose bus has no room besides two batches, which no worker answers.
func newHeadOfFullBus(t *testing.T) (h *head, working []Batch) {
	t.Helper()

	h = newHead(t)
	h.bus = busconn.Options{URL: startSmallBus(t), Command: "serve"}
	h.sim = nil
	h.start()

	for range 2 {
		working = append(working, h.create(request(h.upload(questions(3)))))
		h.awaitState(working[len(working)-1].ID, proto.StateInProgress)
	}

	return h, working
}

// startSmallBus starts a bus with room for two runs, or for one and three that have ended, and returns its
// address.
func startSmallBus(t testing.TB) string {
	t.Helper()

	nats, err := server.NewServer(&server.Options{
		Host:              "127.0.0.1",
		Port:              -1,
		JetStream:         true,
		StoreDir:          t.TempDir(),
		JetStreamMaxStore: 5 * busconn.SharedStreamBytes,
		NoLog:             true,
		NoSigs:            true,
	})

	must(t, err)
	nats.Start()
	t.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })

	if !nats.ReadyForConnections(awaitTime) {
		t.Fatal("the bus does not start")
	}

	return nats.ClientURL()
}

// A second server with the folder of the first is refused.
func TestFolderIsTaken(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = nil
	h.start()

	cfg := h.svc.cfg
	_, err := Open(t.Context(), cfg)
	if want := fmt.Sprintf("another promptmill serves the batches in %s", cfg.Records); err == nil ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
