package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// smallDisk mounts a tmpfs of a size in bytes, or skips the test where that needs more
// rights than it has.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("SKIPPED: a full disk cannot be made here: mount tmpfs: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes all the space of a disk, and returns how to give it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()

	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}

	block := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(block)
	}

	file.Close()

	return func() { os.Remove(path) }
}

// fullDisk fills a disk in the middle of a run, wants the run to end with a clear
// word and the code, and to be completed by the same command once there is space.
func fullDisk(t *testing.T, c command, disk string, code int, words ...string) {
	t.Helper()

	m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 60})
	in := c.input("in.jsonl", 8000)

	out := filepath.Join(disk, "out.jsonl.zst")
	if disk == c.state {
		out = filepath.Join(c.dir, "out.jsonl.zst")
	}

	args := []string{"run", in, "--url", m.url, "-o", out, "--flush", "100ms", "--progress", "none", "--grace", "1s"}
	cmd, said := c.start(args...)
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 1000 })
	free := fill(t, disk)
	if got := waitExit(t, cmd, said, patience); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}

	t.Logf("output of the command:\n%s", said)
	for _, want := range append(words, "run the same command again") {
		if !strings.Contains(said.String(), want) {
			t.Errorf("missing output %q", want)
		}
	}

	free()

	cmd, said = c.start(args...)
	if got := waitExit(t, cmd, said, patience); got != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", got, said)
	}

	cmd, said = c.start("verify", in, out)
	if got := waitExit(t, cmd, said, patience); got != exit.CodeOK {
		t.Fatalf("verify: exit code %d:\n%s", got, said)
	}
}

func TestOutputDiskFull(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "8m")
	fullDisk(t, newCommand(t), disk, exit.CodeError, "no space left on device", "out.part.zst")
}

func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	c := newCommand(t)
	c.state = smallDisk(t, "32m")
	fullDisk(t, c, c.state, exit.CodeUnreachable, "the bus cannot write its store", "free space on that disk")
}

// The bus sets aside the maximum size of a run's streams. A producer does not know the size of
// its disk.
func TestManyRunsOnASmallDisk(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.state = smallDisk(t, "256m")
	c.serve()

	input := c.input("in.jsonl", 5)
	for i := range 5 {
		c.must("submit", input, "--model", "sim", "--run", fmt.Sprintf("r%d", i))
	}
}
