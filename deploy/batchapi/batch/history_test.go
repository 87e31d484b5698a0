package batch

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// histories are the random histories that TestHistories tries.
var histories = flag.Uint64("histories", 2, "how many random histories TestHistories tries")

// history is a random sequence of calls of clients, commands of operators and restarts of the
// server, and what a client sees meanwhile.
type history struct {
	*head
	rnd *rand.Rand
	// requests are the numbers of requests of the batches, in the order of their creation; 0:
	// the input is refused.
	requests map[string]int
	order    []string
	// deletedRuns are the batches whose runs an operator has deleted.
	deletedRuns map[string]bool
	// deletedFiles are the files of outputs that were deleted.
	deletedFiles map[string]bool

	// mu guards the field below.
	mu   sync.Mutex
	seen map[string]Batch
}

// look checks that all batches have moved only as they may since the last look.
func (h *history) look() {
	h.mu.Lock()
	defer h.mu.Unlock()

	for _, b := range h.svc.List() {
		if then, known := h.seen[b.ID]; known {
			checkStep(h.t, then, b)
		}
		h.seen[b.ID] = b
	}
}

// pick returns a batch, if there is one.
func (h *history) pick() (b Batch, ok bool) {
	if len(h.order) == 0 {
		return b, false
	}

	b, err := h.svc.Get(h.order[h.rnd.IntN(len(h.order))])
	must(h.t, err)

	return b, true
}

// step does something, and returns a description of it.
func (h *history) step() string {
	ctx := context.Background()
	b, ok := h.pick()
	switch n := h.rnd.IntN(16); {
	case n < 5 || !ok:
		return h.createAny()
	case n < 7:
		return h.cancel(b)
	case n == 7:
		h.restart()
		return "restart"
	case n == 8 && h.rnd.IntN(2) == 0:
		m, err := h.svc.bus.Runs.Get(ctx, b.Run)
		if err != nil {
			return "delete no run"
		}

		h.deletedRuns[b.ID] = true
		must(h.t, pipeline.DeleteRun(ctx, h.link.JS, h.svc.bus.Runs, m))
		return "delete run of " + b.ID
	case n == 9:
		return fmt.Sprintf("pause %s: %v", b.ID, h.svc.bus.Runs.Pause(ctx, b.Run))
	case n == 10:
		return fmt.Sprintf("resume %s: %v", b.ID, h.svc.bus.Runs.Resume(ctx, b.Run))
	case n == 11:
		return h.deleteOutput(b)
	case n >= 14:
		return h.retry(b)
	case n == 12 && len(h.order) > 0:
		id := b.InputFileID
		used := h.svc.Uses(id)
		err := h.svc.DeleteFile(id)
		if used && err == nil && !h.get(b.ID).State.Ended() {
			h.t.Errorf("the input of %s was deleted", b.ID)
		}

		return fmt.Sprintf("delete input of %s: %v", b.ID, err)
	}

	time.Sleep(time.Duration(h.rnd.IntN(300)) * time.Millisecond) // the batches work meanwhile

	return "wait"
}

// retry runs the failed requests of an ended batch again. Its files are written again.
func (h *history) retry(b Batch) string {
	if h.deletedFiles[b.OutputFileID] || h.deletedFiles[b.ErrorFileID] {
		return "retry nothing of " + b.ID
	}

	return fmt.Sprintf("retry %s: %v", b.ID, h.svc.bus.Runs.Retry(context.Background(), b.Run))
}

func (h *history) get(id string) Batch {
	b, err := h.svc.Get(id)
	must(h.t, err)

	return b
}

// createAny makes a batch of any kind.
func (h *history) createAny() string {
	n := 1 + h.rnd.IntN(150)
	text := questions(n)
	if h.rnd.IntN(6) == 0 {
		n, text = 0, "{"
	}

	q := request(h.upload(text))
	if h.rnd.IntN(5) == 0 {
		q.CompletionWindow = fmt.Sprintf("%dms", 1+h.rnd.IntN(500))
	}

	b := h.create(q)
	if b.State != proto.StateValidating {
		h.t.Errorf("created as %s", b.State)
	}

	h.order = append(h.order, b.ID)
	h.requests[b.ID] = n

	return fmt.Sprintf("create %s of %d for %s", b.ID, n, q.CompletionWindow)
}

// cancel cancels a batch.
func (h *history) cancel(b Batch) string {
	got, err := h.svc.Cancel(context.Background(), b.ID)
	_, refused := errors.AsType[*RequestError](err)
	switch {
	case err == nil && got.State != proto.StateCancelling && got.State != proto.StateCancelled:
		h.t.Errorf("batch %s is cancelled and %s", b.ID, got.State)
	case err != nil && !refused:
		h.t.Errorf("batch %s: %v", b.ID, err)
	case refused && !got.State.Ended() && got.State != proto.StateFinalizing:
		h.t.Errorf("batch %s is %s: %v", b.ID, got.State, err)
	case got.ID != b.ID:
		h.t.Errorf("batch %s is %s", b.ID, got.ID)
	}

	return fmt.Sprintf("cancel %s: %s, %v", b.ID, got.State, err)
}

// deleteOutput deletes a file of an output.
func (h *history) deleteOutput(b Batch) string {
	id := b.OutputFileID
	if h.rnd.IntN(2) == 0 {
		id = b.ErrorFileID
	}

	err := h.svc.DeleteOutput(id)
	_, refused := errors.AsType[*RequestError](err)
	switch {
	case id == "" || h.deletedFiles[id]:
		if !errors.Is(err, filestore.ErrNotFound) {
			h.t.Errorf("delete %q: %v", id, err)
		}
	case b.State.Ended():
		if err != nil {
			h.t.Errorf("delete %s of %s: %v", id, b.ID, err)
		}
		h.deletedFiles[id] = true
	case err == nil:
		h.deletedFiles[id] = true // it has ended since
	case !refused:
		h.t.Errorf("delete %s of %s: %v", id, b.ID, err)
	}

	return fmt.Sprintf("delete output %q of %s: %v", id, b.ID, err)
}

// checkEnd checks a batch that has ended, and its files.
func (h *history) checkEnd(b Batch) {
	n := h.requests[b.ID]
	switch {
	case n == 0 && b.State != proto.StateFailed && b.State != proto.StateCancelled && b.State != proto.StateExpired:
		h.t.Errorf("batch %s with a bad input is %s", b.ID, b.State)
	case n > 0 && b.State == proto.StateFailed && !h.deletedRuns[b.ID]:
		h.t.Errorf("batch %s failed: %+v", b.ID, b.Errors)
	case b.State == proto.StateCompleted && (b.Completed != n || b.Failed != 0):
		h.t.Errorf("batch %s is completed with %d answers and %d failures of %d", b.ID, b.Completed, b.Failed, n)
	case b.State == proto.StateExpired && b.InProgressAt.IsZero(): // it was not on the bus
		if b.Completed+b.Failed != 0 {
			h.t.Errorf("batch %s is expired without a run, with %d lines", b.ID, b.Completed+b.Failed)
		}
	case (b.State == proto.StateCompleted || b.State == proto.StateExpired) && b.Completed+b.Failed != n:
		h.t.Errorf("batch %s is %s with %d lines of %d", b.ID, b.State, b.Completed+b.Failed, n)
	case (b.OutputFileID != "") != (b.Completed > 0) || (b.ErrorFileID != "") != (b.Failed > 0):
		h.t.Errorf("batch %s has %d answers, %d failures and the files %q, %q", b.ID, b.Completed, b.Failed,
			b.OutputFileID, b.ErrorFileID)
	}

	if !h.deletedFiles[b.OutputFileID] && !h.deletedFiles[b.ErrorFileID] && n > 0 {
		h.checkOutput(b, b.Completed+b.Failed)
	}
}

// Clients create and cancel batches, operators pause and delete their runs, files are deleted,
// and the server starts again and again. Each batch moves along the states of OpenAI's API
// alone, keeps its ids and times, loses no count, and ends with a line for each request.
func TestHistories(t *testing.T) {
	t.Parallel()

	for seed := range *histories {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()

			h := &history{
				head:         newHead(t),
				rnd:          rand.New(rand.NewPCG(seed, 1)),
				requests:     map[string]int{},
				deletedRuns:  map[string]bool{},
				deletedFiles: map[string]bool{},
				seen:         map[string]Batch{},
			}

			h.sim = &sim.Config{Slots: 8, TTFT: 5 * time.Millisecond, Tokens: 1}
			var notified sync.Map
			h.ended = func(_ context.Context, b Batch) error { notified.Store(b.ID, b.State); return nil }
			h.start()

			for range 40 {
				did := h.step()
				h.look()
				if t.Failed() {
					t.Fatalf("after: %s", did)
				}
			}

			for _, id := range h.order {
				b := h.get(id)
				h.svc.bus.Runs.Resume(t.Context(), b.Run) // it may be paused
				b = h.await(id, "batch "+id+" has ended", func(b Batch) bool { h.look(); return b.State.Ended() })
				h.checkEnd(b)
				h.await(id, "end of "+id+" is notified", func(Batch) bool {
					s, ok := notified.Load(id)
					return ok && s == b.State
				})
			}

			h.restart()
			h.look()

			if list := h.svc.List(); len(list) != len(h.order) || !slices.IsSortedFunc(list, func(a, b Batch) int {
				return b.CreatedAt.Compare(a.CreatedAt)
			}) {
				t.Errorf("there are %d batches, want %d, the newest first", len(list), len(h.order))
			}
		})
	}
}
