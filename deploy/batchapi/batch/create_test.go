package batch

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// pairs returns metadata of so many pairs.
func pairs(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[strings.Repeat("k", i+1)] = "v"
	}
	return m
}

// A request that cannot be a batch is refused with the parameter, and leaves nothing.
func TestCreateRefuses(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = nil
	h.start()

	good := request(h.upload(questions(1)))
	other, err := h.files.Create(t.Context(), filestore.File{Filename: "x", Purpose: "vision"}, strings.NewReader("x"))
	must(t, err)
	expired, err := h.files.Create(t.Context(), filestore.File{
		Filename:  "x",
		Purpose:   filestore.PurposeBatch,
		ExpiresAt: time.Now().Add(-time.Second),
	}, strings.NewReader(questions(1)))

	must(t, err)

	for _, tt := range []struct {
		change               func(*Request)
		param, code, message string
	}{
		{
			func(q *Request) { q.Endpoint = "" }, "endpoint", "missing_required_parameter",
			"The batch has no endpoint: use one of /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses, " +
				"/v1/rerank, /v1/score.",
		},
		{
			func(q *Request) { q.Endpoint = "/v1/images" }, "endpoint", "invalid_endpoint",
			`The endpoint "/v1/images" is unknown: use one of /v1/chat/completions, /v1/completions, /v1/embeddings, ` +
				"/v1/responses, /v1/rerank, /v1/score.",
		},
		{
			func(q *Request) { q.InputFileID = "" }, "input_file_id", "missing_required_parameter",
			`The batch has no input_file_id: upload a file with the purpose "batch" first.`,
		},
		{
			func(q *Request) { q.InputFileID = "file-x" }, "input_file_id", "file_not_found",
			`There is no file "file-x": upload it with the purpose "batch" first.`,
		},
		{
			func(q *Request) { q.InputFileID = expired.ID }, "input_file_id", "file_not_found",
			`There is no file "` + expired.ID + `": upload it with the purpose "batch" first.`,
		},
		{
			func(q *Request) { q.InputFileID = other.ID }, "input_file_id", "invalid_file_purpose",
			"File " + other.ID + ` has the purpose "vision": upload it with the purpose "batch".`,
		},
		{
			func(q *Request) { q.CompletionWindow = "" }, "completion_window", "missing_required_parameter",
			"The batch has no completion_window: give the time that it may take, such as 24h.",
		},
		{
			func(q *Request) { q.CompletionWindow = "24" }, "completion_window", "invalid_completion_window",
			`The completion window "24" is no duration: give a number and a unit, such as 24h, 90m or 7d.`,
		},
		{
			func(q *Request) { q.CompletionWindow = "-1h" }, "completion_window", "invalid_completion_window",
			`The completion window "-1h" must be more than 0, such as 24h, 90m or 7d.`,
		},
		{
			func(q *Request) { q.CompletionWindow = "9000000h" }, "completion_window", "invalid_completion_window",
			`The completion window "9000000h" is too long: it must be at most 365 days, such as 24h, 90m or 7d.`,
		},
		{
			func(q *Request) { q.Metadata = pairs(17) }, "metadata", "invalid_metadata",
			"The metadata has 17 pairs: use at most 16.",
		},
		{
			func(q *Request) { q.Metadata = map[string]string{"": "v"} }, "metadata", "invalid_metadata",
			"The metadata has an empty key: give it a name.",
		},
		{
			func(q *Request) { q.Metadata = map[string]string{strings.Repeat("ü", 65): "v"} }, "metadata",
			"invalid_metadata",
			`The metadata key "` + strings.Repeat("ü", 40) + `..." has 65 characters: use at most 64.`,
		},
		{
			func(q *Request) { q.Metadata = map[string]string{"k": strings.Repeat("v", 513)} }, "metadata",
			"invalid_metadata",
			`The value of the metadata key "k" has 513 characters: use at most 512.`,
		},
		{
			func(q *Request) { q.OutputExpiresAfter = -1 }, "output_expires_after", "invalid_output_expires_after",
			"output_expires_after must not be negative.",
		},
		{
			func(q *Request) { q.Model = strings.Repeat("m", 1025) }, "model", "invalid_model",
			"The model has 1025 bytes: use at most 1024.",
		},
		{
			func(q *Request) { q.IdempotencyKey = strings.Repeat("k", 256) }, "", "invalid_idempotency_key",
			"The idempotency key has 256 bytes: use at most 255.",
		},
	} {
		q := good
		tt.change(&q)
		_, _, err := h.svc.Create(t.Context(), q)
		refused, ok := errors.AsType[*RequestError](err)
		if !ok || refused.Param != tt.param || refused.Code != tt.code || refused.Message != tt.message {
			t.Errorf("got %+v, want param %s, code %s, message\n%s", err, tt.param, tt.code, tt.message)
		}
	}

	if list := h.svc.List(); len(list) > 0 {
		t.Errorf("there are batches: %+v", list)
	}

	for text, want := range map[string]time.Duration{
		"24h":   24 * time.Hour,
		"7d":    7 * 24 * time.Hour,
		"1d12h": 36 * time.Hour,
		"0.5d":  12 * time.Hour,
		"1s":    time.Second,
		"365d":  MaxWindow,
	} {
		if got, err := parseWindow(text); err != nil || got != want {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}

	most := good
	most.Metadata = pairs(15)
	most.Metadata[strings.Repeat("ü", MaxKey)] = strings.Repeat("ü", MaxValue)
	h.create(most)
}

func FuzzParseWindow(f *testing.F) {
	for _, text := range []string{"24h", "7d", "1d12h", "-1d", "1.5d", "9999999999d", "d", "1e9h", "1d-1h"} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		window, err := parseWindow(text)
		if err == nil && (window <= 0 || window > MaxWindow) {
			t.Errorf("%q is %s", text, window)
		}
		if _, ok := errors.AsType[*RequestError](err); err != nil && !ok {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// A request that a client repeats has one batch, by its idempotency key also after a restart.
func TestCreateOnce(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.sim = nil
	h.start()

	q := request(h.upload(questions(3)))
	q.Owner, q.IdempotencyKey, q.Metadata = "key_1", "k1", map[string]string{"a": "b"}

	var created sync.Map
	var fresh, all sync.WaitGroup
	fresh.Add(1)

	for range 16 {
		all.Go(func() {
			b, existing, err := h.svc.Create(t.Context(), q)
			if err != nil {
				t.Error(err)
				return
			}

			if !existing {
				fresh.Done() // a second one panics
			}

			created.Store(b.ID, true)
		})
	}

	all.Wait()
	fresh.Wait()

	if list := h.svc.List(); len(list) != 1 {
		t.Fatalf("there are %d batches", len(list))
	}

	h.restart()

	first := h.svc.List()[0]
	if b, existing, err := h.svc.Create(t.Context(), q); err != nil || !existing || b.ID != first.ID {
		t.Errorf("after a restart: %+v, %t, %v", b, existing, err)
	}

	changed := q
	changed.CompletionWindow = "1h"

	_, _, err := h.svc.Create(t.Context(), changed)
	if refused, ok := errors.AsType[*RequestError](err); !ok || refused.Code != "idempotency_key_reused" {
		t.Errorf("another request with the key: %v", err)
	}

	// The same bytes that are uploaded again are the same input.
	again := q
	again.InputFileID = h.upload(questions(3))
	if b, existing, err := h.svc.Create(t.Context(), again); err != nil || !existing || b.ID != first.ID {
		t.Errorf("with the file uploaded again: %+v, %t, %v", b, existing, err)
	}

	other := q
	other.Owner = "key_2"
	if b, existing, err := h.svc.Create(t.Context(), other); err != nil || existing || b.ID == first.ID {
		t.Errorf("of another owner: %+v, %t, %v", b, existing, err)
	}

	// Without a key, a repeated request is the same one if it says so.
	plain := request(q.InputFileID)
	one := h.create(plain)
	if two := h.create(plain); two.ID == one.ID {
		t.Errorf("a request that is not repeated has the batch of an earlier one")
	}

	newest := h.svc.List()[0]
	plain.Retried = true
	if b, existing, err := h.svc.Create(t.Context(), plain); err != nil || !existing || b.ID != newest.ID {
		t.Errorf("a repeated request: %+v, %t, %v; want %s", b, existing, err, newest.ID)
	}

	for what, change := range map[string]func(*Request){
		"owner":    func(q *Request) { q.Owner = "x" },
		"window":   func(q *Request) { q.CompletionWindow = "25h" },
		"endpoint": func(q *Request) { q.Endpoint = "/v1/completions" },
		"metadata": func(q *Request) { q.Metadata = map[string]string{"a": "c"} },
		"model":    func(q *Request) { q.Model = "n" },
	} {
		q := plain
		change(&q)
		if _, existing, err := h.svc.Create(t.Context(), q); err != nil || existing {
			t.Errorf("a repeated request with another %s: %t, %v", what, existing, err)
		}
	}
}

// A file that a batch needs is not deleted, and no batch is made of a file that is being deleted.
func TestDeleteFile(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	for range 20 {
		id := h.upload(questions(1))
		var both sync.WaitGroup
		var createErr, deleteErr error
		var b Batch
		both.Go(func() { b, _, createErr = h.svc.Create(t.Context(), request(id)) })
		both.Go(func() { deleteErr = h.svc.DeleteFile(id) })
		both.Wait()

		if (createErr == nil) == (deleteErr == nil) {
			t.Fatalf("created: %v, deleted: %v", createErr, deleteErr)
		}

		if createErr == nil {
			if refused, ok := errors.AsType[*RequestError](deleteErr); !ok || refused.Code != "file_in_use" {
				t.Errorf("deleted: %v", deleteErr)
			}
			h.awaitState(b.ID, proto.StateCompleted)
			must(t, h.svc.DeleteFile(id))
		}
	}

	if err := h.svc.DeleteFile("file-x"); !errors.Is(err, filestore.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// The label of a run is the name of the input as far as it can be one.
func TestMakeLabel(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]string{
		"tickets.jsonl": "tickets.jsonl", " a\tb\n ": "a b", "\xffa": "a", "": "", "   ": "",
		strings.Repeat("ü", 150): strings.Repeat("ü", 100),
	} {
		got := makeLabel(name)
		if got != want || got != "" && proto.CheckLabel(got) != nil {
			t.Errorf("%q makes %q, want %q", name, got, want)
		}
	}
}
