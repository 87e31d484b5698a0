package gpu

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

const patience = 2 * time.Minute

// writeFakeSMI writes a shell script that stands for nvidia-smi. It runs in a folder of its
// own, $dir, where it records each start in the file starts.
func writeFakeSMI(t *testing.T, script string) (path string) {
	t.Helper()

	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no shell")
	}

	dir := t.TempDir()
	path = filepath.Join(dir, "nvidia-smi")
	script = "#!/bin/sh\ndir='" + dir + "'\necho $$ >>$dir/starts\n" + script
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "two.csv"), []byte(readRecording(t)), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}

// readStarts returns the process ids under which a fake was started.
func readStarts(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "starts"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// newWatch returns a watch with a fake.
func newWatch(path string) *Watch {
	w := New(zerolog.Nop())
	w.command, w.restartWait = path, time.Millisecond
	return w
}

// A container engine puts the nvidia-smi of its machine into a container without a C library. The system cannot start
// it, and there is nothing to warn about.
func TestForeignProgram(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "nvidia-smi")
	if err := os.WriteFile(path, []byte("#!/no/such/loader\n"), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := newWatch(path).Run(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("the watch: %v, want %v", err, ErrNone)
	}
	if _, _, err := runQuery(t.Context(), path); !errors.Is(err, ErrNone) {
		t.Errorf("the query: %v, want %v", err, ErrNone)
	}
}

// startWatch runs a watch. stop ends it and waits for its end.
func startWatch(t *testing.T, w *Watch) (stop func() error) {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(cancel)

	return func() error {
		cancel()
		return <-done
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// awaitTrue polls until ok.
func awaitTrue(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestRunReadsUntilTheEnd(t *testing.T) {
	t.Parallel()

	path := writeFakeSMI(t, `echo "$@" >$dir/args; cat $dir/two.csv; exec sleep 600`)
	w := newWatch(path)
	stop := startWatch(t, w)
	awaitTrue(t, "no two cards", func() bool { return len(w.Now()) == 2 })

	for i, card := range w.Now() {
		if card.Index != i || card.Name == "" || card.UUID == "" || card.MemoryBytes < 1<<30 ||
			card.PowerWatts == nil || card.Joules == nil {
			t.Errorf("card %+v", card)
		}
	}

	if err := w.Run(t.Context()); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a second Run next to the first: %v", err)
	}

	if err := stop(); err != nil {
		t.Errorf("at the end: %v", err)
	}

	pids := readStarts(t, path)
	if len(pids) != 1 {
		t.Errorf("started %d times", len(pids))
	}

	if _, err := os.Stat("/proc/self"); err == nil {
		if _, err := os.Stat("/proc/" + pids[0]); err == nil {
			t.Error("the process is still there, or is not reaped")
		}
	}

	args, err := os.ReadFile(filepath.Join(filepath.Dir(path), "args"))
	if want := "--query-gpu=" + queryFields + " --format=csv,noheader,nounits --loop=1\n"; err != nil ||
		string(args) != want {
		t.Errorf("arguments %q, %v", args, err)
	}

	if err := startWatch(t, w)(); err != nil {
		t.Errorf("a second Run after the first: %v", err)
	}
}

func TestRunRestartsNvidiaSMI(t *testing.T) {
	t.Parallel()

	path := writeFakeSMI(t, `mkdir $dir/lock || echo two >$dir/overlap
cat $dir/two.csv
rmdir $dir/lock
test $(wc -l <$dir/starts) -lt 4 && { echo "Unable to determine the device handle for GPU 0000:9E:00.0: GPU is lost."; exit 15; }
exec sleep 600`)

	w := newWatch(path)
	log := new(lockedBuffer)
	w.log = zerolog.New(log)
	stop := startWatch(t, w)
	awaitTrue(t, "not started four times", func() bool { return len(readStarts(t, path)) == 4 })
	if err := stop(); err != nil {
		t.Error(err)
	}

	if len(w.Now()) != 2 {
		t.Errorf("cards %+v", w.Now())
	}

	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "overlap")); err == nil {
		t.Error("two at a time")
	}

	if got := log.String(); strings.Count(got, "\n") != 1 ||
		!strings.Contains(got, "exit status 15: Unable to determine") {
		t.Errorf("the end is not said once: %s", got)
	}
}

func TestRunWithoutCards(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, script, want string }{
		{"no device", "echo 'No devices were found'; exit 6", "no graphics cards: No devices were found"},
		{"no driver",
			"echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\"\necho; exit 9",
			"no graphics cards: NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."},
		{"no library, said on stderr", "printf 'cannot find libnvidia-ml.so' >&2; exit 12",
			"no graphics cards: cannot find libnvidia-ml.so"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			path := writeFakeSMI(t, tt.script)
			w := newWatch(path)
			err := w.Run(t.Context())
			if !errors.Is(err, ErrNone) || err.Error() != tt.want {
				t.Errorf("error %v", err)
			}

			if n := len(readStarts(t, path)); n != 1 || w.Now() != nil {
				t.Errorf("started %d times, cards %v", n, w.Now())
			}
		})
	}

	t.Run("no nvidia-smi", func(t *testing.T) {
		t.Parallel()
		w := newWatch(filepath.Join(t.TempDir(), "nvidia-smi"))
		if err := w.Run(t.Context()); !errors.Is(err, ErrNone) {
			t.Errorf("error %v", err)
		}
	})
}

// A card that is lost ends nvidia-smi: the machine still counts as one with cards.
func TestRunContinuesWhenTheCardsAreGone(t *testing.T) {
	t.Parallel()

	path := writeFakeSMI(t, `test $(wc -l <$dir/starts) -gt 1 && { echo 'No devices were found'; exit 6; }
cat $dir/two.csv; exit 15`)
	w := newWatch(path)
	stop := startWatch(t, w)
	awaitTrue(t, "not started again", func() bool { return len(readStarts(t, path)) >= 4 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestRunEndsThoughAChildHoldsThePipe(t *testing.T) {
	t.Parallel()

	path := writeFakeSMI(t, "cat $dir/two.csv; sleep 30 & echo $! >$dir/child; wait")
	w := newWatch(path)
	stop := startWatch(t, w)
	child := filepath.Join(filepath.Dir(path), "child")
	awaitTrue(t, "no child", func() bool {
		text, _ := os.ReadFile(child)
		return strings.HasSuffix(string(text), "\n")
	})

	if err := stop(); err != nil {
		t.Error(err)
	}

	pid, _ := os.ReadFile(child)
	exec.Command("kill", strings.TrimSpace(string(pid))).Run()
}

// TestRunOnThisMachine reads the cards of this machine, if there are any.
func TestRunOnThisMachine(t *testing.T) {
	t.Parallel()

	w := New(zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()

	for deadline := time.Now().Add(patience); ; {
		select {
		case err := <-done:
			if errors.Is(err, ErrNone) {
				t.Skip(err)
			}
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}

		if cards := w.Now(); len(cards) > 0 && (cards[0].PowerWatts == nil || *cards[0].Joules > 0) {
			t.Logf("%d cards, the first: %+v", len(cards), cards[0])
			break
		}

		if time.Now().After(deadline) {
			t.Fatalf("no readings: %+v", w.Now())
		}
	}

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
