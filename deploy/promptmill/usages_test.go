package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// usage is a wrong use of a command, and the refusal that a person gets for it.
type usage struct {
	// args is the command line, split at spaces.
	args string
	// env has environment variables, as NAME=VALUE.
	env []string
	// files has files of the working directory, by name.
	files map[string]string
	// state is the state folder with the bus that the command finds. Empty: its own, without a bus.
	state string

	// text is the text on both streams before the error, and err the error; DIR is the working
	// directory, and AGE an age.
	text string
	err  string
	hint string
	code int
}

// testUsages runs each usage in a folder of its own. The text must be the same to the letter, and a
// refusal must change nothing.
func testUsages(t *testing.T, usages []usage) {
	t.Helper()

	for _, u := range usages {
		t.Run(strings.Join(append(slices.Clone(u.env), u.args), " "), func(t *testing.T) {
			t.Parallel()
			testUsage(t, u)
		})
	}
}

// testUsage runs one usage.
func testUsage(t *testing.T, u usage) {
	t.Helper()

	c := newCommand(t)
	for name, text := range u.files {
		must(t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644))
	}

	must(t, os.MkdirAll(c.state, 0o700)) // as on a machine where a run was before
	before := c.left()
	cmd, out := c.prepare(strings.Fields(u.args)...), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out

	if u.state != "" {
		cmd.Env = append(cmd.Env, "PROMPTMILL_STATE="+u.state)
	}

	cmd.Env = append(cmd.Env, u.env...)
	must(t, cmd.Start())
	code := waitExit(t, cmd, out, patience)

	want := u.text + "promptmill: error: " + u.err + "\n"
	if u.hint != "" {
		want += "promptmill: hint: " + u.hint + "\n"
	}

	got := anAge.ReplaceAllString(strings.ReplaceAll(out.String(), c.dir, "DIR"), "begun AGE ago")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}

	if code != u.code {
		t.Errorf("exit code %d, want %d", code, u.code)
	}

	if diff := cmp.Diff(before, c.left()); diff != "" {
		t.Errorf("the refusal changes the folder (-before +after):\n%s", diff)
	}
}

// anAge is the age of a run in an error.
var anAge = regexp.MustCompile(`begun [0-9]+[smhd][0-9m]* ago`)

func TestUsageOfOutput(t *testing.T) {
	t.Parallel()

	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}
	testUsages(t, []usage{
		{
			args:  "run in.jsonl --sim -o nosuch/out.jsonl.zst",
			files: files,
			err:   "the folder of the output, DIR/nosuch, is not there",
			hint:  "make it first",
			code:  2,
		},
		{
			args:  "run - --sim",
			files: files,
			err:   "standard input has no name to make the output's from",
			hint:  "give -o NAME.jsonl.zst",
			code:  2,
		},
	})
}
