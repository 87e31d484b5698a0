package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	official "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

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

// While the disk of the bus is full, clients of the API read and delete files, and new work is refused. With
// room again the server ends with code 4, and the next one has all of it.
func TestAPIStoreDiskFull(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes most of a minute")
	}

	c := newCommand(t)
	c.state = smallDisk(t, "32m")
	cmd, said, url := c.startAPI("--api", "0")
	ctx := t.Context()
	client := official.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("unused"))
	upload := func(n int) string {
		file, err := client.Files.New(ctx, official.FileNewParams{
			File:    official.File(strings.NewReader(chatLines(n, "m")), "in.jsonl", "application/jsonl"),
			Purpose: official.FilePurposeBatch,
		})
		must(t, err)
		return file.ID
	}

	create := func(file string) (*official.Batch, error) {
		return client.Batches.New(ctx, official.BatchNewParams{
			InputFileID:      file,
			Endpoint:         official.BatchNewParamsEndpointV1ChatCompletions,
			CompletionWindow: official.BatchNewParamsCompletionWindow24h,
		})
	}

	kept, unused := upload(3), upload(4)
	b, err := create(kept)
	must(t, err)

	poll(t, patience, "the batch is at work", func() bool {
		now, err := client.Batches.Get(ctx, b.ID)
		must(t, err)
		return now.Status == official.BatchStatusInProgress
	})

	free := fill(t, c.state)
	c.run("submit", c.input("more.jsonl", 50), "--model", "m") // an idle bus writes little
	poll(t, patience, "the bus is down", func() bool {
		return strings.Contains(said.String(), "the bus cannot write its store")
	})

	_, err = create(kept)
	if refused, ok := errors.AsType[*official.Error](err); !ok || refused.StatusCode != 507 {
		t.Errorf("a batch on a full disk: %v", err)
	}

	if now, err := client.Batches.Get(ctx, b.ID); err != nil || now.Status != official.BatchStatusInProgress {
		t.Errorf("the batch: %+v, %v", now, err)
	}

	if content, err := client.Files.Content(ctx, kept); err != nil {
		t.Errorf("read a file: %v", err)
	} else {
		content.Body.Close()
	}

	if _, err := client.Files.Delete(ctx, unused); err != nil {
		t.Errorf("delete a file: %v", err)
	}

	free()
	if got := waitExit(t, cmd, said, patience); got != exit.CodeUnreachable {
		t.Errorf("exit code %d:\n%s", got, said)
	}

	_, _, url = c.startAPI("--api", "0")
	client = official.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("unused"))
	if now, err := client.Batches.Get(ctx, b.ID); err != nil || now.Status != official.BatchStatusInProgress {
		t.Errorf("the batch after a restart: %+v, %v", now, err)
	}
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
