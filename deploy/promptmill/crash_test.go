package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// A run that is killed with -9 many times, at random points, ends with exactly one
// line for each request, and has run again no more than was in flight at each death.
func TestKilledManyTimes(t *testing.T) {
	const requests, kills, concurrency = 20_000, 8, 256
	seeds := 2
	if testing.Short() {
		seeds = 1
	}

	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()

			random := rand.New(rand.NewPCG(uint64(seed), 1))
			c := newCommand(t)
			m := newModel(t, sim.Config{Slots: 256, TTFT: 100 * time.Millisecond, Spread: 0.5, Tokens: 10})
			in := c.input("in.jsonl", requests)
			args := []string{
				"run", in, "--url", m.url, "--concurrency", fmt.Sprint(concurrency), "-o", "out.jsonl.zst", "--flush",
				"300ms", "--progress", "none",
			}
			for range kills {
				cmd, out := c.start(args...)
				// Death comes at a random number of answers, and then at any instruction:
				// also during validation, where the number is 0.
				before, more := m.sim.Succeeded(), int64(random.IntN(requests/kills))
				poll(t, patience, "answers", func() bool { return m.sim.Succeeded() >= before+more || exited(out) })
				time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond) // not for a signal: to die anywhere
				cmd.Process.Kill()
				cmd.Wait()
			}

			text, code := c.run(args...)
			if code != exit.CodeOK {
				t.Fatalf("exit code %d:\n%s", code, text)
			}

			c.proved(in)
			// In flight are the requests at the server, and answers that are not stored
			// yet. The second is a few by the clock; on a busy machine with the race detector
			// it came near the number of slots, hence the 2.
			again := m.sim.Succeeded() - requests
			t.Logf("%d kills, %d requests were run again, %d at once at most", kills, again, m.most)
			if most := int64(kills * 2 * concurrency); again > most {
				t.Errorf("%d requests were run again, more than the %d in flight", again, most)
			}

			if left, _ := filepath.Glob(filepath.Join(c.state, "*-*")); len(left) > 0 {
				t.Errorf("the state of a complete run is still there: %v", left)
			}
		})
	}
}

func exited(out *lockedBuffer) bool { return strings.Contains(out.String(), "done:") }

// killAfter starts a run and kills it once that many answers came.
func (c command) killAfter(m *model, answers int64, args ...string) {
	c.t.Helper()

	cmd, out := c.start(args...)
	goal := m.sim.Succeeded() + answers
	poll(c.t, patience, "answers", func() bool { return m.sim.Succeeded() >= goal })
	cmd.Process.Kill()
	cmd.Wait()
	if exited(out) {
		c.t.Fatalf("the run was done before it was killed:\n%s", out)
	}
}

// The input and the output are the truth: with the bus's store gone, the same command
// runs only the requests without a line.
func TestStoreDeletedWhileDown(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 5000)
	args := []string{"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--flush", "100ms", "--progress", "none"}
	c.killAfter(m, 2000, args...)
	if err := os.RemoveAll(c.state); err != nil {
		t.Fatal(err)
	}

	cmd, out := c.start(args...)
	if code := waitExit(t, cmd, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	if !strings.Contains(out.String(), "the bus's store is gone") {
		t.Errorf("the lost store was not reported:\n%s", out)
	}

	c.proved(in)
	if again := m.sim.Succeeded() - 5000; again > 1000 {
		t.Errorf("%d requests were run again: more than were not in the file yet", again)
	}
}

// A run whose process was killed continues at once where its output has another name now, as
// in a container that has another host name.
func TestKilledRunUnderAnotherName(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 2000)
	must(t, os.Symlink(".", filepath.Join(c.dir, "way")))
	args := []string{"run", in, "--url", m.url, "--flush", "100ms", "--progress", "none", "-o"}
	c.killAfter(m, 500, append(args, "way/out.jsonl.zst")...)
	c.expect(exit.CodeOK, "done: 2,000 answered", append(args, "out.jsonl.zst")...)
	c.proved(in)
}

// A store that is deleted under a running bus ends the run with a clear word, and the
// same command completes it.
func TestStoreDeletedWhileRunning(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 8000)
	args := []string{
		"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--flush", "100ms", "--progress", "none", "--grace", "1s",
	}

	cmd, out := c.start(args...)
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 1000 })

	if err := os.RemoveAll(c.state); err != nil {
		t.Fatal(err)
	}

	if code := waitExit(t, cmd, out, patience); code != exit.CodeUnreachable ||
		!strings.Contains(out.String(), "the bus cannot write its store") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	if text, code := c.run(args...); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	c.proved(in)
}

// proved fails the test unless the output holds each request exactly once.
func (c command) proved(in string) {
	c.t.Helper()
	if text, code := c.run("verify", in, "out.jsonl.zst"); code != exit.CodeOK {
		c.t.Fatalf("verify: exit code %d:\n%s", code, text)
	}
}

// The first signal finishes the requests in flight, reports that, and exits with 130.
func TestInterrupted(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 50 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 5000)
	args := []string{"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--progress", "none"}
	cmd, out := c.start(args...)
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 500 })
	cmd.Process.Signal(syscall.SIGTERM)
	if code := waitExit(t, cmd, out, patience); code != exit.CodeInterrupted {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	for _, want := range []string{
		"stopping: finishing the requests in flight", "interrupted", "run the same command again",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing output %q:\n%s", want, out)
		}
	}

	if text, code := c.run(args...); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	c.proved(in)
	if again := m.sim.Succeeded() - 5000; again != 0 {
		t.Errorf("%d requests were run again after a clean stop", again)
	}
}

// The second signal ends the process at once. It reports the safe results, and the next
// start counts the same.
func TestInterruptedTwice(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 20 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 5000)
	args := []string{
		"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--progress", "plain", "--concurrency", "32", "--flush", "1h",
	}

	cmd, out := c.start(args...)
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 500 })
	m.sim.Hang(true) // so that the first stop takes its time

	stop := syscall.SIGHUP
	if signal.Ignored(stop) { // under nohup it is, and the process respects that
		stop = syscall.SIGTERM
	}

	cmd.Process.Signal(stop)
	poll(t, patience, "the stop", func() bool { return strings.Contains(out.String(), "stopping: ") })
	cmd.Process.Signal(stop)

	if code := waitExit(t, cmd, out, 20*time.Second); code != exit.CodeInterrupted {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	safe := regexp.MustCompile(
		`error: stopped: 0 of 5,000 requests have their line, (\d+) more are on the bus\n` +
			`promptmill: hint: run the same command again to continue from there\n$`,
	).FindStringSubmatch(out.String())
	if safe == nil {
		t.Fatalf("it does not report the safe results:\n%s", out)
	}

	answered := int(m.sim.Succeeded()) // some of them are on their way to the bus when the process ends
	cmd, out = c.start(args...)
	poll(t, patience, "the resume", func() bool { return strings.Contains(out.String(), " on the bus\n") })
	cmd.Process.Kill()
	cmd.Wait()
	said, _ := strconv.Atoi(safe[1])
	counted := regexp.MustCompile(`resuming run .*: 0 of 5,000 requests have their line, (\d+) more are on the bus\n`).
		FindStringSubmatch(out.String())
	if n, _ := strconv.Atoi(counted[1]); said < 400 || n < said || n > answered {
		t.Errorf("of %d answers, the killed command reported %d on the bus, the next %d:\n%s", answered, said, n, out)
	}
}

// A signal ends the reading of an input at once: of standard input, and of a command that
// has nothing to bring to an end.
func TestInterruptedWhileReading(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		args   []string
		signal syscall.Signal
	}{
		{"run", []string{"run", "-", "--sim", "-o", "out.jsonl.zst"}, syscall.SIGTERM},
		{"verify", []string{"verify", "pipe", "done.jsonl.zst"}, syscall.SIGINT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			pipe := filepath.Join(c.dir, "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}

			if err := os.WriteFile(filepath.Join(c.dir, "done.jsonl.zst"), nil, 0o600); err != nil {
				t.Fatal(err)
			}

			cmd := c.prepare(tt.args...)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer write.Close()

			cmd.Stdin = read
			cmd, out := c.launch(nil, cmd)
			read.Close()

			if tt.name == "verify" {
				if write, err = os.OpenFile(pipe, os.O_WRONLY, 0); err != nil { // it has begun to read
					t.Fatal(err)
				}
				defer write.Close()
			} else {
				poll(t, patience, "the copy of standard input", func() bool {
					copies, _ := filepath.Glob(filepath.Join(c.state, "*", "input*"))
					return len(copies) > 0
				})
			}

			cmd.Process.Signal(tt.signal)
			if code := waitExit(t, cmd, out, pollTime); code != exit.CodeInterrupted {
				t.Errorf("exit code %d:\n%s", code, out)
			}
		})
	}
}

// A command that was started with nohup continues when its terminal is closed.
func TestHangupIgnored(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 50 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 1000)
	run := c.prepare("run", in, "--url", m.url, "-o", "out.jsonl.zst", "--progress", "none")
	nohup := exec.Command("nohup", append([]string{run.Path}, run.Args[1:]...)...)
	nohup.Dir, nohup.Env = run.Dir, run.Env
	cmd, out := c.launch(nil, nohup)
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 10 })
	cmd.Process.Signal(syscall.SIGHUP)
	if code := waitExit(t, cmd, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	c.proved(in)
}

// A second process for the same output is refused, and the first is not disturbed.
func TestSecondProcessRefused(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 50 * time.Millisecond, Tokens: 10})
	in := c.input("in.jsonl", 2000)
	args := []string{"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--progress", "none"}
	first, out := c.start(args...)
	poll(t, patience, "answers", func() bool { return m.sim.Succeeded() > 10 })

	second, said := c.start(args...)
	if code := waitExit(t, second, said, patience); code != exit.CodeError || !strings.Contains(said.String(),
		fmt.Sprintf("another promptmill is working on this output: locked by process %d\n", first.Process.Pid)) {
		t.Errorf("exit code %d:\n%s", code, said)
	}

	elsewhere := c
	elsewhere.state = filepath.Join(c.dir, "other-state")

	third, said := elsewhere.start(args...)
	if code := waitExit(t, third, said, patience); code != exit.CodeError ||
		!strings.Contains(said.String(), "another promptmill is writing this output") {
		t.Errorf("exit code %d:\n%s", code, said)
	}

	if code := waitExit(t, first, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	c.proved(in)
}

// The workers of a killed process do not count in the progress of the next one.
func TestKilledWorkersAreGone(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 200 * time.Millisecond, Tokens: 10})
	args := []string{
		"run", c.input("in.jsonl", 5000), "--url", m.url, "-o", "out.jsonl.zst", "--progress", "json",
		"--concurrency", "16",
	}

	cmd, out := c.start(args...)
	poll(t, patience, "an announcement", func() bool {
		return strings.Contains(out.String(), `"workers":1,`) && m.sim.Succeeded() > 50
	})
	cmd.Process.Kill()
	cmd.Wait()

	cmd, out = c.start(args...)
	poll(t, patience, "samples", func() bool { return strings.Count(out.String(), `"type":"progress"`) > 3 })
	cmd.Process.Kill()
	cmd.Wait()

	if text := out.String(); strings.Count(text, `"workers":1,`) != strings.Count(text, `"workers":`) {
		t.Errorf("the worker of the killed process counts:\n%s", text)
	}
}
