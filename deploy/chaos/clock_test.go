package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// clockReader prints, for each line it reads, its wall clock in nanoseconds and how long
// it has run by the monotonic clock.
const clockReader = `package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

func main() {
	begin, lines := time.Now(), bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		now := time.Now()
		fmt.Println(now.UnixNano(), int64(now.Sub(begin)), int64(time.Since(begin)))
	}
}
`

func TestStepOfRunningClock(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	overlay, err := overlayTime(dir)
	if _, ok := errors.AsType[skipped](err); ok {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}

	source, program, clock := filepath.Join(dir, "main.go"), filepath.Join(dir, "program"), filepath.Join(dir, "clock")
	if err := errors.Join(os.WriteFile(source, []byte(clockReader), 0o644), setClock(clock, 0)); err != nil {
		t.Fatal(err)
	}

	if out, err := exec.CommandContext(
		t.Context(), "go", "build", "-overlay", overlay, "-o", program, source,
	).CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}

	for _, env := range []string{clockEnv + "=" + clock, "NO_CLOCK="} {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), env)

		ask, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}

		answers, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}

		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}

		for _, by := range []time.Duration{
			0, -24 * time.Hour, -300 * time.Millisecond, 0, 999 * time.Millisecond, time.Hour, 0,
		} {
			if err := setClock(clock, by); err != nil {
				t.Fatal(err)
			}

			before := time.Now()
			fmt.Fprintln(ask)

			var wall, sub, since int64
			if _, err := fmt.Fscanln(answers, &wall, &sub, &since); err != nil {
				t.Fatal(err)
			}

			after := time.Now()
			if env == "NO_CLOCK=" {
				by = 0
			}

			if got := time.Unix(0, wall).Add(-by); got.Before(before.Round(0)) || got.After(after.Round(0)) {
				t.Errorf("%s, stepped by %s: the wall clock is off by %s",
					env, by, time.Unix(0, wall).Sub(before.Round(0)))
			}

			if most := int64(after.Sub(began)); sub < 0 || since < sub || since > most {
				t.Errorf("%s, stepped by %s: %d ns and %d ns have passed by the monotonic clock, at most %d have",
					env, by, sub, since, most)
			}
		}

		ask.Close()
		io.Copy(io.Discard, bufio.NewReader(answers))

		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Each part has its clock stepped as far as it may be, and no further.
func TestStepsFitTheirProcess(t *testing.T) {
	t.Parallel()

	first, last := map[string]time.Duration{}, map[string]time.Duration{}
	for seed := range uint64(100) {
		for _, e := range makePlan(shape{seed: seed, time: 5 * time.Minute, workers: 1, nodes: int(seed%2) * 3}) {
			if (e.clockStep != 0) != (e.kind.name == "clock") {
				t.Errorf("seed %d: %s is by %s", seed, e, e.clockStep)
			}
			part := fmt.Sprintf("%s, %d nodes", e.target, seed%2*3)
			first[part], last[part] = min(first[part], e.clockStep), max(last[part], e.clockStep)
		}
	}

	for part, want := range map[string]time.Duration{
		"serve, 0 nodes": 30 * time.Second, "node2, 3 nodes": 30 * time.Second,
		"serve, 3 nodes": time.Hour, "worker1, 0 nodes": 24 * time.Hour, "reader, 3 nodes": 24 * time.Hour,
	} {
		if first[part] != -24*time.Hour || last[part] != want {
			t.Errorf("%s: the steps are from %s to %s, want -24h to %s", part, first[part], last[part], want)
		}
	}
}
