package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// complete returns what the program answers to a Tab at the end of words: the kind of files that the
// shell completes, and the values without their descriptions.
func (c command) complete(words ...string) (kind string, values []string) {
	c.t.Helper()

	lines := strings.Split(strings.TrimSuffix(c.must(append([]string{"__complete"}, words...)...), "\n"), "\n")
	for _, line := range lines[1:] {
		value, _, _ := strings.Cut(line, "\t")
		values = append(values, value)
	}

	return lines[0], values
}

func TestCompletion(t *testing.T) {
	t.Parallel()

	const commands = "words: run trial sim doctor export verify report compare history serve worker submit collect join " +
		"key nats-config list status workers tail pause resume cancel retry delete webhooks completion man version help"

	c := newCommand(t)
	for line, want := range map[string]string{
		"":                   commands,
		"wo":                 "words: worker workers",
		"nosuch ":            commands,
		"--":                 "words: --help --version",
		"help wor":           "words: worker workers",
		"man help":           "words: help",
		"run ":               "files:",
		"run in.jsonl ":      "files:",
		"run --nosuch":       "words:",
		"run --mo":           "words: --model --model-key-file --model-ca",
		"run --model m --mo": "words: --model-key-file --model-ca", // once is enough
		"run --model=m --mo": "words: --model-key-file --model-ca",
		"run --url a --ur":   "words: --url", // repeatable
		"run -o x --outp":    "words:",
		"run -v --verb":      "words:",
		"run --sim-t":        "words: --sim-ttft --sim-tpot --sim-tokens",
		"run --progress ":    "words: auto bar plain json none",
		"run --progress p":   "words: plain",
		"run --progress=": "words: --progress=auto --progress=bar --progress=plain --progress=json " +
			"--progress=none",
		"run --progress=p":                   "words: --progress=plain",
		"run --url=http://a:80 --progress=b": "words: --progress=bar",
		"run --url http://a:80 --prog":       "words: --progress",
		"run --model ":                       "words:",
		"run --schema ":                      "files:",
		"run --schema=":                      "files:",
		"run t.csv --prompt-file ":           "files:",
		"run t.csv --format ":                "words: csv tsv parquet jsonl json text",
		"run t.csv --format=p":               "words: --format=parquet",
		"run t.csv --encoding utf":           "words: utf-16le utf-16be",
		"run t.csv --endpoint /v1/e":         "words: /v1/embeddings",
		"run t.csv --prompt ":                "words:",
		"run t.csv --custom-id ":             "words:",
		"export ":                            "files:",
		"doctor t.csv --prompt-f":            "words: --prompt-file",
		"run -o ":                            "files:",
		"run --state ":                       "folders:",
		"run --shard-encoding ":              "words: snappy zstd none",
		"run --sim-flavour l":                "words: llama.cpp lmstudio",
		"run --sim-faults h":                 "words: html= hang=",
		"run --sim-faults 429=0.1,h":         "words: 429=0.1,html= 429=0.1,hang=",
		"run --sim-faults=429=0.1,h":         "words: --sim-faults=429=0.1,html= --sim-faults=429=0.1,hang=",
		"run -- --mo":                        "files:",
		"worker --drain-on a":                "words: auto aws azure",
		"verify ":                            "files:",
		"verify in.jsonl ":                   "files:",
		"report ":                            "files:",
		"report --format ":                   "words: md html json",
		"join ": "words: worker producer collector reader create list revoke save contexts " +
			"select forget",
		"join re":                           "words: reader revoke",
		"join create box7 --role co":        "words: collector",
		"join revoke ":                      "words:", // there is no string
		"join reader ":                      "words: --details --json --advertise --state --help",
		"completion ":                       "words: bash zsh fish",
		"version ":                          "words: --json --help",
		"status ":                           "words:", // there is no bus
		"status --nats nats://127.0.0.1:1 ": "words:",
		"status --nats":                     "words: --nats --nats-creds --nats-user --nats-password-file",
		"list --join-f":                     "words: --join-file",
		"list --join-file ":                 "files:",
		"list --context ":                   "words:", // there is none
		"join forget ":                      "words:",
		"pause --help ":                     "words:",
		"key ":                              "words: create list revoke",
		"key re":                            "words: revoke",
		"key --":                            "words: --help",
		"key nosuch ":                       "words: create list revoke",
		"key create --o":                    "words: --own-only",
		"key create --api-key-file ":        "files:",
		"key revoke ":                       "words:", // there is no key
		"webhooks ":                         "words: list test redeliver secret",
		"webhooks test --a":                 "words: --all",
		"webhooks redeliver ":               "words:", // there is no event
		"serve --webhook-s":                 "words: --webhook-secret-file",
		"serve --webhook-secret-file ":      "files:",
		"run --on-end ":                     "words:",
		"help key ":                         "words: create list revoke",
	} {
		kind, values := c.complete(strings.Split(line, " ")...)
		got := kind + ":"
		if len(values) > 0 {
			got += " " + strings.Join(values, " ")
		}

		if got != want {
			t.Errorf("%q<Tab>: %s\nwant %s", line, got, want)
		}
	}

	if _, values := c.complete("run", "--"); strings.Contains(strings.Join(values, " "), "--sim-") {
		t.Errorf("the simulator's flags are among those of run: %q", values)
	}
}

// The ids and names of keys come from their file.
func TestCompletionOfKeys(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.must("key", "create", "--name", "alice")

	kind, values := c.complete("key", "revoke", "al")
	if kind != "words" || !slices.Equal(values, []string{"alice"}) {
		t.Errorf("%s: %q, want alice", kind, values)
	}

	if _, values = c.complete("key", "revoke", "key_"); len(values) != 1 || !strings.HasPrefix(values[0], "key_") {
		t.Errorf("%q, want an id", values)
	}
}

// Ids and labels of runs come from the bus, and those of runs that have ended from the history.
func TestCompletionOfRuns(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	c.must("submit", c.input("in.jsonl", 3), "--model", "sim", "--run", "r-one", "--label", "nightly")
	c.must("submit", "in.jsonl", "--model", "sim", "--run", "r-two")

	if _, got := c.complete("status", ""); !cmp.Equal(got, []string{"r-one", "nightly", "r-two"}) {
		t.Errorf("status <Tab>: %q", got)
	}

	if _, got := c.complete("pause", "--state", c.state, "r-t"); !cmp.Equal(got, []string{"r-two"}) {
		t.Errorf("pause r-t<Tab>: %q", got)
	}

	elsewhere := newCommand(t)
	if _, got := elsewhere.complete("pause", "--state", c.state, "n"); !cmp.Equal(got, []string{"nightly"}) {
		t.Errorf("pause --state DIR n<Tab>: %q", got)
	}

	if kind, got := c.complete("compare", ""); len(got) > 0 || kind != "files" {
		t.Errorf("compare <Tab>: %s, %q", kind, got)
	}

	c.must("run", "in.jsonl", "--sim", "--run", "r-three", "--progress", "none")
	if kind, got := c.complete("compare", ""); !cmp.Equal(got, []string{"r-three"}) || kind != "files" {
		t.Errorf("compare <Tab>: %s, %q", kind, got)
	}
}

// The scripts work in shells that have nothing else.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()

	for name, start := range map[string]string{
		"bash": "PS1='ready> ' bash --norc --noprofile -i",
		"zsh":  "PS1='ready> ' zsh -f -i",
		"fish": "fish --no-config --init-command 'function fish_prompt; echo -n \"ready> \"; end'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCompletionIn(t, name, start)
		})
	}
}

// testCompletionIn types command lines in a shell.
func testCompletionIn(t *testing.T, shell, start string) {
	if _, err := exec.LookPath(shell); err != nil {
		t.Skipf("SKIPPED: %s is not installed: its completion is not tested", shell)
	}

	c := newCommand(t)
	must(t, os.WriteFile(filepath.Join(c.dir, "my prompts.jsonl"), nil, 0o644))
	must(t, os.Mkdir(filepath.Join(c.dir, "answers"), 0o755))
	term := openTmuxPane(t, 100, 50, []string{"TERM=tmux", "HOME=" + c.dir}, "cd "+c.dir+"; "+start)
	send := func(text ...string) { term.tmux(append([]string{"send-keys", "--"}, text...)...) }

	term.see(`ready>\s*$`)
	switch shell {
	case "fish":
		send("promptmill completion fish | source", "Enter")
	default:
		send(`eval "$(promptmill completion `+shell+`)"`, "Enter")
	}
	send("C-l")
	term.see(`^ready>\s*$`)

	for _, tt := range []struct{ typed, want string }{
		{"promptmill verif", `promptmill verify`},
		{"promptmill run --prog", `promptmill run --progress`},
		{"promptmill run --progress pl", `promptmill run --progress plain`},
		{"promptmill run --progress=pl", `promptmill run --progress=plain`},
		{"promptmill run --url=http://a:80 --url http://b:80 --sim-fl", `promptmill run .* --sim-flavour`},
		{"A=b promptmill join coll", `A=b promptmill join collector`},
		{"true; promptmill hist", `true; promptmill history`},
		{"promptmill run --sim-faults 429=0.1,ha", `promptmill run --sim-faults 429=0\.1,hang=`},
		{"promptmill run my", `promptmill run my\\ prompts\.jsonl`},
		{"promptmill run --schema=my", `promptmill run --schema=my\\ prompts\.jsonl`},
		{"promptmill serve --dir an", `promptmill serve --dir answers/`},
	} {
		send(tt.typed, "Tab")
		term.see(`(?m)^ready> ` + tt.want + `\s*$`)
		send("C-u", "C-l")
		term.see(`^ready>\s*$`)
	}

	// A shell writes its history into HOME when it ends, which must be before the folder is removed.
	send("exit", "Enter")
	term.see(`(?m)^exit 0\s*$`)
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := c.must("completion", shell)
		if strings.Contains(script, "PROGRAM") || !strings.Contains(script, "promptmill completion "+shell) {
			t.Errorf("the script for %s does not name promptmill, or not how it is installed:\n%s", shell, script)
		}
	}

	testUsages(t, []usage{
		{
			args: "completion",
			err:  "want the name of a shell",
			hint: "for example: promptmill completion bash",
			code: 2,
		},
		{
			args: "completion tcsh",
			err:  `there is no completion for the shell "tcsh"`,
			hint: "want bash, zsh or fish",
			code: 2,
		},
	})
}
