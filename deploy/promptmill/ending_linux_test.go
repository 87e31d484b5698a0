package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// deathStep is a system call that a process does not live to see the end of.
type deathStep struct {
	name string
	call string // or several with commas
	path string // under the command's folder; the state folder of the output begins with @
	slow string // a file in the command's folder, each write to which takes 20 ms more; empty: none
}

const (
	renameCalls = "rename,renameat,renameat2"
	unlinkCalls = "unlink,unlinkat"
	endRun      = "ends" // the id of the run
)

// finalSteps are the steps from the last answer until the process ends.
var finalSteps = []deathStep{
	{name: "the journal is synced", call: "fsync", path: "out.part.zst"},
	{name: "results are begun", call: "openat", path: "out.jsonl.zst.tmp"},
	{name: "results are synced", call: "fsync", path: "out.jsonl.zst.tmp"},
	{name: "results get their name", call: renameCalls, path: "out.jsonl.zst.tmp"},
	{name: "metadata are begun", call: "openat", path: "out.meta.json.tmp"},
	{name: "metadata are synced", call: "fsync", path: "out.meta.json.tmp"},
	{name: "metadata get their name", call: renameCalls, path: "out.meta.json.tmp"},
	{name: "the report is begun", call: "openat", path: "out.report.md.tmp"},
	{name: "the report gets its name", call: renameCalls, path: "out.report.md.tmp"},
	{name: "the page gets its name", call: renameCalls, path: "out.report.html.tmp"},
	{name: "the history is synced", call: "fsync", path: "state/history.jsonl"},
	{name: "the journal is removed", call: unlinkCalls, path: "out.part.zst"},
	{
		name: "the work stream is deleted",
		call: renameCalls,
		path: "@/nats/jetstream/" + proto.OwnerAccount + "/streams/pm_" + endRun + "_work",
	},
	{name: "the bus's file is removed", call: unlinkCalls, path: "@/bus.json"},
	{name: "the state is removed", call: unlinkCalls, path: "@"},
	{name: "the store is removed", call: unlinkCalls, path: "@/nats"},
	{name: "the state folder is removed", call: unlinkCalls, path: "state"},
}

// firstSteps are the steps of a run until requests are sent, and of failures at its end.
var firstSteps = []deathStep{
	{name: "the state folder is made", call: "mkdir,mkdirat", path: "@"},
	{name: "the state is locked", call: "flock", path: "@/lock"},
	{name: "the output is tried", call: unlinkCalls, path: "out.errors.jsonl.zst.try"},
	{name: "the journal is begun", call: "openat", path: "out.part.zst"},
	{name: "the store is made", call: "mkdir,mkdirat", path: "@/nats/jetstream"},
	{name: "failures are synced", call: "fsync", path: "out.errors.jsonl.zst.tmp"},
	{name: "failures get their name", call: renameCalls, path: "out.errors.jsonl.zst.tmp"},
}

// retrySteps are the steps of --retry until requests are sent, and its last step on failures.
var retrySteps = []deathStep{
	{name: "the new journal is begun", call: "openat", path: "out.part.zst.new"},
	{name: "the new journal is synced", call: "fsync", path: "out.part.zst.new"},
	{name: "the new journal gets its name", call: renameCalls, path: "out.part.zst.new"},
	{name: "the failures of before are removed", call: unlinkCalls, path: "out.errors.jsonl.zst"},
}

// diesAt runs the command until the step and kills it there, before the step is done. It
// reports whether the step was reached.
func (c command) diesAt(step deathStep, args ...string) bool {
	c.t.Helper()

	status, out := c.signalAt(step, "KILL", args...)
	if status.Signaled() && status.Signal() == syscall.SIGKILL {
		return true
	}

	c.t.Logf("%s: not reached, exit code %d:\n%s", step.name, status.ExitStatus(), out)

	return false
}

// signalAt runs the command, which gets a signal at the step, and returns how it ended and what it
// printed.
func (c command) signalAt(step deathStep, signal string, args ...string) (syscall.WaitStatus, string) {
	c.t.Helper()

	program, err := exec.LookPath("promptmill")
	if err != nil {
		c.t.Fatal(err)
	}

	path := filepath.Join(c.dir, step.path)
	if rest, ok := strings.CutPrefix(step.path, "@"); ok {
		path = statedir.ForOutput(c.state, filepath.Join(c.dir, "out")) + rest
	}

	traced := step.call
	trace := []string{
		"-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "inject=" + step.call + ":signal=" + signal,
	}
	if step.slow != "" {
		traced += ",write"
		trace = append(trace, "-P", filepath.Join(c.dir, step.slow), "-e", "inject=write:delay_enter=20000")
	}

	trace = append(trace, "-e", "trace="+traced, program)
	cmd := exec.Command("strace", append(trace, args...)...)
	_, out := c.launch(nil, cmd)
	waitExit(c.t, cmd, out, patience)

	return cmd.ProcessState.Sys().(syscall.WaitStatus), out.String()
}

// checkLeft fails the test if anything else than the files of a complete run is there.
func (c command) checkLeft(failures bool) {
	c.t.Helper()

	want := []string{
		"in.jsonl", "out.jsonl.zst", "out.meta.json", "out.report.html", "out.report.md", "state",
		"state/history.jsonl", "state/identity.pem",
	}
	if failures {
		want = append(want, "out.errors.jsonl.zst")
	}

	slices.Sort(want)
	got := c.left()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		c.t.Errorf("files left (-want +got):\n%s", diff)
	}
}

func needStrace(t *testing.T) {
	t.Helper()
	if err := exec.Command("strace", "-qq", "-o", "/dev/null", "true").Run(); err != nil {
		t.Skipf("strace, which kills a process at a certain step, does not work here: %v", err)
	}
}

// Wherever a run dies on its way through its files and its bus, the same command brings
// it to a whole output and leaves nothing else, and so does --retry after that.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()

	needStrace(t)
	faulty := []string{
		"run", "in.jsonl", "-o", "out.jsonl.zst", "--run", endRun, "--sim", "--sim-ttft", "1ms", "--sim-tpot", "0s",
		"--sim-faults", "context=0.5", "--flush", "100ms", "--progress", "none",
	}

	good := slices.DeleteFunc(slices.Clone(faulty), func(arg string) bool {
		return arg == "--sim-faults" || arg == "context=0.5"
	})

	retry := append(slices.Clone(good), "--retry")

	t.Run("run", func(t *testing.T) {
		for i, step := range slices.Concat(firstSteps, finalSteps) {
			if testing.Short() && i%3 > 0 {
				continue
			}

			t.Run(step.name, func(t *testing.T) {
				c := newCommand(t)
				c.input("in.jsonl", 40)
				if !c.diesAt(step, faulty...) {
					t.Fatal("the step was not reached")
				}

				c.expect(exit.CodeFailed, "", faulty...)
				c.proved("in.jsonl")
				c.checkLeft(true)
				c.expect(exit.CodeFailed, "complete already", faulty...)
				c.expect(exit.CodeOK, "done: 40 answered, 0 failed", retry...)
				c.proved("in.jsonl")
				c.checkLeft(false)
			})
		}
	})

	t.Run("retry", func(t *testing.T) {
		for i, step := range slices.Concat(retrySteps, finalSteps) {
			if testing.Short() && i%3 > 0 {
				continue
			}

			t.Run(step.name, func(t *testing.T) {
				c := newCommand(t)
				c.input("in.jsonl", 40)
				c.expect(exit.CodeFailed, "", faulty...)
				if !c.diesAt(step, retry...) {
					t.Fatal("the step was not reached")
				}

				c.expect(exit.CodeOK, "40 answered, 0 failed", retry...)
				c.proved("in.jsonl")
				c.checkLeft(false)
				c.expect(exit.CodeOK, "complete already", retry...)
			})
		}
	})

	t.Run("retry, then run", func(t *testing.T) {
		for _, step := range slices.Concat(retrySteps[:2], finalSteps[len(finalSteps)-4:]) {
			t.Run(step.name, func(t *testing.T) {
				c := newCommand(t)
				c.input("in.jsonl", 40)
				c.expect(exit.CodeFailed, "", faulty...)
				if !c.diesAt(step, retry...) {
					t.Fatal("the step was not reached")
				}

				// A step that was not begun has changed nothing; a step that was done stays done.
				_, code := c.run(good...)
				c.proved("in.jsonl")
				c.checkLeft(code == exit.CodeFailed)
			})
		}
	})
}

// A bus of others hears of the end of a run whose process died between its files and the
// bus, once the same command comes again, and keeps nothing that belongs to others.
func TestEndOnOthersBus(t *testing.T) {
	t.Parallel()

	needStrace(t)
	c := newCommand(t)
	_, url := startNATS(t)
	m := newModel(t, sim.Config{Tokens: 5})
	in := c.input("in.jsonl", 40)
	args := []string{
		"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--run", endRun, "--nats", url, "--progress", "none",
	}
	if !c.diesAt(deathStep{name: "the state is removed", call: unlinkCalls, path: "@"}, args...) {
		t.Fatal("the step was not reached")
	}

	js := openJetStream(t, url)
	runs := openRuns(t, js)
	// As if it had died before it said so.
	var ended proto.Manifest
	change := func(change func(*proto.Manifest)) {
		err := runs.Update(t.Context(), endRun, func(m *proto.Manifest) error {
			ended = *m
			change(m)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	change(func(m *proto.Manifest) { m.State, m.EndedAt = proto.StateFinalizing, nil })
	if err := bus.EnsureStreams(t.Context(), js, ended, bus.Limits{
		WorkBytes:    1 << 20,
		ResultsBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}

	c.expect(exit.CodeOK, "complete already", args...)

	got, err := runs.Get(t.Context(), endRun)
	if err != nil {
		t.Fatal(err)
	}

	if got.State != proto.StateCompleted || got.EndedAt == nil || got.Counts.Done != 40 {
		t.Errorf("the bus has it as %s, ended %v, %d done", got.State, got.EndedAt, got.Counts.Done)
	}

	if _, err := js.Stream(t.Context(), proto.WorkStream(endRun)); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the work stream is there: %v", err)
	}

	// A run of that name that came later is not touched.
	change(func(m *proto.Manifest) { m.State, m.CreatedAt = proto.StateInProgress, m.CreatedAt.AddDate(0, 0, 1) })
	if err := os.MkdirAll(statedir.ForOutput(c.state, filepath.Join(c.dir, "out")), 0o700); err != nil {
		t.Fatal(err)
	}

	c.expect(exit.CodeOK, "complete already", args...)
	if got, err := runs.Get(t.Context(), endRun); err != nil || got.State != proto.StateInProgress {
		t.Errorf("another run of that name is %s (%v)", got.State, err)
	}
}

func openJetStream(t *testing.T, url string) jetstream.JetStream {
	t.Helper()

	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(nc.Close)

	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}

	return js
}

func openRuns(t *testing.T, js jetstream.JetStream) *bus.RunStore {
	t.Helper()

	opened, err := bus.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}

	runs := opened.Runs

	return runs
}

// Wherever serve, or collect, dies over the files of a run, the next one makes them whole,
// the report with them, and the bus hears of the end.
func TestCollectorKilledAtEachStep(t *testing.T) {
	t.Parallel()

	needStrace(t)
	m := newModel(t, sim.Config{Tokens: 5})

	steps := slices.DeleteFunc(slices.Clone(finalSteps), func(s deathStep) bool {
		return strings.Contains(s.path, "@") || s.path == "state"
	})
	for i, step := range append(steps, deathStep{name: "the copy of the input is removed"}) {
		if testing.Short() && i%4 > 0 {
			continue
		}

		for _, by := range []string{"serve", "collect"} {
			t.Run(by+": "+step.name, func(t *testing.T) {
				t.Parallel()

				_, url := startNATS(t)
				js := openJetStream(t, url)
				must(t, bus.CreateBuckets(t.Context(), js, bus.Limits{}))

				c := newCommand(t)
				in := c.input("in.jsonl", 40)
				// It waits some seconds for a collector: not here, but beside the collector.
				submit, said := c.start("submit", in, "--model", "sim", "--run", "out", "--nats", url)
				c.start("worker", "--url", m.url, "--nats", url)

				args := []string{"serve", "--dir", ".", "--nats", url, "--flush", "100ms"}
				if by == "collect" {
					args = []string{"collect", "out", "--nats", url, "--flush", "100ms", "--progress", "none"}
				}

				runs := openRuns(t, js)
				poll(t, patience, "the run", func() bool {
					m, err := runs.Get(t.Context(), "out")
					return err == nil && m.State == proto.StateInProgress
				})

				inputs := filepath.Join(c.state, "serve", "runs-elsewhere", "out")
				if step.call != "" {
					if !c.diesAt(step, args...) {
						t.Fatal("the step was not reached")
					}
				} else {
					// It died after it had removed the journal, and before it said so.
					c.must("collect", "out", "--nats", url, "--progress", "none")
					must(t, runs.Update(t.Context(), "out", func(m *proto.Manifest) error {
						m.State, m.EndedAt = proto.StateFinalizing, nil
						return nil
					}))

					must(t, os.MkdirAll(inputs, 0o700))
					must(t, os.WriteFile(filepath.Join(inputs, "input-0"), nil, 0o600))
				}

				next, _ := c.start(args...)
				poll(t, patience, "the end", func() bool {
					m, err := runs.Get(t.Context(), "out")
					return err == nil && m.State == proto.StateCompleted
				})

				if by == "collect" {
					next.Wait()
					inputs = statedir.ForOutput(c.state, filepath.Join(c.dir, "out"))
				}

				poll(t, patience, "the end of the copy of the input", func() bool {
					return !files.Exists(inputs) || by == "collect" && step.call == ""
				})

				if code := waitExit(t, submit, said, patience); code != exit.CodeOK {
					t.Errorf("submit: exit code %d:\n%s", code, said)
				}

				c.proved(in)
				got := slices.DeleteFunc(c.left(), func(name string) bool { return strings.HasPrefix(name, "state") })
				want := []string{"in.jsonl", "out.jsonl.zst", "out.meta.json", "out.report.html", "out.report.md"}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("files left (-want +got):\n%s", diff)
				}

				killHard(next)
				c.must("delete", "out", "--nats", url)

				for _, stream := range []string{proto.WorkStream("out"), proto.ResultsStream("out")} {
					if _, err := js.Stream(t.Context(), stream); !errors.Is(err, jetstream.ErrStreamNotFound) {
						t.Errorf("%s is there (%v)", stream, err)
					}
				}
			})
		}
	}
}

// A deletion that was cut short leaves streams. Serve removes the streams of deleted runs,
// and so does the same command; a run with a manifest, or that was never deleted, stays.
func TestDeletionCutShort(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, url := startNATS(t)
	l, err := busconn.Dial(url, zerolog.Nop())
	must(t, err)
	defer l.Close()

	must(t, bus.CreateBuckets(t.Context(), l.JS, bus.Limits{}))
	runs := openRuns(t, l.JS)
	limits := bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 1 << 20}
	add := func(run string) {
		m := proto.Manifest{Schema: proto.ManifestSchema, Run: run, State: proto.StateCompleted}
		must(t, runs.Create(t.Context(), m))
		must(t, bus.EnsureStreams(t.Context(), l.JS, m, limits))
	}
	for _, run := range []string{"deleted", "again", "there", "asked"} {
		add(run)
	}

	for _, run := range []string{"deleted", "again", "asked"} { // and no more than that
		must(t, runs.Delete(t.Context(), run))
	}

	must(t, runs.Create(t.Context(), proto.Manifest{
		Schema: proto.ManifestSchema,
		Run:    "again",
		State:  proto.StateCompleted,
	}))

	must(t, bus.EnsureStreams(t.Context(), l.JS, proto.Manifest{Run: "lost"}, limits))
	left := func() (names []string) {
		for name := range l.JS.StreamNames(t.Context()).Name() {
			if run, ok := strings.CutSuffix(name, "_results"); ok {
				names = append(names, strings.TrimPrefix(run, "pm_"))
			}
		}
		slices.Sort(names)
		return names
	}

	c.expect(exit.CodeOK, "run asked is deleted", "delete", "asked", "--nats", url)
	c.expect(exit.CodeUsage, "there is no run asked", "delete", "asked", "--nats", url)

	if diff := cmp.Diff([]string{"again", "deleted", "lost", "there"}, left()); diff != "" {
		t.Errorf("after the command (-want +got):\n%s", diff)
	}

	must(t, pipeline.SweepDeleted(t.Context(), l.JS, runs, time.Hour, pipeline.Hooks{}))

	if diff := cmp.Diff([]string{"again", "deleted", "lost", "there"}, left()); diff != "" {
		t.Errorf("young streams (-want +got):\n%s", diff)
	}

	must(t, pipeline.SweepDeleted(t.Context(), l.JS, runs, 0, pipeline.Hooks{}))
	if diff := cmp.Diff([]string{"again", "lost", "there"}, left()); diff != "" {
		t.Errorf("after the sweep (-want +got):\n%s", diff)
	}

	// The manifest of an ended run goes last: a sweep that dies is resumed.
	m, err := runs.Get(t.Context(), "there")
	must(t, err)
	must(t, bus.DeleteStreams(t.Context(), l.JS, "there"))
	must(t, pipeline.DeleteRun(t.Context(), l.JS, runs, m))
	if _, err := runs.Get(t.Context(), "there"); !errors.Is(err, proto.ErrNoRun) {
		t.Errorf("the manifest: %v, want ErrNoRun", err)
	}
}

// Standard input is not left on the disk by a submit that was killed.
func TestSubmitLeavesNoInput(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, url := startNATS(t)
	in := c.input("in.jsonl", 3)
	copies := func() []string {
		list, err := filepath.Glob(filepath.Join(c.state, "submit-*"))
		must(t, err)
		return list
	}

	open := c.prepare("submit", "-", "--model", "sim", "--nats", url)
	_, err := open.StdinPipe() // nothing comes
	must(t, err)
	must(t, open.Start())
	poll(t, patience, "the copy", func() bool { return len(copies()) == 1 })

	whole := c.prepare("submit", "-", "--model", "sim", "--nats", url)
	file, err := os.Open(filepath.Join(c.dir, in))
	must(t, err)
	defer file.Close()

	whole.Stdin = file
	must(t, whole.Run())

	if got := copies(); len(got) != 1 {
		t.Errorf("copies %v: want that of the living one", got)
	}

	killHard(open)

	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}

	whole = c.prepare("submit", "-", "--model", "sim", "--nats", url)
	whole.Stdin = file
	must(t, whole.Run())

	if got := copies(); len(got) != 0 {
		t.Errorf("copies %v are left", got)
	}
}

// An error after the output is complete is a warning: an operator may have deleted the
// bucket of manifests.
func TestTidyingFails(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, url := startNATS(t)
	m := newModel(t, sim.Config{Tokens: 5})
	in := c.input("in.jsonl", 400)
	m.sim.Hang(true)
	args := []string{"run", in, "--url", m.url, "-o", "out.jsonl.zst", "--nats", url, "--progress", "none"}
	cmd, out := c.start(args...)
	js := openJetStream(t, url)
	poll(t, patience, "requests besides the questions about the server", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()

		return m.now > 1
	})
	if err := js.DeleteKeyValue(context.Background(), proto.RunsBucket); err != nil {
		t.Fatal(err)
	}

	m.sim.Hang(false)
	if code := waitExit(t, cmd, out, patience); code != exit.CodeOK ||
		!strings.Contains(out.String(), "WRN failed to") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	c.proved(in)

	want := []string{
		"in.jsonl", "out.jsonl.zst", "out.meta.json", "out.report.html", "out.report.md", "state",
		"state/history.jsonl",
	}
	if diff := cmp.Diff(want, c.left()); diff != "" {
		t.Errorf("files left (-want +got):\n%s", diff)
	}

	c.expect(exit.CodeOK, "complete already", args...)
}
