package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The pages are good roff, and have each flag.
func TestMan(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.must("man", "--dir", ".")
	app := newApp(environment{})

	var want, listed []string
	for _, sub := range app.Commands {
		if !sub.Hidden {
			listed = append(listed, "promptmill-"+sub.Name)
		}
		if len(sub.Commands) > 0 && len(sub.Flags) == 0 { // listCommands leaves it out
			want = append(want, "promptmill-"+sub.Name+".1")
		}
	}

	for typed, sub := range listCommands(app.Commands) {
		name := "promptmill-" + strings.ReplaceAll(typed, " ", "-")
		want = append(want, name+".1")
		page, err := os.ReadFile(filepath.Join(c.dir, name+".1"))
		must(t, err)

		if printed := c.must(append([]string{"man"}, strings.Fields(typed)...)...); printed != string(page) {
			t.Errorf("promptmill man %s prints another page than --dir writes", typed)
		}

		for _, f := range sub.Flags {
			row := regexp.MustCompile(`(?m)^\\fB(\\-[a-z], )?\\-\\-` + strings.ReplaceAll(f.Names()[0], "-", `\\-`) + `\\fR`)
			if n := len(row.FindAll(page, -1)); n != 1 {
				t.Errorf("%s has %d rows for --%s:\n%s", name, n, f.Names()[0], page)
			}
		}
	}

	page, err := os.ReadFile(filepath.Join(c.dir, "promptmill.1"))
	must(t, err)
	for _, name := range listed {
		if !bytes.Contains(page, []byte(strings.ReplaceAll(name, "-", `\-`)+`\fR(1)`)) {
			t.Errorf("the page of promptmill does not name %s:\n%s", name, page)
		}
	}

	want = append(want, "promptmill.1")
	slices.Sort(want)
	if got := c.left(); !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}

	for _, checker := range [][]string{
		{"mandoc", "-T", "lint", "-W", "warning"},
		{"groff", "-man", "-ww", "-T", "utf8"},
	} {
		if _, err := exec.LookPath(checker[0]); err != nil {
			t.Logf("SKIPPED: %s is not installed: it does not check the man pages", checker[0])
			continue
		}

		for _, name := range want {
			text := checkPage(t, filepath.Join(c.dir, name), checker)
			if checker[0] == "groff" && !strings.Contains(text, "User Commands") {
				t.Errorf("%s: no page:\n%s", name, text)
			}
		}
	}
}

// checkPage runs a checker of man pages, which must not complain, and returns what it prints.
func checkPage(t *testing.T, path string, checker []string) string {
	t.Helper()

	complaints := &bytes.Buffer{}
	cmd := exec.Command(checker[0], append(checker[1:], path)...)
	cmd.Stderr = complaints
	text, _ := cmd.Output() // mandoc's exit code counts the date, too

	for line := range strings.Lines(complaints.String() + string(text)) {
		if strings.Contains(line, path) && !strings.Contains(line, "missing date") { // a page has no date
			t.Errorf("%s: %s", checker[0], line)
		}
	}

	return string(text)
}

func TestUsageOfMan(t *testing.T) {
	t.Parallel()

	testUsages(t, []usage{
		{
			args: "man nosuch",
			err:  `unknown command "nosuch"`,
			hint: "promptmill --help lists all commands",
			code: 2,
		},
		{
			args: "man --dir nosuch",
			err:  "there is no folder nosuch",
			hint: "mkdir -p nosuch",
			code: 2,
		},
		{
			args: "man --dir . run",
			err:  "--dir writes the pages of all commands, and not of run",
			hint: "leave out one of them",
			code: 2,
		},
	})
}
