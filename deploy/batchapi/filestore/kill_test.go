package filestore

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// The environment of a child process: the folder of its store, and the seed of its operations.
const (
	childDir  = "PROMPTMILL_TEST_FILESTORE_DIR"
	childSeed = "PROMPTMILL_TEST_FILESTORE_SEED"
)

// childActors is the number of actors in a child process.
const childActors = 3

// TestChild is the child process: it works until it is killed, and prints each operation before
// and after. Without a seed, it works through all kinds of operations once.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("only as a child process")
	}

	s, err := Open(dir, zerolog.New(os.Stderr))
	must(t, err)

	var printing sync.Mutex
	newActor := func(number int, seed uint64) *actor {
		return &actor{
			number: number,
			rand:   rand.New(rand.NewPCG(seed, uint64(number))),
			store:  s,
			model:  newModel(),
			report: func(o operation) {
				line, err := json.Marshal(o)
				must(t, err)

				printing.Lock()
				defer printing.Unlock()

				fmt.Fprintf(os.Stdout, "%s\n", line)
			},
		}
	}

	if os.Getenv(childSeed) == "" {
		newActor(0, 0).doAll(t)
		return
	}

	seed, err := strconv.ParseUint(os.Getenv(childSeed), 10, 64)
	must(t, err)

	var working sync.WaitGroup
	for i := range childActors {
		a := newActor(i, seed)
		working.Go(func() {
			for {
				a.do(t, a.choose())
			}
		})
	}

	working.Wait()
}

// doAll makes each kind of call once or twice, from one thread: so the same system calls are made
// each time.
func (a *actor) doAll(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	a.do(t, operation{Kind: "abort", Size: partStep})
	file := a.do(t, operation{Kind: "create", Size: partStep})
	expired := a.do(t, operation{Kind: "create"})

	for _, end := range []string{"complete", "cancel"} {
		up := a.do(t, operation{Kind: "upload", Size: 2 * partStep})
		var parts []string
		for seed := range uint64(3) {
			part := a.do(t, operation{
				Kind: "part",
				ID:   up.ID,
				Size: partStep,
				Seed: seed,
			})

			parts = append(parts, part.PartID)
		}

		a.do(t, operation{
			Kind:  end,
			ID:    up.ID,
			Parts: []string{parts[2], parts[0]},
			Size:  2 * partStep,
		})
	}

	a.do(t, operation{Kind: "delete", ID: file.ID})
	a.do(t, operation{Kind: "expire", ID: expired.ID})
}

// Whatever instruction kill -9 hits, each answered call has its effect, each other one all or
// nothing, and nothing is left on the disk.
func TestKill(t *testing.T) {
	t.Parallel()

	seeds := 50
	if testing.Short() {
		seeds = 5
	}

	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()

			testKill(t, uint64(seed))
		})
	}
}

func testKill(t *testing.T, seed uint64) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(seed, 99))

	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = append(os.Environ(), childDir+"="+dir, childSeed+"="+strconv.FormatUint(seed, 10))

	// The kill comes soon after a line, so that it hits each kind of operation at some step.
	until := 10 + random.IntN(200)
	model, interrupted, killed := runChild(t, child, func() {
		if until--; until == 0 {
			time.AfterFunc(time.Duration(random.IntN(2000))*time.Microsecond, func() { child.Process.Kill() })
		}
	})
	if !killed {
		t.Fatal("the child process ended by itself")
	}

	checkAfterKill(t, dir, model, interrupted)
}

// runChild runs a child process to its end, and calls onLine after each operation that it prints.
// It returns what the store must have, with the operations that the end has interrupted.
func runChild(t *testing.T, child *exec.Cmd, onLine func()) (m *storeModel, interrupted []operation, killed bool) {
	t.Helper()

	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())

	m = newModel()
	open := map[int]operation{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var o operation
		if !strings.HasPrefix(lines.Text(), "{") { // PASS, ok
			continue
		}

		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}

		if o.Done {
			m.apply(o)
			delete(open, o.Actor)
		} else {
			open[o.Actor] = o
		}

		onLine()
	}

	must(t, lines.Err())

	err = child.Wait()
	var exit *exec.ExitError
	killed = errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !killed {
		t.Fatalf("child: %v", err)
	}

	return m, slices.Collect(maps.Values(open)), killed
}

// Each system call that changes the disk is the last one of some process.
func TestKillAtEachStep(t *testing.T) {
	t.Parallel()

	if err := exec.Command("strace", "-qq", "-o", "/dev/null", "true").Run(); err != nil {
		t.Skipf("SKIPPED: strace, which kills a process at a certain step, does not work here: %v", err)
	}

	for _, call := range []string{"fsync", "renameat", "unlinkat", "mkdirat", "write", "copy_file_range"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()

			stride := 1
			if testing.Short() {
				stride = 5
			} else if call == "write" {
				stride = 2 // most print a line
			}

			for n := 1; ; n += stride {
				dir := t.TempDir()
				child := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
					"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), os.Args[0], "-test.run=^TestChild$")
				child.Env = append(os.Environ(), childDir+"="+dir)

				model, interrupted, killed := runChild(t, child, func() {})
				checkAfterKill(t, dir, model, interrupted)

				if t.Failed() {
					t.Fatalf("killed at %s number %d", call, n)
				}

				if !killed {
					t.Logf("%d calls of %s", n-1, call)
					return
				}
			}
		})
	}
}

// checkAfterKill checks the store that a killed process has left, and completes what the process
// did not.
func checkAfterKill(t *testing.T, dir string, model *storeModel, interrupted []operation) {
	t.Helper()

	s, err := Open(dir, zerolog.New(zerolog.NewTestWriter(t)))
	must(t, err)
	checkStore(t, s, model, interrupted)
	files := len(s.List())

	for _, o := range interrupted {
		if o.Kind != "complete" {
			continue
		}

		before, err := s.GetUpload(o.ID)
		must(t, err)
		if before.Status == UploadPending {
			files++
		}

		up, err := s.CompleteUpload(t.Context(), o.ID, o.Parts, o.md5(model))
		if err != nil {
			t.Errorf("complete %s, which was %s, again: %v", o.ID, before.Status, err)
			continue
		}

		if text := readFile(t, s, up.File.ID); text != model.uploads[o.ID].join(o.Parts) {
			t.Errorf("%s has wrong bytes", up.File.ID)
		}
	}

	if n := len(s.List()); n != files {
		t.Errorf("%d files, want %d", n, files)
	}

	list := s.List()
	must(t, s.Close())
	if again := openTest(t, dir).List(); !slices.Equal(again, list) {
		t.Errorf("another restart has another list")
	}

	if t.Failed() {
		t.Logf("interrupted: %+v", interrupted)
	}
}
