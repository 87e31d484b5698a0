package batch

import (
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// A batch goes from validating to completed, with its times and counts.
func TestBatchCompletes(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	h.start()

	b := h.create(request(h.upload(questions(50))))
	if b.State != proto.StateValidating || b.ID != "batch_"+b.Run || b.OutputFileID != "" || b.Usage != nil {
		t.Errorf("as it was created: %+v", b)
	}

	got := h.awaitState(b.ID, proto.StateCompleted)
	if got.Total != 50 || got.Completed != 50 || got.Failed != 0 || got.OutputFileID == "" || got.ErrorFileID != "" {
		t.Errorf("at the end: %+v", got)
	}

	h.restart()
	if again, err := h.svc.Get(b.ID); err != nil || again.OutputFileID != got.OutputFileID || again.Completed != 50 {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}
