package batch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// While the disk of the outputs or of the bus has less than its reserve, no batch begins and no file is
// stored. What is there is read, and a repeated request has its batch.
func TestReserve(t *testing.T) {
	t.Parallel()

	for _, folder := range []string{"state", "out"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()

			h := startBus(t).newHead()
			h.sim = nil
			disk := filepath.Join(h.dir, folder)
			must(t, os.MkdirAll(disk, 0o700))

			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=10m"); err != nil {
				t.Skipf("SKIPPED: a full disk cannot be made here: mount tmpfs: %v", err)
			}
			t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })

			h.start()
			q := request(h.upload(questions(3)))
			q.IdempotencyKey = "first"
			first := h.create(q)
			h.awaitState(first.ID, proto.StateInProgress)

			filler := filepath.Join(disk, "filler")
			must(t, os.WriteFile(filler, make([]byte, 9800<<10), 0o600))

			if b, existing, err := h.svc.Create(t.Context(), q); err != nil || !existing || b.ID != first.ID {
				t.Errorf("repeated: %+v, %t, %v", b, existing, err)
			}

			q.IdempotencyKey = "second"
			if b, _, err := h.svc.Create(t.Context(), q); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("a batch: %+v, %v", b, err)
			}

			_, err := h.files.Create(t.Context(), filestore.File{}, strings.NewReader("x"))
			if full := errors.Is(err, syscall.ENOSPC); full != (folder == "state") {
				t.Errorf("a file: %v", err)
			}

			must(t, os.Remove(filler))
			h.create(q)
		})
	}
}
