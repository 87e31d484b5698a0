package batch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// While the disk of the outputs is full, the bus has the reason why the run gets no lines, also during the attempts to
// collect it. It is gone once there is room.
func TestDiskOfOutputsIsFull(t *testing.T) {
	t.Parallel()

	h := newHead(t)
	must(t, os.MkdirAll(h.outputs(), 0o700))
	if err := syscall.Mount("tmpfs", h.outputs(), "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("SKIPPED: a full disk cannot be made here: mount tmpfs: %v", err)
	}

	t.Cleanup(func() { syscall.Unmount(h.outputs(), syscall.MNT_DETACH) })

	fill := filepath.Join(h.outputs(), "fill")
	must(t, os.WriteFile(fill, make([]byte, 900<<10), 0o600))
	h.start()

	// The id of an answer is random, so the journal has no room for all answers.
	b := h.create(request(h.upload(questions(10_000))))

	// The second attempt comes after 1 s, and the third after 2 s more.
	watching, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()

	problem, cleared := "", 0
	for all, err := range h.svc.bus.Runs.WatchAll(watching) {
		if err != nil {
			break
		}

		for _, m := range all {
			if problem != "" && m.Problem == "" {
				cleared++
			}
			problem = m.Problem
		}
	}

	if !strings.Contains(problem, "no space left on device") || cleared > 0 {
		t.Errorf("the problem on the bus is %q, and was gone %d times", problem, cleared)
	}

	must(t, os.Remove(fill))
	must(t, syscall.Mount("", h.outputs(), "", syscall.MS_REMOUNT, "size=100m"))
	h.awaitState(b.ID, proto.StateCompleted)

	if m, err := h.svc.bus.Runs.Get(t.Context(), b.Run); err != nil || m.Problem != "" {
		t.Errorf("at the end: %q, %v", m.Problem, err)
	}
}
