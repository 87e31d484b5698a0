package worker

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// crashingServer is a model server that crashes, with all its connections, and is back at the same
// address after a while.
type crashingServer struct {
	t       *testing.T
	address string
	handler http.Handler
	kills   string        // a prompt with this in it kills the server
	back    time.Duration // until it is back
	deaths  atomic.Int64

	mu     sync.Mutex
	server *http.Server
	closed bool
	all    sync.WaitGroup
}

func startCrashing(t *testing.T, handler http.Handler, kills string, back time.Duration) *crashingServer {
	t.Helper()

	m := &crashingServer{t: t, address: "127.0.0.1:0", handler: handler, kills: kills, back: back}
	m.start()
	t.Cleanup(func() {
		m.mu.Lock()
		m.closed = true
		m.server.Close()
		m.mu.Unlock()
		m.all.Wait()
	})

	return m
}

func (m *crashingServer) url() string { return "http://" + m.address }

func (m *crashingServer) start() {
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Error(err)
		return
	}

	m.address = l.Addr().String()
	m.server = &http.Server{Handler: m}
	server := m.server
	m.all.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			m.t.Error(err)
		}
	})
}

func (m *crashingServer) crash() {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.closed {
		return
	}

	m.deaths.Add(1)
	m.server.Close()
	m.all.Go(func() {
		time.Sleep(m.back) // as a model takes to load
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.closed {
			m.start()
		}
	})
}

func (m *crashingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	if m.kills != "" && bytes.Contains(body, []byte(m.kills)) {
		m.crash()
		panic(http.ErrAbortHandler)
	}

	r.Body = io.NopCloser(bytes.NewReader(body))
	m.handler.ServeHTTP(w, r)
}

// A prompt that kills the server each time fails, after three crashes; all others are answered.
func TestPoisonFailsAlone(t *testing.T) {
	t.Parallel()

	const n = 2000
	m := startCrashing(t, sim.New(sim.Config{TTFT: 20 * time.Millisecond, Tokens: 5}), `question 777"`,
		300*time.Millisecond)
	b := newRunBed(t, m.url())
	b.cfg.Limiter, b.cfg.Attempts = limit.Fixed(64), 2
	b.publishRange("r", "m", 0, n, 32)
	w, stop := b.startWorker()
	got := b.finishRun(w, stop, n)
	var scan jsonscan.Scanner
	for index, lines := range got {
		info, err := proto.ParseLine(&scan, []byte(lines[0]))
		if err != nil {
			t.Fatal(err)
		}

		if want := index != 777; info.OK != want {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}

	if !strings.Contains(got[777][0], `"error":{"code":"poison"`) {
		t.Errorf("line %s", got[777][0])
	}

	if s := w.Stats(); s.TokensIn.Load() == 0 || s.TokensOut.Load() < n-1 || s.Failed.Load() != 1 {
		t.Errorf("%d tokens in, %d out, %d failed", s.TokensIn.Load(), s.TokensOut.Load(), s.Failed.Load())
	}

	// On a busy machine the worker may miss one crash, since the server is back after 300 ms.
	if deaths := m.deaths.Load(); deaths < 3 || deaths > 4 {
		t.Errorf("the server died %d times, want 3", deaths)
	}
}

// A server that vanishes costs no attempt. The requests that wait for it go to other workers.
func TestServerVanishes(t *testing.T) {
	t.Parallel()

	const n = 64
	gate := newGate(sim.New(sim.Config{}))
	m := startCrashing(t, gate, "", 500*time.Millisecond)
	b := newRunBed(t, m.url())
	b.cfg.Attempts = 1
	b.publishRange("r", "m", 0, n, 16)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "all slots to be taken", func() bool { return w.Stats().InFlight.Load() == 8 })
	m.crash()
	prototest.Poll(t, patience, "the worker to notice", w.Down)
	close(gate.gate)

	for index, lines := range b.finishRun(w, stop, n) {
		if !strings.Contains(lines[0], `"status_code":200`) || !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}
}

// A server that takes requests and answers none counts as down. Its requests go back to the bus,
// and it gets more only once it has answered one.
func TestServerHangs(t *testing.T) {
	t.Parallel()

	const n = 64
	var hangs atomic.Bool
	hangs.Store(true)
	server := sim.New(sim.Config{})
	b := newRunBed(t, startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && hangs.Load() {
			io.Copy(io.Discard, r.Body) // only then does the server see the client go
			<-r.Context().Done()
			return
		}
		server.ServeHTTP(w, r)
	})))

	b.cfg.Stall, b.cfg.Attempts = time.Second, 1
	b.publishRange("r", "m", 0, n, 16)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "the hang to be noticed", func() bool {
		why, _ := w.Waiting()
		return why == "the model server hangs"
	})

	prototest.Poll(t, patience, "the requests to go back", func() bool { return w.jobs.held.load() == 0 })
	if sent := w.Stats().InFlight.Load(); sent != 0 {
		t.Errorf("%d requests are at the server that hangs", sent)
	}

	hangs.Store(false)
	for index, lines := range b.finishRun(w, stop, n) {
		if !strings.Contains(lines[0], `"status_code":200`) || !isFirstTry(lines[0]) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}

	if w.Down() {
		t.Error("the server counts as down at the end")
	}
}

// A shard that kills the worker itself comes back with more deliveries than were handed back. From
// the third delivery on its requests run one by one; a request that two workers died of alone
// fails. A worker that vanished with a request may still be at work on it.
func TestShardThatKillsWorkers(t *testing.T) {
	t.Parallel()

	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 8, 8)

	// Two workers take it and die; a third begins to run request 3 alone, and vanishes; two
	// more begin to run request 5 alone, and die of it. (They return it without a note, which
	// saves the ack wait.)
	for range 5 {
		b.takeShard("r", "m").Nak()
	}

	for _, index := range []uint32{3, 5, 5} {
		if _, err := b.js.PublishMsg(
			t.Context(), proto.EncodeDeliveryNote("r", "0-0", proto.Isolating(index)),
		); err != nil {
			t.Fatal(err)
		}
	}

	g := &concurrencyGauge{Handler: sim.New(sim.Config{TTFT: 5 * time.Millisecond})}
	last := b.withServer(startServer(t, g))
	w, stop := last.startWorker()
	got := last.finishRun(w, stop, 8)
	for index, lines := range got {
		if want := `"code":"poison","message":"the worker died 5 times`; strings.Contains(lines[0],
			want) != (index == 5) {
			t.Errorf("request %d: %s", index, lines[0])
		}
	}

	if most := g.most.Load(); most != 1 {
		t.Errorf("%d requests at once, want one by one", most)
	}
}

// A shard that workers handed back while they were alive runs like any other.
func TestShardHandedBackIsNoSuspect(t *testing.T) {
	t.Parallel()

	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 8, 8)

	helper := newWorker(t, b.cfg)
	for range 4 {
		msg := b.takeShard("r", "m")
		helper.jobs.returnShard("r", msg, "0-0", nil, 0)
	}

	g := &concurrencyGauge{Handler: newGate(sim.New(sim.Config{}))}
	last := b.withServer(startServer(t, g))
	w, stop := last.startWorker()
	prototest.Poll(t, patience, "all requests to be there at once", func() bool { return g.most.Load() == 8 })
	close(g.Handler.(*ledger).gate)
	last.finishRun(w, stop, 8)
}

// takeShard takes a shard like a worker that vanishes with it.
func (b *testBed) takeShard(run, model string) jetstream.Msg {
	b.t.Helper()
	msg, err := b.workConsumer(run, model).Next(jetstream.FetchMaxWait(patience))
	if err != nil {
		b.t.Fatal(err)
	}
	return msg
}

// A worker that vanished once with a request that it ran alone proves nothing: the request runs
// alone once more.
func TestVanishedOnceIsNoPoison(t *testing.T) {
	t.Parallel()

	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	b.addRun("r", 0, "m")
	b.publishRange("r", "m", 0, 1, 1)

	// Two model servers of a worker die while they have it; then it runs alone, and the bus
	// gives it to another worker, since the first one has sent no sign of life for a while.
	b.takeShard("r", "m").Nak()
	if _, err := b.js.PublishMsg(
		t.Context(), proto.EncodeDeliveryNote("r", "0-0", proto.Isolating(0)),
	); err != nil {
		t.Fatal(err)
	}

	last := b.withServer(startServer(t, sim.New(sim.Config{})))
	w, stop := last.startWorker()
	got := last.finishRun(w, stop, 1)
	if !strings.Contains(got[0][0], `"status_code":200`) {
		t.Errorf("request 0: %s", got[0][0])
	}
}
