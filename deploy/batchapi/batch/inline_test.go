package batch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// uploadInline stores requests as those of the body of a batch.
func (h *head) uploadInline(text string) string {
	h.t.Helper()

	f, err := h.files.Create(h.t.Context(), filestore.File{
		Filename: "requests.jsonl",
		Purpose:  filestore.PurposeBatch,
		Inline:   true,
	}, strings.NewReader(text))
	must(h.t, err)

	return f.ID
}

// has reports whether a file is stored.
func (h *head) has(id string) bool {
	_, err := h.files.Get(id)
	if err != nil && !errors.Is(err, filestore.ErrNotFound) {
		h.t.Error(err)
	}
	return err == nil
}

// The requests of a body go with the output of their batch, and at the next start if the server died
// before it created the batch. Files that clients upload stay.
func TestInlineRequests(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	orphan, uploaded := h.uploadInline(questions(1)), h.upload(questions(1))
	q := request(h.uploadInline(questions(5)))
	q.OutputExpiresAfter = time.Hour
	b := h.create(q)
	h.awaitState(b.ID, proto.StateCompleted)

	// A record that cannot be read may be that of the orphan's batch.
	damaged := filepath.Join(h.dir, "api", "batches", b.ID+"x.json")
	must(t, os.WriteFile(damaged, []byte("{"), 0o600))
	h.restart()
	if !h.has(orphan) {
		t.Error("requests are removed whose batch may be there")
	}

	must(t, os.Remove(damaged))
	h.restart()
	if h.has(orphan) || !h.has(uploaded) || !h.has(q.InputFileID) {
		t.Errorf("after a restart: orphan %t, upload %t, input %t", h.has(orphan), h.has(uploaded), h.has(q.InputFileID))
	}

	h.svc.removeExpired(time.Now().Add(50 * time.Minute))
	if !h.has(q.InputFileID) {
		t.Error("the requests are removed before the output expires")
	}
	h.svc.removeExpired(time.Now().Add(2 * time.Hour))
	if h.has(q.InputFileID) || !h.has(uploaded) {
		t.Errorf("after the expiry: input %t, upload %t", h.has(q.InputFileID), h.has(uploaded))
	}
}
