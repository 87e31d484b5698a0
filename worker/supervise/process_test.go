package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadyAfterAMoment(t *testing.T) {
	t.Parallel()

	b := newSupervisedScript(t, `echo "INFO [gpu_model_runner.py:4879] Model loading took 2.5 GiB memory and 60.297843 seconds"
		sleep 0.1
		echo "INFO [kv_cache_utils.py:1708] GPU KV cache size: 20,992 tokens" >&2
		printf 'Fetching 3 files: 100%%|###| 3/3 [00:07<00:00, 2.3s/it]\r'
		touch up
		exec sleep 1000`)
	if got := b.Status(); got.Phase != Stopped || got.Since.IsZero() {
		t.Errorf("before the start: %+v", got)
	}

	b.start(t)

	status := b.awaitPhase(t, Ready, 1)
	if status.LoadTime < 100*time.Millisecond || status.LoadTime > time.Minute {
		t.Errorf("load time %v", status.LoadTime)
	}

	if want := (Memory{Weights: 5 << 29, KVTokens: 20992}); status.Memory != want {
		t.Errorf("memory %+v, want %+v", status.Memory, want)
	}

	if diff := cmp.Diff(newLoad(7, 53.297843, -1, -1, -1), status.Load); diff != "" {
		t.Errorf("load (-want +got):\n%s", diff)
	}

	b.cancel()
	if err := b.awaitResult(t); err != nil {
		t.Error(err)
	}

	if got := b.Status(); got.Phase != Stopped || got.LastExit != "signal: terminated" {
		t.Errorf("at the end: %+v", got)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		change func(*supervisedScript)
		want   string
	}{
		{"dies at once", func(*supervisedScript) {}, "exit status 3"},
		{"no command", func(b *supervisedScript) { b.cfg.Command = "" }, "no command"},
		{"not a program", func(b *supervisedScript) { b.cfg.Command = "no-such-server --port 1" }, "no-such-server"},
		{"a quote without end", func(b *supervisedScript) { b.cfg.Command = "vllm 'serve" }, "server.log, ends with:"},
		{"no folder for the log", func(b *supervisedScript) { b.cfg.LogFile = b.path("no/server.log") },
			"no such file"},
		{"another server on the port",
			func(b *supervisedScript) { b.cfg.Ready = func(context.Context) error { return nil } }, "another one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newSupervisedScript(t, "exit 3")
			tt.change(b)
			b.start(t)
			if err := b.awaitResult(t); !errors.Is(err, ErrStart) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}

			if got := b.Status().Phase; got != Stopped {
				t.Errorf("phase %s", got)
			}
		})
	}
}

func TestErrorHasTheLastLines(t *testing.T) {
	t.Parallel()

	b := newSupervisedScript(t, `for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23; do echo "line $n."; done
		exit 1`)
	b.start(t)

	err := b.awaitResult(t)
	if err == nil {
		t.Fatal("no error")
	}

	_, lines, _ := strings.Cut(err.Error(), "\n")
	var want []string
	for n := 4; n <= 23; n++ {
		want = append(want, fmt.Sprintf("line %d.", n))
	}

	if diff := cmp.Diff(want, strings.Split(lines, "\n")); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// A server that has given up may be started again: what hindered it may be gone.
func TestRunAgain(t *testing.T) {
	t.Parallel()

	b := newSupervisedScript(t, `[ -e again ] || { >again; exit 3; }
		>up
		exec sleep 1000`)
	if err := b.Run(t.Context()); !errors.Is(err, ErrStart) {
		t.Fatalf("a server that ends at once starts: %v", err)
	}

	b.start(t)
	if s := b.awaitPhase(t, Ready, 2); s.LastExit != "exit status 3" {
		t.Errorf("the exit before was %q", s.LastExit)
	}
}

func TestRestartAfterExit(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name string
		end  func(*testing.T, *supervisedScript)
		exit string
	}{
		{"when it dies", func(t *testing.T, b *supervisedScript) { b.killProcess(t, "pid") }, "signal: killed"},
		{"on request", func(_ *testing.T, b *supervisedScript) { b.Restart("it hangs") }, "killed: it hangs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			// Only the first leader has a child, and the pipe.
			b := newSupervisedScript(t, `[ -e up ] && exec sleep 1000
				exec 4>alive
				trap "" TERM
				sleep 1000 &
				echo $$ >pid
				touch up
				wait`)

			b.Restart("not running")
			b.start(t)
			b.awaitPhase(t, Ready, 1)
			tt.end(t, b)

			if got := b.awaitPhase(t, Ready, 2); got.LastExit != tt.exit {
				t.Errorf("last exit %q, want %q", got.LastExit, tt.exit)
			}

			b.awaitAllDead(t)
			b.cancel()

			if err := b.awaitResult(t); err != nil {
				t.Error(err)
			}

			b.Restart("stopped")
			if got := b.Status(); got.Phase != Stopped || got.Starts != 2 {
				t.Errorf("at the end: %+v", got)
			}
		})
	}
}

func TestGivesUpOnAServerThatIsReadyNoMore(t *testing.T) {
	t.Parallel()

	b := newSupervisedScript(t, `[ -e broken ] && exit 4
		echo $$ >pid
		touch up
		exec sleep 1000`)

	b.start(t)
	b.awaitPhase(t, Ready, 1)

	if err := errors.Join(os.WriteFile(b.path("broken"), nil, 0o600), os.Remove(b.path("up"))); err != nil {
		t.Fatal(err)
	}

	b.killProcess(t, "pid")

	err := b.awaitResult(t)
	if !errors.Is(err, ErrStart) ||
		!strings.Contains(err.Error(), "5 times in a row before it was ready: exit status 4") {
		t.Errorf("error %v", err)
	}

	if got := b.Status().Starts; got != 6 {
		t.Errorf("%d starts", got)
	}
}

func TestRestartWhileLoadingIsNoFailure(t *testing.T) {
	t.Parallel()

	b := newSupervisedScript(t, `exec sleep 1000`)
	b.start(t)

	for n := range 2 * maxUnready {
		b.awaitPhase(t, Loading, n+1)
		b.Restart("it loads for too long")
	}

	b.awaitPhase(t, Loading, 2*maxUnready+1)
}

func TestPauses(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		steady time.Duration
		want   []float64 // ms
	}{
		{"double, up to the last", time.Hour, []float64{1, 2, 4, 4}},
		{"start again when it was ready for long", time.Nanosecond, []float64{1, 1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newSupervisedScript(t, `touch up
				exec sleep 1000`)
			b.tuning.steadyTime = tt.steady
			b.start(t)

			for n := range tt.want {
				b.awaitPhase(t, Ready, n+1)
				b.Restart("test")
			}

			b.awaitPhase(t, Ready, len(tt.want)+1)

			var got []float64
			for line := range strings.Lines(b.log.String()) {
				var event struct {
					Wait *float64 `json:"wait_ms"`
				}
				if err := json.Unmarshal([]byte(line), &event); err != nil {
					t.Fatal(err)
				}

				if event.Wait != nil {
					got = append(got, *event.Wait)
				}
			}

			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("pauses in ms (-want +got):\n%s", diff)
			}
		})
	}
}

// A server that writes without end does not fill the disk.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()

	b := newSupervisedScript(t, `exec 4>alive
		touch up
		for i in 1 2 3 4; do head -c 700000 /dev/zero | tr '\0' x; echo; done
		exec sleep 1000`)
	b.start(t)
	b.awaitPhase(t, Ready, 1)

	deadline := time.Now().Add(time.Minute)
	for {
		left, err := os.Stat(b.path("server.log"))
		aside, asideErr := os.Stat(b.path("server.log.1"))
		if err == nil && asideErr == nil && left.Size() < 1<<20 && aside.Size() == 1<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log is not put aside: %v, %v", err, asideErr)
		}
		time.Sleep(time.Millisecond)
	}
}

// The scripts loop over short sleeps: a long one, or a wait, can miss a signal that
// comes as it is started.
func TestTerminate(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, script string
		grace        time.Duration
		exit         string
	}{
		{"a server that ends by itself has the time it needs", `
			trap 'echo bye; exit 0' TERM
			touch up
			while :; do sleep 0.01; done`, time.Minute, "exit status 0"},
		{"a server that ignores SIGTERM is killed", `
			trap "" TERM
			touch up
			sleep 1000`, 50 * time.Millisecond, "signal: killed"},
		{"a child that ignores SIGTERM is killed", `
			trap 'exit 5' TERM
			(trap "" TERM; touch up; exec sleep 1000) &
			while :; do sleep 0.01; done`, 50 * time.Millisecond, "exit status 5"},
		{"a child ends later than the server", `
			trap 'exit 6' TERM
			(trap 'sleep 0.1; echo bye; exit 0' TERM; touch up; while :; do sleep 0.01; done) &
			while :; do sleep 0.01; done`, time.Minute, "exit status 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newSupervisedScript(t, "exec 4>alive\n"+tt.script)
			b.cfg.Grace = tt.grace
			b.start(t)
			b.awaitPhase(t, Ready, 1)
			b.cancel()
			if err := b.awaitResult(t); err != nil {
				t.Error(err)
			}

			if got := b.Status().LastExit; got != tt.exit {
				t.Errorf("exit %q, want %q", got, tt.exit)
			}

			if log := b.readFile(t, "server.log"); strings.Contains(tt.script,
				"bye") != strings.HasSuffix(log, "bye\n") {
				t.Errorf("log:\n%s", log)
			}

			b.awaitAllDead(t)
		})
	}
}

// A server that does not end is killed at a time of its owner, though its grace is not over.
func TestKillBy(t *testing.T) {
	t.Parallel()

	for name, left := range map[string]time.Duration{"soon": 50 * time.Millisecond, "passed": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newSupervisedScript(t, `
				exec 4>alive
				trap "" TERM
				touch up
				sleep 1000`)
			b.cfg.Grace = time.Hour
			b.start(t)
			b.awaitPhase(t, Ready, 1)
			b.KillBy(time.Now().Add(left))
			b.cancel()
			if err := b.awaitResult(t); err != nil {
				t.Error(err)
			}

			if got, want := b.Status().LastExit, "signal: killed"; got != want {
				t.Errorf("exit %q, want %q", got, want)
			}

			b.awaitAllDead(t)
		})
	}
}

// New names the field that is missing.
func TestNewRequires(t *testing.T) {
	t.Parallel()

	ready := func(context.Context) error { return nil }
	for want, cfg := range map[string]Config{
		"Config.LogFile is required": {Command: "true", Ready: ready},
		"Config.Ready is required":   {Command: "true", LogFile: "server.log"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
