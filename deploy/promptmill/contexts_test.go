package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

// A bus is used by its name, and by no name once it is selected. A flag comes before the environment, and
// that before the selected context, which comes before the bus of this machine.
func TestContexts(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	join := strings.TrimSpace(c.must("join", "collector"))

	away := newCommand(t)
	must(t, os.WriteFile(filepath.Join(away.dir, "string"), []byte(join+"\n"), 0o600))
	saved := away.must("join", "save", "head", "--join-file", "string")
	if !strings.HasPrefix(saved, "saved context head: the bus at 127.0.0.1:") || strings.Contains(saved, join) {
		t.Errorf("join save prints %q", saved)
	}

	away.must("join", "save", "gone", "--nats", "nats://bob:s3cret@127.0.0.1:1", "--select")
	list := away.must("join", "contexts")
	if strings.Contains(list, "s3cret") || strings.Contains(list, join) {
		t.Errorf("a secret is listed:\n%s", list)
	}

	var contexts []shownContext
	must(t, json.Unmarshal([]byte(away.must("join", "contexts", "--json")), &contexts))
	if len(contexts) != 2 || contexts[0].Name != "gone" || !contexts[0].Selected || contexts[1].Selected ||
		contexts[1].Role != "collector" {
		t.Errorf("the contexts are %+v", contexts)
	}

	const unreachable = "connect to the NATS server at nats://127.0.0.1:1"
	for name, tt := range map[string]struct {
		env  []string
		args string
		code int
		says string
	}{
		"named":      {args: "list --context head"},
		"variable":   {env: []string{"PROMPTMILL_CONTEXT=head"}, args: "list"},
		"selected":   {args: "list", code: exit.CodeUnreachable, says: "using the selected context gone"},
		"error":      {args: "list", code: exit.CodeUnreachable, says: unreachable},
		"flag first": {env: []string{"PROMPTMILL_CONTEXT=gone"}, args: "list --join " + join},
		"named before variables": {
			env:  []string{"PROMPTMILL_JOIN=x", "NATS_URL=nats://127.0.0.1:2", "PROMPTMILL_NATS=nats://127.0.0.1:2"},
			args: "list --context head",
		},
		"variable of a context before that of others": {
			env:  []string{"PROMPTMILL_CONTEXT=head", "NATS_URL=nats://127.0.0.1:2"},
			args: "list",
		},
		"environment before the selected one":    {env: []string{"PROMPTMILL_JOIN=" + join}, args: "list"},
		"a state folder before the selected one": {args: "list --state " + c.state},
		"run has its own bus":                    {args: "run in.jsonl --sim -o own.jsonl.zst"},
		"run on a named one": {
			args: "run in.jsonl --sim -o named.jsonl.zst --context gone",
			code: exit.CodeUnreachable,
			says: unreachable,
		},
		"doctor": {args: "doctor --url http://127.0.0.1:1", code: exit.CodeUnreachable, says: unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			away := away
			away.t = t
			away.input("in.jsonl", 1)
			running, out := away.startAs(tt.env, strings.Fields(tt.args)...)
			if code := waitExit(t, running, out, patience); code != tt.code ||
				!strings.Contains(out.String(), tt.says) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, tt.code, tt.says, out)
			}

			if tt.code == 0 && strings.Contains(out.String(), "selected context") {
				t.Errorf("it says that the selected one is used:\n%s", out)
			}
		})
	}

	away.must("join", "select", "head")
	away.must("list")
	if kind, names := away.complete("list", "--context", ""); kind != "words" || strings.Join(names, " ") != "gone head" {
		t.Errorf("the shell completes %s %q", kind, names)
	}

	away.must("join", "forget", "gone")
	away.must("join", "forget", "head")
	away.expect(exit.CodeUnreachable, "no bus runs on this machine", "list")
}

// A context is saved from standard input.
func TestContextFromStandardInput(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	cmd, out := c.prepare("join", "save", "head", "--select"), &lockedBuffer{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("  "+c.must("join")), out, out
	must(t, cmd.Start())
	code := waitExit(t, cmd, out, patience)
	if code != exit.CodeOK || !strings.Contains(out.String(), "selected context head") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}

	c.expect(exit.CodeUsage, "this join string lets in a worker, and collect needs one of a collector", "collect", "x")
	c.must("join", "select", "--none")
	c.must("list")
}

func TestUsageOfContexts(t *testing.T) {
	t.Parallel()

	const (
		shows = "promptmill join contexts shows the contexts"
		names = `: a name has letters, digits, dots, dashes and underscores, begins with a letter or a digit, ` +
			`and has at most 64 characters`
	)
	usages := []usage{
		{
			args: "list --context nosuch",
			err:  "there is no context nosuch",
			hint: shows,
		},
		{
			args: "worker --sim",
			env:  []string{"PROMPTMILL_CONTEXT=../x"},
			err:  `the name of the context, "../x"` + names,
			hint: shows,
		},
		{
			args: "list --context a --nats nats://127.0.0.1:1",
			err:  "--context names a bus, and so does --join, --join-file or --nats",
			hint: "leave out one of them, also in the environment",
		},
		{
			args: "join save",
			err:  "want the name of one context",
			hint: shows,
		},
		{
			args: "join save .x",
			err:  `the name of the context, ".x"` + names,
			hint: "choose another name, for example head",
		},
		{
			args: "join save head",
			err:  "standard input has no join string",
			hint: "for example promptmill join save head < FILE, or name the bus with --join-file or --nats",
		},
		{
			args: "join save head --nats http://x",
			err:  "--nats http://x: http is not the scheme of a NATS server, which is nats, tls, ws or wss",
			hint: "for example --nats nats://HOST:4222",
		},
		{
			args: "join select nosuch",
			err:  "there is no context nosuch",
			hint: shows,
		},
		{
			args: "join select --none nosuch",
			err:  "--none selects no context, and nosuch names one",
			hint: "leave out one of them",
		},
		{
			args: "join forget nosuch",
			err:  "there is no context nosuch",
			hint: shows,
		},
	}

	for i := range usages {
		usages[i].code = 2
	}

	testUsages(t, usages)
}
