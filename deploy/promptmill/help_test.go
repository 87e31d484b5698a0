package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
)

// Each flag is in a group of the help, and its usage begins with the name of its value.
func TestFlagGroups(t *testing.T) {
	t.Parallel()

	for name, c := range listCommands(newApp(environment{}).Commands) {
		for _, f := range c.Flags {
			name := "promptmill " + name + " --" + f.Names()[0]
			group := f.(cli.CategorizableFlag).GetCategory()
			if !slices.Contains(flagGroups, group) {
				t.Errorf("%s is in group %q, want one of %q", name, group, flagGroups)
			}

			d := f.(cli.DocGenerationFlag)
			if strings.Contains(d.GetUsage(), "repeatable") || strings.Contains(d.GetUsage(), "default") {
				t.Errorf("%s has the usage %q, to which the help adds that", name, d.GetUsage())
			}

			if named := valueName.MatchString(d.GetUsage()); named != d.TakesValue() {
				t.Errorf("%s has the usage %q: it begins with the name of a value: %t, want %t",
					name, d.GetUsage(), named, d.TakesValue())
			}
		}
	}
}

// listCommands returns the commands that a person can run by what is typed for them, such as key create.
func listCommands(commands []*cli.Command) map[string]*cli.Command {
	list := map[string]*cli.Command{}
	for _, c := range commands {
		for name, sub := range listCommands(c.Commands) {
			list[c.Name+" "+name] = sub
		}
		acts := len(c.Commands) == 0 || len(c.Flags) > 0 // or it does nothing but have commands
		if acts && !c.Hidden {
			list[c.Name] = c
		}
	}

	return list
}

// valueName matches the name of a value at the beginning of a flag's usage.
var valueName = regexp.MustCompile("^`[A-Z\\[][^`a-z]*(\\.[a-z.]+)?`: ")

// The help of each command is as wide as a terminal, and has each group and flag once. The simulator's
// flags are apart, except those of the simulator.
func TestHelp(t *testing.T) {
	t.Parallel()

	app := newApp(environment{})
	app.Commands = slices.DeleteFunc(app.Commands, func(c *cli.Command) bool { return c.Hidden })
	for name, c := range listCommands(app.Commands) {
		text := printedHelp(t, append(strings.Fields(name), "--help")...)
		if again := printedHelp(t, append([]string{"help"}, strings.Fields(name)...)...); again != text {
			t.Errorf("promptmill help %s prints\n%s\nand --help prints\n%s", name, again, text)
		}

		apart := ""
		if c.Name == "run" || c.Name == "worker" {
			apart = printedHelp(t, c.Name, "--help-sim")
			if !strings.HasSuffix(text, "\npromptmill "+c.Name+" --help-sim lists the simulator's flags.\n") {
				t.Errorf("the help of %s does not end with that of the simulator's flags:\n%s", c.Name, text)
			}
		}

		for _, f := range c.Flags {
			where := text
			if apart != "" && f.(cli.CategorizableFlag).GetCategory() == groupSim {
				where = apart
			}

			row := regexp.MustCompile(`(?m)^  (   |-[a-z],) --` + f.Names()[0] + `( |$)`)
			if n := len(row.FindAllString(where, -1)); n != 1 {
				t.Errorf("the help of %s has %d rows for --%s:\n%s", name, n, f.Names()[0], where)
			}
		}

		for _, group := range flagGroups {
			if n := strings.Count(text, "\n"+group+":\n"); n > 1 || n == 1 && group == groupSim && apart != "" {
				t.Errorf("the help of %s has %d groups %s:\n%s", name, n, group, text)
			}
		}
	}

	text := printedHelp(t, "--help")
	for _, c := range app.Commands {
		if n := len(regexp.MustCompile(`(?m)^  `+c.Name+` +[a-z]`).FindAllString(text, -1)); n != 1 {
			t.Errorf("the help of promptmill has %d rows for %s:\n%s", n, c.Name, text)
		}
	}

	for _, args := range [][]string{{}, {"-h"}, {"help"}, {"--help"}} {
		if again := printedHelp(t, args...); again != text {
			t.Errorf("promptmill %s prints\n%s", strings.Join(args, " "), again)
		}
	}

	for _, group := range app.Commands {
		if len(group.Commands) == 0 {
			continue
		}

		text := printedHelp(t, group.Name, "--help")
		for _, c := range group.Commands {
			if n := len(regexp.MustCompile(`(?m)^  `+c.Name+` +[a-z]`).FindAllString(text, -1)); n != 1 {
				t.Errorf("the help of %s has %d rows for %s:\n%s", group.Name, n, c.Name, text)
			}
		}

		for _, args := range [][]string{{group.Name, "-h"}, {"help", group.Name}} {
			if again := printedHelp(t, args...); again != text {
				t.Errorf("promptmill %s prints\n%s", strings.Join(args, " "), again)
			}
		}
	}
}

// printedHelp returns a help that goes to no terminal, and checks its lines.
func printedHelp(t *testing.T, args ...string) string {
	t.Helper()

	cmd := exec.Command("promptmill", args...)
	cmd.Stderr = &bytes.Buffer{}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("promptmill %s: %v\n%s", strings.Join(args, " "), err, cmd.Stderr)
	}

	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 || strings.HasSuffix(line, " ") {
			t.Errorf("promptmill %s prints %q", strings.Join(args, " "), line)
		}
	}

	return string(out)
}

// The help uses the width of a terminal, up to 100 columns.
func TestHelpInTerminal(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ columns, least, most int }{
		{200, 90, 100},
		{60, 50, 59},
	} {
		term := openTmuxPane(t, tt.columns, 120, []string{"TERM=tmux"}, "promptmill join --help")
		widest := 0
		for _, line := range term.see(`exit 0\s*$`) {
			widest = max(widest, utf8.RuneCountInString(strings.TrimRight(line, " ")))
		}

		if widest < tt.least || widest > tt.most {
			t.Errorf("in %d columns, the widest line has %d, want %d to %d", tt.columns, widest, tt.least, tt.most)
		}
	}
}
