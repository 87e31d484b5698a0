package batch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// read returns the text of a file of an output.
func (h *head) read(fileID string) string {
	h.t.Helper()

	c, _, err := h.svc.OpenOutput(fileID)
	must(h.t, err)
	defer c.Close()

	var text bytes.Buffer
	must(h.t, c.CopyRange(context.Background(), &text, 0, c.Size()))

	return text.String()
}

// A batch goes from validating to completed, with its times, counts and files, and stays so.
func TestBatchCompletes(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	q := request(h.upload(questions(50)))
	q.Metadata = map[string]string{"project": "x"}

	b := h.create(q)
	if b.State != proto.StateValidating || b.ID != "batch_"+b.Run || b.OutputFileID != "" || b.Usage != nil ||
		!b.ExpiresAt.Equal(b.CreatedAt.Add(24*time.Hour)) {
		t.Errorf("as it was created: %+v", b)
	}

	got := h.awaitState(b.ID, proto.StateCompleted)
	if got.Total != 50 || got.Completed != 50 || got.Failed != 0 || got.OutputFileID == "" || got.ErrorFileID != "" ||
		!slices.Equal(got.Models, []string{"m"}) || got.Usage == nil || got.Usage.Output == 0 ||
		got.Metadata["project"] != "x" {
		t.Errorf("at the end: %+v", got)
	}

	times := []time.Time{got.CreatedAt, got.InProgressAt, got.FinalizingAt, got.CompletedAt}
	if !slices.IsSortedFunc(times, time.Time.Compare) || got.InProgressAt.IsZero() {
		t.Errorf("the times are %v", times)
	}

	if n := strings.Count(h.read(got.OutputFileID), "\n"); n != 50 {
		t.Errorf("the output has %d lines", n)
	}

	files := h.svc.OutputFiles()
	if len(files) != 1 || files[0].ID != got.OutputFileID || files[0].Filename != b.Run+"_output.jsonl" ||
		files[0].Purpose != filestore.PurposeBatchOutput || files[0].Bytes != int64(len(h.read(got.OutputFileID))) {
		t.Errorf("the files are %+v", files)
	}

	h.restart()

	if again, err := h.svc.Get(b.ID); err != nil || again.OutputFileID != got.OutputFileID || again.Completed != 50 ||
		!again.CompletedAt.Equal(got.CompletedAt) {
		t.Errorf("after a restart: %+v, %v", again, err)
	}

	if again := h.svc.OutputFiles(); !slices.Equal(again, files) {
		t.Errorf("after a restart: %+v, want %+v", again, files)
	}
}

// The output of a server that orders lines has no file before the end: the lines that it has until then
// move. Its counts and usage are there.
func TestOrderedOutput(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.format.Ordered = true
	h.sim = &sim.Config{Slots: 2, TTFT: 20 * time.Millisecond, Tokens: 1}
	h.start()

	const requests = 300
	b := h.create(request(h.upload(questions(requests))))
	for range 2 {
		now := h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
		if now.State.Ended() || now.OutputFileID != "" || now.ErrorFileID != "" || now.Usage == nil {
			t.Errorf("at work: %+v", now)
		}

		_, _, err := h.svc.OpenOutput(h.svc.find(b.ID).OutputFileID)
		if !errors.Is(err, filestore.ErrNotFound) || len(h.svc.OutputFiles()) != 0 {
			t.Errorf("the output of the batch at work can be read: %v", err)
		}

		h.restart()
	}

	got := h.awaitState(b.ID, proto.StateCompleted)
	h.checkOutput(got, requests)
	if first, _, _ := strings.Cut(h.read(got.OutputFileID), "\n"); !strings.Contains(first, `"custom_id":"q-0"`) {
		t.Errorf("the output begins with %s", first)
	}
}

// A batch whose input cannot be sent fails with each line, and leaves nothing on the bus.
func TestBatchFails(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	for _, tt := range []struct {
		name, text string
		want       []InputError
	}{
		{"lines", questions(1) + "{\n" +
			`{"custom_id":"q-0","url":"/v1/embeddings","body":{"model":"m","input":"x"}}` + "\n", []InputError{
			{Code: "invalid_json_line", Line: 2, Message: "The line ends in the middle of its JSON: after 1 bytes."},
			{Code: "mismatched_endpoint", Line: 3, Param: "url", Message: "The line has another endpoint: its url is " +
				"/v1/embeddings, but the batch's endpoint is /v1/chat/completions."},
		}},
		{"empty", "\n", []InputError{{
			Code:    "empty_file",
			Message: "The file in.jsonl has no requests. It needs one request a line.",
		}}},
		{"array", `[{"prompt": "hello"}]`, []InputError{{
			Code: "invalid_file_format",
			Message: "in.jsonl looks like one JSON array, not JSONL with one request a line. Convert it, and upload " +
				"in.new.jsonl: jq -c '.[]' in.jsonl > in.new.jsonl",
		}}},
	} {
		b := h.create(request(h.upload(tt.text)))
		got := h.awaitState(b.ID, proto.StateFailed)
		if !slices.Equal(got.Errors, tt.want) || got.FailedAt.IsZero() || !got.InProgressAt.IsZero() {
			t.Errorf("%s: %+v\nwant %+v", tt.name, got.Errors, tt.want)
		}
	}

	runs, err := h.svc.bus.Runs.List(t.Context())
	if err != nil || len(runs) > 0 {
		t.Errorf("on the bus: %+v, %v", runs, err)
	}
}

// A small file that unpacks to much that is no request fails the batch early.
func TestBombFails(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = nil
	h.start()

	pack := func(filler string) string {
		var packed strings.Builder
		enc, err := zstd.NewWriter(&packed)
		must(t, err)
		io.WriteString(enc, questions(1))
		for range 2 * producer.MaxFiller >> 20 {
			io.WriteString(enc, filler)
		}
		io.WriteString(enc, "\n{\n")
		must(t, enc.Close())

		return packed.String()
	}

	for _, tt := range []struct {
		text    string
		code    string
		line    int
		message string
	}{
		{pack(strings.Repeat(" \n", 1<<19)), "invalid_file_format", 0, "The file in.jsonl has more than 256 MiB of blank lines"},
		{pack(strings.Repeat("x", 1<<20)), "line_too_long", 2, "The line is longer than 64 MiB."},
	} {
		got := h.awaitState(h.create(request(h.upload(tt.text))).ID, proto.StateFailed)
		if e := got.Errors; len(e) != 1 || e[0].Code != tt.code || e[0].Line != tt.line ||
			!strings.HasPrefix(e[0].Message, tt.message) {
			t.Errorf("got %+v, want %+v", e, tt)
		}
	}
}

// A batch that is at work is cancelled with the answers that it has.
func TestCancelAtWork(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = &sim.Config{Slots: 2, TTFT: 20 * time.Millisecond, Tokens: 1}
	h.start()

	b := h.create(request(h.upload(questions(2000))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })

	now, err := h.svc.Cancel(t.Context(), b.ID)
	if err != nil || now.State != proto.StateCancelling || now.CancellingAt.IsZero() {
		t.Errorf("as it is cancelled: %+v, %v", now, err)
	}

	got := h.awaitState(b.ID, proto.StateCancelled)
	if got.Completed < now.Completed || got.Completed+got.Failed != 2000 || got.OutputFileID == "" ||
		got.ErrorFileID == "" {
		t.Errorf("at the end: %+v", got)
	}

	if again, err := h.svc.Cancel(t.Context(), b.ID); err != nil || again.State != proto.StateCancelled {
		t.Errorf("cancelled again: %+v, %v", again, err)
	}
}

// A disk that takes no record does not keep a batch from being cancelled: its run is.
func TestCancelWithoutDisk(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = &sim.Config{Slots: 2, TTFT: 20 * time.Millisecond, Tokens: 1}
	h.start()

	b := h.create(request(h.upload(questions(2000))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })

	records := h.svc.cfg.Records
	must(t, os.Rename(records, records+".away"))

	now, err := h.svc.Cancel(t.Context(), b.ID)
	if err != nil || now.State != proto.StateCancelling {
		t.Errorf("as it is cancelled: %+v, %v", now, err)
	}

	h.awaitState(b.ID, proto.StateCancelled)
	must(t, os.Rename(records+".away", records))
	h.svc.sweeper.wake()
	h.awaitSaved(b)
}

// awaitSaved waits until the record of a batch is on disk as it is.
func (h *head) awaitSaved(b Batch) {
	h.t.Helper()

	deadline := time.Now().Add(awaitTime)
	for h.svc.isUnsaved(b.Run) {
		if time.Now().After(deadline) {
			h.t.Fatalf("the record of batch %s is not saved", b.ID)
		}
		time.Sleep(5 * time.Millisecond)
	}

	text, err := os.ReadFile(recordPath(h.svc.cfg.Records, b.Run))
	must(h.t, err)
	r, err := parseRecord(b.Run, text)
	must(h.t, err)
	if r.State != proto.StateCancelled {
		h.t.Errorf("on disk the batch is %s", r.State)
	}
}

// A server with the wrong folder says where its batches are.
func TestBatchesElsewhere(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = &sim.Config{Slots: 1, TTFT: 100 * time.Millisecond, Tokens: 1}
	h.start()

	b := h.create(request(h.upload(questions(2000))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	h.stop()

	var log lockedText
	other := newHead(t)
	other.sim, other.log = nil, zerolog.New(&log)
	must(t, os.Rename(filepath.Join(h.dir, "state"), filepath.Join(other.dir, "state")))
	other.start()

	for _, want := range []string{`"batches":1`, `"dir":"` + h.outputs() + `"`, "another folder"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
}

// An input whose data was removed by hand fails its batches at once.
func TestInputRemovedByHand(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	input := h.upload(questions(2))
	path, err := h.files.Path(input)
	must(t, err)
	must(t, os.Remove(path))

	b := h.await(h.create(request(input)).ID, "failed", func(b Batch) bool { return b.State.Ended() })
	if b.State != proto.StateFailed || len(b.Errors) != 1 || b.Errors[0].Code != "file_not_found" {
		t.Errorf("%+v", b)
	}
}

// An output that was removed by hand is empty in lists, and is logged once.
func TestOutputRemovedByHand(t *testing.T) {
	t.Parallel()

	var log lockedText
	h := newHead(t)
	h.log = zerolog.New(&log)
	h.start()

	b := h.create(request(h.upload(questions(3))))
	b = h.awaitState(b.ID, proto.StateCompleted)
	must(t, os.Remove(h.svc.cfg.output(b.Run).Results()))
	h.svc.sizes = map[string]outputSize{}

	for range 3 {
		if f, err := h.svc.OutputFile(b.OutputFileID); err != nil || f.Bytes != 0 {
			t.Errorf("%+v, %v", f, err)
		}
		if _, _, err := h.svc.OpenOutput(b.OutputFileID); !errors.Is(err, filestore.ErrNotFound) {
			t.Errorf("content: %v", err)
		}
	}

	if n := strings.Count(log.String(), b.Run+".jsonl.zst"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

// A batch that is not on the bus yet is cancelled at once.
func TestCancelValidating(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	b := h.create(request(h.upload(questions(20000))))
	got, err := h.svc.Cancel(t.Context(), b.ID)
	if err != nil || got.State != proto.StateCancelled || got.OutputFileID != "" {
		t.Errorf("as it is cancelled: %+v, %v", got, err)
	}

	h.awaitNoParts(b.Run)
}

// awaitNoParts waits until nothing of a run is on the bus.
func (h *head) awaitNoParts(run string) {
	h.t.Helper()

	deadline := time.Now().Add(awaitTime)
	for {
		_, err := h.svc.bus.Runs.Get(context.Background(), run)
		_, work := h.link.JS.Stream(context.Background(), proto.WorkStream(run))
		_, objects := h.link.JS.Stream(context.Background(), "OBJ_"+proto.ObjectsBucket(run))
		if errors.Is(err, proto.ErrNoRun) && work != nil && objects != nil {
			return
		}

		if time.Now().After(deadline) {
			h.t.Fatalf("run %s is on the bus: %v, %v, %v", run, err, work, objects)
		}

		time.Sleep(5 * time.Millisecond)
	}
}

// An operator has the failed requests of an ended batch run again. The batch is in progress again, its input
// is in use, and it ends with all answers and another notification.
func TestRunRetried(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = &sim.Config{Slots: 2, TTFT: 10 * time.Millisecond, Tokens: 1}
	ends := make(chan Batch, 10)
	h.ended = func(_ context.Context, b Batch) error { ends <- b; return nil }
	h.start()

	const requests = 300
	b := h.create(request(h.upload(questions(requests))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	_, err := h.svc.Cancel(t.Context(), b.ID)
	must(t, err)
	then := h.awaitState(b.ID, proto.StateCancelled)
	before := h.read(then.OutputFileID)
	if end := <-ends; end.State != proto.StateCancelled || end.Retries != 0 {
		t.Errorf("notified of %+v", end)
	}

	must(t, h.svc.bus.Runs.Retry(t.Context(), b.Run))

	again := h.awaitState(b.ID, proto.StateInProgress)
	checkStep(t, then, again)
	if again.Retries != 1 || !again.ExpiresAt.IsZero() || again.Total != requests ||
		again.Completed < then.Completed || again.Failed != 0 || again.ErrorFileID != "" {
		t.Errorf("as it is retried: %+v", again)
	}

	if !h.svc.Uses(b.InputFileID) {
		t.Error("the input of the retried batch is not in use")
	}
	if err := h.svc.DeleteFile(b.InputFileID); err == nil {
		t.Error("the input of the retried batch was deleted")
	}

	h.restart()

	now := h.awaitState(b.ID, proto.StateCompleted)
	checkStep(t, again, now)
	if end := <-ends; end.State != proto.StateCompleted || end.Retries != 1 || end.Completed != requests {
		t.Errorf("notified of %+v", end)
	}

	if now.Completed != requests || now.CompletedAt.Before(then.CancelledAt) || now.Failed != 0 || now.ErrorFileID != "" || now.OutputFileID != then.OutputFileID {
		t.Errorf("got %+v", now)
	}

	if text := h.read(now.OutputFileID); !strings.HasPrefix(text, before) {
		t.Errorf("the output does not begin as before")
	}

	h.checkOutput(now, requests)

	if f, err := h.svc.OutputFile(now.OutputFileID); err != nil || f.Bytes != int64(len(h.read(now.OutputFileID))) {
		t.Errorf("the file is %+v, %v", f, err)
	}
}

// A retried batch can be cancelled again, also if the server was away when the run was retried.
func TestRetriedBatchIsCancelled(t *testing.T) {
	t.Parallel()

	bus := startBus(t)
	h := bus.newHead()
	h.sim = &sim.Config{Slots: 1, TTFT: 20 * time.Millisecond, Tokens: 1}
	h.start()

	b := h.create(request(h.upload(questions(500))))
	h.await(b.ID, "some answers", func(b Batch) bool { return b.Completed > 0 })
	_, err := h.svc.Cancel(t.Context(), b.ID)
	must(t, err)
	then := h.awaitState(b.ID, proto.StateCancelled)

	for retries := range 2 {
		must(t, h.svc.bus.Runs.Retry(t.Context(), b.Run))
		if retries == 1 {
			h.restart()
		}

		h.await(b.ID, "more answers", func(b Batch) bool {
			return b.State == proto.StateInProgress && b.Completed > then.Completed
		})
		if got, err := h.svc.Cancel(t.Context(), b.ID); err != nil || got.State == proto.StateInProgress {
			t.Errorf("as it is cancelled: %+v, %v", got, err)
		}

		now := h.awaitState(b.ID, proto.StateCancelled)
		if now.Retries != retries+1 || now.Completed <= then.Completed || now.Completed+now.Failed != 500 ||
			!now.CancelledAt.After(then.CancelledAt) {
			t.Errorf("got %+v after %+v", now, then)
		}
		h.checkOutput(now, 500)
		then = now
	}
}
