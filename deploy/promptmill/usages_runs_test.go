package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// serveRuns starts a bus with a run in each state, and returns the state folder. No process
// collects the runs.
func serveRuns(t *testing.T) string {
	t.Helper()

	c := newCommand(t)
	c.serve()

	id, err := localbus.LoadIdentity(c.state)
	must(t, err)
	l, err := busconn.Join(id.Join(proto.RoleCollector, []string{localbus.List(c.state)[0].LocalAddress()}),
		zerolog.Nop())
	must(t, err)
	defer l.Close()

	runs := bus.New(l.JS).Runs
	for i, state := range []proto.State{
		proto.StateValidating, proto.StateInProgress, proto.StatePaused, proto.StateFinalizing, proto.StateCompleted,
		proto.StateCancelling, proto.StateCancelled, proto.StateExpired, proto.StateFailed,
	} {
		began := time.Now().Add(time.Duration(i-60) * time.Minute)
		m := proto.Manifest{
			Schema:    proto.ManifestSchema,
			Run:       "run-" + strings.ReplaceAll(string(state), "_", "-"),
			State:     state,
			CreatedAt: began,
			Policy:    proto.RunPolicy{KeepSeconds: 86400, Attended: true},
			Input: proto.Input{
				Files:    []proto.File{{Path: "/in/tickets.jsonl"}},
				SHA256:   "0123456789abcdef",
				Requests: 3,
				Models:   map[string]int{"sim": 3},
			},
		}

		switch state {
		case proto.StateInProgress, proto.StatePaused:
			m.Label = "every night"
		case proto.StateCompleted:
			m.Label = "Weekly summary"
		case proto.StateCancelled, proto.StateExpired:
			m.Counts = proto.Counts{Done: 3, Failed: 2}
		case proto.StateFailed:
			m.Problem = "out.jsonl.zst is of another run"
		}

		if state == proto.StateExpired {
			m.Output = "box:/out/run-expired"
		}

		if state.Ended() {
			m.EndedAt = new(began.Add(time.Minute))
		}

		must(t, runs.Create(t.Context(), m))
	}

	future, err := json.Marshal(map[string]any{"schema": 99, "run": "future", "state": "completed"})
	must(t, err)
	_, err = l.JS.Publish(t.Context(), fmt.Sprintf("$KV.%s.future", proto.RunsBucket), future)
	must(t, err)

	return c.state
}

func TestUsageOfRuns(t *testing.T) {
	t.Parallel()

	state := serveRuns(t)
	usages := []usage{
		{
			args: "status nosuch",
			err:  "there is no run nosuch on this bus",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "status batch_nosuch",
			err:  "there is no run nosuch on this bus",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "pause batch_run-validating",
			err:  "run run-validating is validating and cannot be paused",
			hint: "wait until promptmill submit has put it on the bus",
			code: 1,
		},
		{
			args: "resume batch_run-completed",
			err:  "run run-completed (Weekly summary) is completed and cannot be resumed",
			hint: "promptmill status run-completed shows where its results are",
			code: 1,
		},
		{
			args: "cancel batch_run-completed",
			err:  "run run-completed (Weekly summary) is completed and cannot be cancelled",
			hint: "promptmill status run-completed shows where its results are",
			code: 1,
		},
		{
			args: "retry batch_run-in-progress",
			err:  "run run-in-progress (every night) is running and cannot be retried",
			hint: "only an ended run can: promptmill status run-in-progress --watch shows when it has ended",
			code: 1,
		},
		{
			args: "delete batch_run-in-progress",
			err:  "run run-in-progress (every night) is running",
			hint: "promptmill cancel run-in-progress ends it and keeps its results; promptmill delete " +
				"--force run-in-progress drops the results that are not in its files",
			code: 1,
		},
		{
			args: "report batch_run-in-progress",
			err:  "run run-in-progress (every night) is running, and has its metadata when it has ended",
			hint: "promptmill status run-in-progress --watch shows when it has ended",
			code: 2,
		},
		{
			args: "status nosuch --watch",
			err:  "there is no run nosuch on this bus",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "status run-fialed",
			err:  "there is no run run-fialed on this bus",
			hint: "did you mean run-failed? promptmill list shows the runs",
			code: 2,
		},
		{
			args: "tail weekly",
			err:  "there is no run weekly on this bus",
			hint: "did you mean 'Weekly summary'? promptmill list shows the runs",
			code: 2,
		},
		{
			args: "tail run-completed --as a.b",
			err:  `--as "a.b": only letters, digits, '-' and '_' are allowed`,
			code: 2,
		},
		{
			args: "status future",
			err: "run future: another version of promptmill made the run (schema 99, this version reads 3 " +
				"to 5); finish or delete it with that version",
			code: 1,
		},
		{
			args: "collect run-c",
			err: "3 runs have run-c in their ids:\n" +
				"  run-completed, Weekly summary, tickets.jsonl, completed, begun AGE ago\n" +
				"  run-cancelling, tickets.jsonl, cancelling, begun AGE ago\n" +
				"  run-cancelled, tickets.jsonl, cancelled, begun AGE ago",
			hint: "write more of the id",
			code: 2,
		},
		{
			args: "collect run-expired",
			err:  "run run-expired is expired, and the bus no longer has all of its results",
			hint: "its answers are in box:/out/run-expired.jsonl.zst",
			code: 1,
		},
		{
			args: "collect run-cancelled -o copy.jsonl.zst",
			err:  "run run-cancelled is cancelled, and the bus no longer has all of its results",
			hint: "promptmill tail run-cancelled prints the results that are left",
			code: 1,
		},
		{
			args: "collect run-failed",
			err:  "run run-failed is refused by its collector: out.jsonl.zst is of another run",
			hint: "promptmill delete run-failed, then submit it again with another --run, or with this one once the " +
				"files are moved away",
			code: 1,
		},
		{
			args: "cancel ng",
			err: "ng is too short a part of an id:\n" +
				"  run-validating, tickets.jsonl, validating, begun AGE ago\n" +
				"  run-finalizing, tickets.jsonl, finalizing, begun AGE ago\n" +
				"  run-cancelling, tickets.jsonl, cancelling, begun AGE ago",
			hint: "write 4 characters or more of its beginning or its end",
			code: 2,
		},
		{
			args: "status run",
			err: "run is too short a part of an id:\n" +
				"  run-validating, tickets.jsonl, validating, begun AGE ago\n" +
				"  run-in-progress, every night, tickets.jsonl, in_progress, begun AGE ago\n" +
				"  run-paused, every night, tickets.jsonl, paused, begun AGE ago\n" +
				"  run-finalizing, tickets.jsonl, finalizing, begun AGE ago\n" +
				"  run-completed, Weekly summary, tickets.jsonl, completed, begun AGE ago\n" +
				"  and 4 more",
			hint: "write 4 characters or more of its beginning or its end",
			code: 2,
		},
		{
			args: "collect nosuch",
			err:  "there is no run nosuch on this bus",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "pause nosuch",
			err:  "there is no run nosuch on this bus",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "pause run-validating",
			err:  "run run-validating is validating and cannot be paused",
			hint: "wait until promptmill submit has put it on the bus",
			code: 1,
		},
		{
			args: "pause run-finalizing",
			err: "run run-finalizing is finalizing and cannot be paused: all its requests have ended, and " +
				"its files are being written",
			code: 1,
		},
		{
			args: "pause run-completed",
			err:  "run run-completed (Weekly summary) is completed and cannot be paused",
			hint: "promptmill status run-completed shows where its results are",
			code: 1,
		},
		{
			args: "pause run-cancelling",
			err:  "run run-cancelling is cancelling and cannot be paused",
			hint: "promptmill cancel run-cancelling waits until it is cancelled",
			code: 1,
		},
		{
			args: "pause run-failed",
			err:  "run run-failed was refused and cannot be paused: out.jsonl.zst is of another run",
			hint: "promptmill delete run-failed, then submit it again with another --run, or with this one " +
				"once the files are moved away",
			code: 1,
		},
		{
			args: "resume run-completed",
			err:  "run run-completed (Weekly summary) is completed and cannot be resumed",
			hint: "promptmill status run-completed shows where its results are",
			code: 1,
		},
		{
			args: "resume run-cancelled",
			err:  "run run-cancelled is cancelled and cannot be resumed",
			hint: "promptmill retry run-cancelled runs its 2 failed requests again",
			code: 1,
		},
		{
			args: "cancel run-completed",
			err:  "run run-completed (Weekly summary) is completed and cannot be cancelled",
			hint: "promptmill status run-completed shows where its results are",
			code: 1,
		},
		{
			args: "cancel run-expired",
			err:  "run run-expired is expired and cannot be cancelled",
			hint: "promptmill retry run-expired runs its 2 failed requests again",
			code: 1,
		},
		{
			args: "cancel run-finalizing",
			err: "run run-finalizing is finalizing and cannot be cancelled: all its requests have ended, " +
				"and its files are being written",
			code: 1,
		},
		{
			args: "retry run-in-progress",
			err:  "run run-in-progress (every night) is running and cannot be retried",
			hint: "only an ended run can: promptmill status run-in-progress --watch shows when it has ended",
			code: 1,
		},
		{
			args: "retry run-completed",
			err: "run run-completed (Weekly summary) is completed, and none of its requests failed: there " +
				"is nothing to run again",
			code: 1,
		},
		{
			args: "retry run-failed",
			err:  "run run-failed was refused and cannot be retried: out.jsonl.zst is of another run",
			hint: "promptmill delete run-failed, then submit it again with another --run, or with this one " +
				"once the files are moved away",
			code: 1,
		},
		{
			args: "retry run-cancelling",
			err:  "run run-cancelling is cancelling and cannot be retried",
			hint: "promptmill cancel run-cancelling waits until it is cancelled",
			code: 1,
		},
		{
			args: "delete run-in-progress",
			err:  "run run-in-progress (every night) is running",
			hint: "promptmill cancel run-in-progress ends it and keeps its results; promptmill delete " +
				"--force run-in-progress drops the results that are not in its files",
			code: 1,
		},
		{
			args: "delete run-validating",
			err:  "run run-validating is validating",
			hint: "promptmill delete --force run-validating deletes the parts of it that its submit has " +
				"stored",
			code: 1,
		},
		{
			args: "delete run-finalizing",
			err:  "run run-finalizing is finalizing",
			hint: "no process collects it, so it cannot end: the same promptmill run command continues it; " +
				"or promptmill delete --force run-finalizing",
			code: 1,
		},
		{
			args: "delete run-cancelling",
			err:  "run run-cancelling is cancelling",
			hint: "no process collects it, so it cannot end: the same promptmill run command continues it; " +
				"or promptmill delete --force run-cancelling",
			code: 1,
		},
		{
			args: "delete nosuch",
			err:  "there is no run nosuch on this bus",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "delete",
			err:  "want the id of one run, or its label",
			hint: "promptmill list shows the runs",
			code: 2,
		},
		{
			args: "report nosuch",
			err:  "there is neither nosuch nor nosuch.meta.json, and no run of that name",
			hint: "promptmill history lists the runs of this machine",
			code: 2,
		},
		{
			args: "report nosuch.meta.json",
			env:  []string{"NATS_URL=nats://127.0.0.1:9"}, // a name of a file is not looked for on a bus
			err:  "there is no nosuch.meta.json, and no run of that name",
			hint: "promptmill history lists the runs of this machine",
			code: 2,
		},
		{
			args: "report run-in-progress",
			err:  "run run-in-progress (every night) is running, and has its metadata when it has ended",
			hint: "promptmill status run-in-progress --watch shows when it has ended",
			code: 2,
		},
		{
			args: "report run-completed",
			err:  "run run-completed (Weekly summary) is completed, and has no output",
			code: 2,
		},
		{
			args: "report run-ca",
			err: "2 runs have run-ca in their ids:\n" +
				"  run-cancelling, tickets.jsonl, cancelling, begun AGE ago\n" +
				"  run-cancelled, tickets.jsonl, cancelled, begun AGE ago",
			hint: "write more of the id",
			code: 2,
		},
		{
			args: "report",
			err:  "want the metadata of a run, or its id",
			hint: "for example: promptmill report NAME.meta.json, or promptmill report RUN",
			code: 2,
		},
		{
			args:  "report in.jsonl",
			files: map[string]string{"in.jsonl": "{}\n"},
			err:   "in.jsonl: not the metadata of a run: it has no results",
			hint:  "name a NAME.meta.json, the NAME.jsonl.zst beside it, or a run",
			code:  2,
		},
		{
			args:  "report in.jsonl",
			files: map[string]string{"in.jsonl": "{}\n{}\n", "in.results.meta.json": "{}"},
			err:   "in.jsonl: not the metadata of a run: it is not one JSON object",
			hint:  "the run of this input has its metadata in in.results.meta.json",
			code:  2,
		},
		{
			args: "report .",
			err:  ". is a folder",
			hint: "name the NAME.meta.json in it, or a run",
			code: 2,
		},
		{
			args:  "compare odd.part.zst b",
			files: map[string]string{"odd.part.zst": "x"},
			err:   "odd.part.zst: not the metadata of a run",
			hint:  "name a NAME.meta.json, the NAME.jsonl.zst beside it, or a run",
			code:  2,
		},
		{
			args: "history --json --format md",
			err:  "--json and --format md are different formats",
			hint: "leave out one of them",
			code: 2,
		},
		{
			args: "history --format html",
			err:  `--format "html": want table, md or json`,
			code: 2,
		},
		{
			args: "history --add nosuch.meta.json",
			err:  "--add: open nosuch.meta.json: no such file or directory",
			hint: "name the NAME.meta.json of a run",
			code: 2,
		},
		{
			args:  "history --add a.meta.json --add odd.meta.json",
			files: map[string]string{"a.meta.json": oldMetadata, "odd.meta.json": "{}"},
			err:   "--add: odd.meta.json: not the metadata of a run: it has no results",
			hint:  "name the NAME.meta.json of a run",
			code:  2,
		},
		{
			args:  "history --bus --add a.meta.json",
			files: map[string]string{"a.meta.json": oldMetadata},
			err:   "--add notes runs in the history of this machine, which --bus does not list",
			hint:  "leave out --bus",
			code:  2,
		},
		{
			args: "compare run-completed",
			err:  "want the metadata of two runs or more, or their ids",
			hint: "for example: promptmill compare A.meta.json B.meta.json, or two runs of promptmill history",
			code: 2,
		},
		{
			args: "report run-completed --baseline nosuch",
			err:  "--baseline: there is neither nosuch nor nosuch.meta.json, and no run of that name",
			hint: "promptmill history lists the runs of this machine",
			code: 2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_LABEL= x"},
			files: map[string]string{"in.jsonl": `{"prompt":"a"}` + "\n"},
			err:   `--label: " x" must not begin or end with a space`,
			hint:  "for example --label nightly",
			code:  2,
		},
		{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_LABEL=  "},
			files: map[string]string{"in.jsonl": `{"prompt":"a"}` + "\n"},
			err:   "--label: must have a character besides spaces",
			hint:  "for example --label nightly",
			code:  2,
		},
		{
			args:  "submit in.jsonl --label a\x1b[2J",
			files: map[string]string{"in.jsonl": `{"prompt":"a"}` + "\n"},
			err:   `--label: "a\x1b[2J" has a character that cannot be printed, '\x1b'`,
			hint:  "for example --label nightly",
			code:  2,
		},
		{
			args:  "submit in.jsonl --model sim --run run-completed",
			files: map[string]string{"in.jsonl": `{"prompt":"a"}` + "\n"},
			err: "there is a run run-completed on the bus already, made from another input: its text had a " +
				"SHA-256 that begins with 0123456789ab, now it begins with d58848abfa8d",
			hint: "choose another --run, or leave it out",
			code: 1,
		},
		{
			args:  "submit in.jsonl --label " + strings.Repeat("x", proto.MaxLabel+1),
			files: map[string]string{"in.jsonl": `{"prompt":"a"}` + "\n"},
			err:   "--label: has 201 bytes, must have at most 200",
			hint:  "for example --label nightly",
			code:  2,
		},
		{
			args: "status",
			env:  []string{"PROMPTMILL_LABEL=x", "PROMPTMILL_JOIN=x"},
			err:  `--join: not a join string: it does not begin with "pm1_"`,
			hint: "paste all of it, as promptmill serve or run --listen has printed it",
			code: 2,
		},
	}

	for i := range usages {
		usages[i].state = state
	}

	testUsages(t, usages)
}

// Two runs of one label are listed.
func TestUsageOfLabels(t *testing.T) {
	t.Parallel()

	const want = "error: 2 runs have the label 'every night':\n" +
		"  run-in-progress, every night, tickets.jsonl, in_progress, begun "
	c := newCommand(t)
	c.state = serveRuns(t)

	for _, command := range []string{
		"pause", "resume", "cancel", "retry", "delete", "tail", "collect", "status", "report",
	} {
		text, code := c.run(command, "every night")
		if code != exit.CodeUsage || !strings.Contains(text, want) ||
			!strings.HasSuffix(text, "promptmill: hint: name the run by its id\n") {
			t.Errorf("%s: exit code %d, want 2 and the list of runs:\n%s", command, code, text)
		}
	}
}
