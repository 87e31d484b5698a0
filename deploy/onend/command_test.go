package onend

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nightly is the event of a run.
func nightly() webhook.Event {
	at := time.Unix(1_795_000_000, 0)

	return webhook.NewRunEvent(proto.Manifest{
		Run:       "nightly",
		Label:     "the label; true",
		State:     proto.StateCompleted,
		CreatedAt: at,
		EndedAt:   &at,
		Output:    "head:/data/nightly",
		Counts:    proto.Counts{Done: 5, Failed: 2},
	})
}

// runScript runs a script and returns the lines that it prints.
func runScript(t *testing.T, script string, e webhook.Event) (lines []string, err error) {
	t.Helper()
	c := Command{Script: script, Host: "head", Print: func(line string) { lines = append(lines, line) }}
	err = c.Run(t.Context(), e)
	return lines, err
}

// A command has the run in its environment and the event on standard input, and not itself: it
// may call promptmill.
func TestCommand(t *testing.T) {
	t.Setenv("PROMPTMILL_ON_END", "again and again")
	t.Setenv("PROMPTMILL_END_RUN", "another")
	t.Setenv("PROMPTMILL_JOIN", "kept")

	e := nightly()
	e.Run.Tables = []string{"head:/data/nightly.csv"}

	lines, err := runScript(t, "env | grep ^PROMPTMILL_ | grep -v ^PROMPTMILL_TEST_ | sort; cat; printf 'no newline'", e)
	if err != nil {
		t.Fatal(err)
	}

	want := []string{
		"PROMPTMILL_END_ANSWERED=3",
		"PROMPTMILL_END_BATCH=batch_nightly",
		"PROMPTMILL_END_FAILED=2",
		"PROMPTMILL_END_LABEL=the label; true",
		"PROMPTMILL_END_META=/data/nightly.meta.json",
		"PROMPTMILL_END_OUTPUT=/data/nightly.jsonl.zst",
		"PROMPTMILL_END_RUN=nightly",
		"PROMPTMILL_END_STATE=completed",
		"PROMPTMILL_END_TABLE=/data/nightly.csv",
		"PROMPTMILL_JOIN=kept",
		string(nightly().Body()),
		"no newline",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// A batch that was refused has no run. The files of a run on another machine are not here.
func TestCommandWithoutFiles(t *testing.T) {
	t.Parallel()

	refused := webhook.Event{Type: webhook.Failed, BatchID: "batch_x", At: time.Now()}
	elsewhere := nightly()
	elsewhere.Run.Output = "elsewhere:/data/nightly"

	for want, e := range map[string]webhook.Event{
		"[] [batch_x] [failed] [] [] [0]":                 refused,
		"[nightly] [batch_nightly] [completed] [] [] [3]": elsewhere,
	} {
		const script = `echo "[$PROMPTMILL_END_RUN] [$PROMPTMILL_END_BATCH] [$PROMPTMILL_END_STATE] ` +
			`[$PROMPTMILL_END_OUTPUT] [$PROMPTMILL_END_META] [$PROMPTMILL_END_ANSWERED]"`
		if lines, err := runScript(t, script, e); err != nil || len(lines) != 1 || lines[0] != want {
			t.Errorf("%q, %v, want %s", lines, err, want)
		}
	}
}

// A failure is in words, with the last line.
func TestFailures(t *testing.T) {
	t.Parallel()

	for script, want := range map[string]string{
		"true":                                 "",
		"exit 3":                               "exit status 3",
		"echo one; echo two >&2; echo; exit 4": "exit status 4: two",
		"kill -9 $$":                           "signal: killed",
		"sleep 3 >/dev/null 2>&1 & true":       "", // it leaves a process behind, on purpose
	} {
		_, err := runScript(t, script, nightly())
		got := ""
		if err != nil {
			got = err.Error()
		}

		if got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

// A command that takes too long, or is in the way of the end of promptmill, is stopped with all its
// processes.
func TestStop(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	trapped := "trap 'echo asked to end; exit 0' TERM; sleep 1000 & touch " + filepath.Join(dir, "begun") + "; wait"

	var lines []string
	c := Command{Script: trapped, Host: "head", Print: func(line string) { lines = append(lines, line) }}
	if err := c.runFor(t.Context(), nightly(), 200*time.Millisecond); err == nil ||
		err.Error() != "stopped: not done within 200ms" || len(lines) != 1 || lines[0] != "asked to end" {
		t.Errorf("%v, %q", err, lines)
	}

	os.Remove(filepath.Join(dir, "begun"))
	ctx, cancel := context.WithCancelCause(t.Context())
	errEnd := errors.New("the end")
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(dir, "begun")); err == nil {
				cancel(errEnd)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()

	if err := c.Run(ctx, nightly()); !errors.Is(err, errEnd) || err.Error() != "stopped: the end" {
		t.Errorf("%v", err)
	}
}

// As an endpoint, a command is another one with another script or another process.
func TestEndpoint(t *testing.T) {
	t.Parallel()

	c := Command{Script: "echo hello; exit $PROMPTMILL_END_FAILED", Host: "head"}
	e := c.Endpoint("p")
	if got := e.Send(t.Context(), nightly()); got != (webhook.Answer{Text: "exit status 2: hello"}) {
		t.Errorf("%+v", got)
	}

	event := nightly()
	event.Run.Failed = 0
	if got := e.Send(t.Context(), event); got != (webhook.Answer{Delivered: true, Text: "done"}) {
		t.Errorf("%+v", got)
	}

	other := Command{Script: "echo", Host: "head"}
	if e.ID == c.Endpoint("q").ID || e.ID == other.Endpoint("p").ID || e.ID != c.Endpoint("p").ID || !e.Command ||
		e.AtOnce != 1 || strings.Contains(e.Name, "echo") {
		t.Errorf("endpoint %+v", e)
	}
}
