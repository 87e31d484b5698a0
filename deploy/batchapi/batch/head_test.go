package batch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/sim"
)

// awaitTime is the longest time that a test waits for an event.
const awaitTime = 60 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lockedText gathers text of several goroutines.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer.
func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns the text so far.
func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Reset drops the text.
func (l *lockedText) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

// head is a server with batches, which can be stopped and started again on the same folders.
type head struct {
	t   testing.TB
	dir string
	// sim is the model server of the worker. Nil: there is no worker.
	sim *sim.Config
	// bus names the bus. The zero value: an embedded one.
	bus busconn.Options
	// workers name the bus of the workers. The zero value: they share the connection of the server.
	workers busconn.Options
	// ended is [Config.Ended].
	ended func(context.Context, Batch) error
	log   zerolog.Logger
	// format is the format of the outputs.
	format output.Format
	// paused leaves out Run: nothing is submitted or followed.
	paused bool

	// said has the lines of the server.
	said lockedText

	// The fields below are of the server that runs.
	svc   *Service
	files *filestore.Store
	link  *busconn.Connection
	stop  func()
}

// newHead returns a head that is not started.
func newHead(t testing.TB) *head {
	return &head{
		t:   t,
		dir: t.TempDir(),
		log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel),
		sim: &sim.Config{TTFT: time.Millisecond},
	}
}

// outputs returns the folder of the outputs.
func (h *head) outputs() string { return filepath.Join(h.dir, "out") }

// start starts the server and waits until it has its batches. The end of the test stops it.
func (h *head) start() {
	h.t.Helper()

	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	records := filepath.Join(h.dir, "api", "batches")
	cfg := pipeline.ServeConfig{
		Dir:           h.outputs(),
		State:         filepath.Join(h.dir, "state"),
		Bus:           h.bus,
		FlushInterval: 100 * time.Millisecond,
		Format:        h.format,
		Log:           h.log,
		Collects:      IsIn(records),
		Hooks:         pipeline.Hooks{Printf: h.printLine},
		API: func(ctx context.Context, link *busconn.Connection) error {
			return h.serve(ctx, link, records, ready)
		},
	}
	go func() { done <- pipeline.Serve(ctx, cfg) }()

	select {
	case <-ready:
	case err := <-done:
		cancel()
		h.t.Fatal(err)
	}

	stopped := false
	h.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; !errors.Is(err, pipeline.ErrInterrupted) {
				h.t.Error(err)
			}
		}
	}

	h.t.Cleanup(h.stop)
}

// printLine notes what the server says. The line is complete when the server is ready.
func (h *head) printLine(format string, args ...any) { fmt.Fprintf(&h.said, format+"\n", args...) }

// restart stops the server and starts it again.
func (h *head) restart() {
	h.t.Helper()

	h.stop()
	h.start()
}

// serve serves batches on a bus, and works for them, until ctx ends.
func (h *head) serve(ctx context.Context, link *busconn.Connection, records string, ready chan struct{}) (err error) {
	h.link = link
	if h.files, err = filestore.Open(filepath.Join(h.dir, "api"), h.log, filepath.Join(h.dir, "state")); err != nil {
		return err
	}
	defer h.files.Close()

	h.svc, err = Open(ctx, Config{
		Bus:     link,
		Dir:     h.outputs(),
		Records: records,
		Files:   h.files,
		State:   filepath.Join(h.dir, "state"),
		Format:  h.format,
		Log:     h.log,
		Ended:   h.ended,
	})
	if err != nil {
		return err
	}
	defer h.svc.Close()

	working := make(chan error, 1)
	go func() { working <- h.work(ctx, link) }()
	paused := h.paused
	close(ready)

	if paused {
		<-ctx.Done()
		return <-working
	}

	return errors.Join(h.svc.Run(ctx), <-working)
}

// work runs the requests of the bus at a simulated model server.
func (h *head) work(ctx context.Context, link *busconn.Connection) error {
	if h.sim == nil {
		return nil
	}

	if h.workers.External() {
		var err error
		if link, err = busconn.Connect(h.workers, proto.RoleWorker, h.log); err != nil {
			return err
		}
		defer link.Close()
	}

	servers, err := modelservers.Open(ctx, modelservers.Config{Sim: h.sim, Log: h.log})
	if err != nil {
		return err
	}
	defer servers.Close()

	err = pipeline.RunWorkers(ctx, pipeline.WorkersConfig{
		Bus:     link,
		Servers: servers,
		State:   filepath.Join(h.dir, "worker"),
		Workers: pipeline.WorkerConfig{Grace: time.Millisecond},
		Log:     h.log,
	})

	if ctx.Err() != nil {
		return nil
	}

	return err
}

// upload stores a file of requests.
func (h *head) upload(text string) string {
	h.t.Helper()

	f, err := h.files.Create(context.Background(), filestore.File{
		Filename: "in.jsonl",
		Purpose:  filestore.PurposeBatch,
	}, strings.NewReader(text))

	must(h.t, err)

	return f.ID
}

// questions returns a file of so many requests.
func questions(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `{"custom_id":"q-%d","method":"POST","url":"/v1/chat/completions",`+
			`"body":{"model":"m","messages":[{"role":"user","content":"question %d"}]}}`+"\n", i, i)
	}
	return text.String()
}

// request returns a request for a batch of a file.
func request(fileID string) Request {
	return Request{Endpoint: "/v1/chat/completions", InputFileID: fileID, CompletionWindow: "24h"}
}

// create makes a batch.
func (h *head) create(q Request) Batch {
	h.t.Helper()

	b, _, err := h.svc.Create(context.Background(), q)
	must(h.t, err)

	return b
}

// await waits until a batch fulfils a condition.
func (h *head) await(id, what string, ok func(Batch) bool) (b Batch) {
	h.t.Helper()

	prototest.Poll(h.t, awaitTime, what, func() bool {
		var err error
		b, err = h.svc.Get(id)
		must(h.t, err)
		return ok(b)
	})

	return b
}

// awaitState waits until a batch is in a state.
func (h *head) awaitState(id string, s proto.State) Batch {
	h.t.Helper()
	return h.await(id, "batch is "+string(s), func(b Batch) bool { return b.State == s })
}
