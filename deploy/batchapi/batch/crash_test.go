package batch

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// checkOutput checks that the output of a batch has one line for each of so many requests.
func (h *head) checkOutput(b Batch, requests int) {
	h.t.Helper()

	seen := map[string]int{}
	text := ""
	for _, id := range []string{b.OutputFileID, b.ErrorFileID} {
		if id != "" {
			text += h.read(id)
		}
	}

	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(line, `"custom_id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		seen[id]++
	}

	if len(seen) != requests {
		h.t.Errorf("batch %s: %d requests have a line, want %d", b.ID, len(seen), requests)
	}

	for id, n := range seen {
		if n != 1 {
			h.t.Errorf("batch %s: request %s has %d lines", b.ID, id, n)
		}
	}
}

// startPaused starts a server that neither submits its batches nor follows their runs.
func (h *head) startPaused() {
	h.paused = true
	h.start()
	h.paused = false
}

// The server dies after the record is on disk, and before anything else.
func TestCrashAfterCreate(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.startPaused()
	b := h.create(request(h.upload(questions(20))))
	h.restart()

	h.checkOutput(h.awaitState(b.ID, proto.StateCompleted), 20)
}

// The server dies while the input is put on the bus, at several moments.
func TestCrashWhileSubmitting(t *testing.T) {
	t.Parallel()

	for _, moment := range []string{"validating", "input stored", "in progress"} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()

			h := newHead(t)
			h.sim = &sim.Config{Slots: 4, Tokens: 1}
			h.startPaused()

			const requests = 1000
			b := h.create(request(h.upload(questions(requests))))
			h.submitUntil(b.Run, moment)
			h.restart()

			h.checkOutput(h.awaitState(b.ID, proto.StateCompleted), requests)
		})
	}
}

// submitUntil puts a run on the bus, and stops that at a moment.
func (h *head) submitUntil(run, moment string) {
	h.t.Helper()

	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	r := h.svc.find(IDPrefix + run)
	path, err := h.files.Path(r.InputFileID)
	must(h.t, err)

	switch moment {
	case "validating": // the manifest alone
		m, err := h.svc.bus.Runs.Get(ctx, run)
		if !errors.Is(err, proto.ErrNoRun) {
			h.t.Fatalf("%+v, %v", m, err)
		}
		h.submitInto(run, path, func(m *proto.Manifest) { m.State, m.Input.Stored = proto.StateValidating, false })
		must(h.t, bus.DeleteStreams(ctx, h.link.JS, run))
	case "input stored":
		h.submitInto(run, path, func(m *proto.Manifest) { m.State, m.Input.Stored = proto.StateValidating, false })
	case "in progress": // as after the last answer of the bus, which nobody has read
		_, err := pipeline.Submit(ctx, h.svc.newSubmit(r, path))
		must(h.t, err)
	}
}

// submitInto puts a run on the bus and changes its manifest before a collector has seen it:
// there is none, since the record is hidden.
func (h *head) submitInto(run, path string, change func(*proto.Manifest)) {
	h.t.Helper()

	r := h.svc.find(IDPrefix + run)
	record := recordPath(h.svc.disk.dir, run)
	must(h.t, os.Rename(record, record+".hidden"))
	_, err := pipeline.Submit(context.Background(), h.svc.newSubmit(r, path))
	must(h.t, err)
	must(h.t, bus.DeleteStream(context.Background(), h.link.JS, proto.WorkStream(run)))
	must(h.t, h.svc.bus.Runs.Update(context.Background(), run, func(m *proto.Manifest) error {
		m.Publish = proto.PublishState{}
		change(m)
		return nil
	}))

	must(h.t, os.Rename(record+".hidden", record))
}

// The run ends while no one follows it, and leaves the bus too.
func TestEndsUnseen(t *testing.T) {
	t.Parallel()

	for _, leaves := range []bool{false, true} {
		h := newHead(t)
		var mu sync.Mutex
		var ended []string
		h.ended = func(_ context.Context, b Batch) error {
			mu.Lock()
			defer mu.Unlock()

			if len(ended) == 0 {
				ended = append(ended, "failed")
				return errors.New("the webhook is away")
			}

			ended = append(ended, b.ID+" "+string(b.State))

			return nil
		}

		h.startPaused()
		b := h.create(request(h.upload(questions(20))))
		h.submitUntil(b.Run, "in progress")

		var m proto.Manifest
		for now, err := range h.svc.bus.Runs.Watch(t.Context(), b.Run) {
			must(t, err)
			if m = now; now.State.Ended() {
				break
			}
		}

		if leaves {
			must(t, pipeline.DeleteRun(t.Context(), h.link.JS, h.svc.bus.Runs, m))
		}

		h.restart()

		got := h.awaitState(b.ID, proto.StateCompleted)
		h.checkOutput(got, 20)
		checkTimes(t, got)
		if !got.CompletedAt.Equal(*m.EndedAt) && !leaves {
			t.Errorf("completed at %s, and the run ended at %s", got.CompletedAt, m.EndedAt)
		}

		h.await(b.ID, "end is notified", func(Batch) bool { return h.svc.find(b.ID).Notified })
		h.restart()
		h.stop()

		mu.Lock()
		if want := []string{"failed", b.ID + " completed"}; !slices.Equal(ended, want) {
			t.Errorf("notified: %q, want %q", ended, want)
		}

		mu.Unlock()
	}
}

// The server dies after a client was answered that its batch is cancelled, and before its parts
// have left the bus.
func TestCrashAfterCancel(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.startPaused()
	b := h.create(request(h.upload(questions(20))))
	h.submitUntil(b.Run, "input stored")
	h.svc.takeFresh(b.Run)

	if got, err := h.svc.Cancel(t.Context(), b.ID); err != nil || got.State != proto.StateCancelled {
		t.Fatalf("%+v, %v", got, err)
	}

	h.restart()
	h.awaitNoParts(b.Run)
}

// An operator deletes the run of a batch that is at work: the batch fails, and keeps what it has.
func TestRunDeleted(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = &sim.Config{Slots: 2, TTFT: 20 * time.Millisecond, Tokens: 1}
	h.start()

	b := h.create(request(h.upload(questions(2000))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	m, err := h.svc.bus.Runs.Get(t.Context(), b.Run)
	must(t, err)
	must(t, pipeline.DeleteRun(t.Context(), h.link.JS, h.svc.bus.Runs, m))

	got := h.awaitState(b.ID, proto.StateFailed)
	want := []InputError{{Code: "run_deleted", Message: "Run " + b.Run + " was deleted on the server before it had " +
		"ended. The requests that had an answer by then are in the output file."}}
	if !slices.Equal(got.Errors, want) || got.OutputFileID == "" {
		t.Errorf("got %+v", got)
	}

	if n := strings.Count(h.read(got.OutputFileID), "\n"); n != got.Completed {
		t.Errorf("the output has %d lines of %d", n, got.Completed)
	}

	h.restart()
	if again, err := h.svc.Get(b.ID); err != nil || again.State != proto.StateFailed ||
		again.Completed != got.Completed {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}

// The bus loses its store while a batch is at work: the batch continues under its id, and what
// it has is not run again.
func TestBusLosesItsStore(t *testing.T) {
	t.Parallel()

	for _, some := range []bool{false, true} {
		h := newHead(t)
		h.sim = &sim.Config{Slots: 4, TTFT: 5 * time.Millisecond, Tokens: 1}
		h.start()

		const requests = 1000
		b := h.create(request(h.upload(questions(requests))))
		before := h.await(b.ID, "in progress", func(b Batch) bool {
			return b.State == proto.StateInProgress && (b.Completed > 0 || !some)
		})

		h.stop()
		must(t, os.RemoveAll(h.dir+"/state/serve/nats"))
		must(t, os.RemoveAll(h.dir+"/state/serve/runs")) // the copy of the input, too

		if !some {
			must(t, os.RemoveAll(h.outputs()))
		}

		h.said.Reset()
		h.start()

		// Only the batches put it on the bus again. Serve, which has not the input, must not say that it cannot.
		if said := h.said.String(); strings.Contains(said, b.Run) {
			t.Errorf("serve says %q", said)
		}

		got := h.await(b.ID, "completed", func(now Batch) bool {
			checkStep(t, before, now)
			before = now
			return now.State == proto.StateCompleted
		})

		h.checkOutput(got, requests)
	}
}

// A file of an output is deleted once the batch has ended, and expires by itself.
func TestDeleteOutput(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = &sim.Config{Slots: 2, TTFT: 5 * time.Millisecond, Tokens: 1}
	h.start()

	q := request(h.upload(questions(500)))
	q.OutputExpiresAfter = time.Hour
	b := h.create(q)
	b = h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	if refused, ok := errors.AsType[*RequestError](h.svc.DeleteOutput(b.OutputFileID)); !ok ||
		refused.Code != "file_in_use" {
		t.Errorf("at work: %v", refused)
	}

	_, err := h.svc.Cancel(t.Context(), b.ID)
	must(t, err)
	b = h.awaitState(b.ID, proto.StateCancelled)
	out := h.svc.cfg.output(b.Run)

	// The server dies between the record and the file.
	must(t, os.Rename(out.Results(), out.Results()+".kept"))
	must(t, h.svc.DeleteOutput(b.OutputFileID))
	must(t, os.Rename(out.Results()+".kept", out.Results()))
	h.restart()

	h.await(b.ID, "file is removed", func(Batch) bool { _, err := os.Stat(out.Results()); return err != nil })

	files := h.svc.OutputFiles()
	if len(files) != 1 || files[0].ID != b.ErrorFileID || !files[0].ExpiresAt.Equal(b.CancelledAt.Add(time.Hour)) {
		t.Errorf("the files are %+v", files)
	}

	if n := strings.Count(h.read(b.ErrorFileID), "\n"); n != b.Failed {
		t.Errorf("the error file has %d lines of %d", n, b.Failed)
	}

	h.svc.removeExpired(time.Now().Add(2 * time.Hour))
	if files := h.svc.OutputFiles(); len(files) > 0 {
		t.Errorf("after their time: %+v", files)
	}

	if _, err := os.Stat(out.Errors()); err == nil {
		t.Errorf("the error file is there")
	}
}

// An operator cancels the run of a batch that is being put on the bus.
func TestRunCancelledWhileSubmitting(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.startPaused()
	b := h.create(request(h.upload(questions(20))))
	h.submitUntil(b.Run, "validating")
	must(t, h.svc.bus.Runs.Cancel(t.Context(), b.Run))
	h.restart()

	h.awaitState(b.ID, proto.StateCancelled)
	h.awaitNoParts(b.Run)
}
