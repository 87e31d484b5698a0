package cmdline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// nestedApp returns a program with a command that has commands, and what it prints.
func nestedApp(out *bytes.Buffer) *cli.Command {
	report := func(text string) cli.ActionFunc {
		return func(_ context.Context, c *cli.Command) error {
			out.WriteString(text + " " + strings.Join(c.Args().Slice(), " "))
			if c.Bool("json") {
				out.WriteString(" as JSON")
			}
			return nil
		}
	}
	app := &cli.Command{
		Name:    "bank",
		Usage:   "keep things",
		Version: "bank 1",
		Commands: []*cli.Command{
			{
				Name:     "key",
				Category: "Access",
				Usage:    "make and end keys",
				Commands: []*cli.Command{
					{
						Name:      "create",
						Usage:     "make a key",
						ArgsUsage: "NAME",
						Action:    report("created"),
					},
					{
						Name:   "list",
						Usage:  "list the keys",
						Flags:  []cli.Flag{&cli.BoolFlag{Name: "json", Category: "Output", Usage: "print JSON"}},
						Action: report("listed"),
					},
				},
			},
			NewManCommand(),
			NewHelpCommand(),
		},
		Writer:    out,
		ErrWriter: out,
	}
	app.Commands = append(app.Commands, NewCompletionCommands(map[string]Values{
		"NAME": func(context.Context, *cli.Command) []string { return []string{"mine", "yours"} },
	})...)
	Prepare(app, Rules{})

	return app
}

// A command may have commands of its own: they run, have help and pages, and are completed.
func TestNestedCommands(t *testing.T) {
	const keyHelp = `bank key: make and end keys

Usage: bank key COMMAND [FLAGS] [ARGUMENTS]

Commands:
  create  make a key
  list    list the keys

bank key COMMAND --help prints the flags of a command.
`
	const listHelp = `bank key list: list the keys

Usage: bank key list [FLAGS]

Output:
      --json                print JSON

General:
  -h, --help                print this help

Each flag is also an environment variable: --json is PROMPTMILL_JSON.
`
	for args, want := range map[string]string{
		"key create a":             "created a",
		"key list --json":          "listed  as JSON",
		"key":                      keyHelp,
		"key --help":               keyHelp,
		"help key":                 keyHelp,
		"key list --help":          listHelp,
		"__complete ke":            "words\nkey\tmake and end keys\n",
		"__complete key c":         "words\ncreate\tmake a key\n",
		"__complete key --":        "words\n--help\n",
		"__complete key create m":  "words\nmine\n",
		"__complete key list --j":  "words\n--json\tprint JSON\n",
		"__complete help key l":    "words\nlist\tlist the keys\n",
		"__complete help nosuch l": "words\n",
	} {
		var out bytes.Buffer
		if err := nestedApp(&out).Run(t.Context(), append([]string{"bank"}, strings.Fields(args)...)); err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%s prints (-want +got):\n%s", args, diff)
		}
	}

	for args, want := range map[string][2]string{
		"key creat a":      {`unknown command "creat"`, "did you mean bank key create? bank key --help lists all commands"},
		"key x":            {`unknown command "x"`, "bank key --help lists all commands"},
		"help key x":       {`unknown command "x"`, "bank key --help lists all commands"},
		"help key list x":  {"unexpected argument x", "usage: bank help [COMMAND...]"},
		"key list x":       {"unexpected argument x", "usage: bank key list [FLAGS]"},
		"key list --jsn":   {"unknown flag --jsn", "did you mean --json? bank key list --help lists all flags"},
		"key --json":       {"unknown flag --json", "bank key list has it; bank key --help lists all commands"},
		"key create --old": {"unknown flag --old", "bank key create --help lists all flags"},
	} {
		err := nestedApp(&bytes.Buffer{}).Run(t.Context(), append([]string{"bank"}, strings.Fields(args)...))
		if err == nil || exit.Code(err) != exit.CodeUsage || err.Error() != want[0] || exit.Hint(err) != want[1] {
			t.Errorf("%s: %v, hint %q, want %q", args, err, exit.Hint(err), want)
		}
	}
}

// Each command of a command has a page of its own, which the page above it names.
func TestNestedPages(t *testing.T) {
	t.Chdir(t.TempDir())

	var out bytes.Buffer
	if err := nestedApp(&out).Run(t.Context(), []string{"bank", "man", "--dir", "."}); err != nil {
		t.Fatal(err)
	}

	for name, want := range map[string]string{
		"bank.1":            `\fBbank\-key\fR(1)`,
		"bank-key.1":        `\fBbank\-key\-list\fR(1)`,
		"bank-key-list.1":   `\fBbank key list\fR [FLAGS]`,
		"bank-key-create.1": ".SH SEE ALSO\n" + `\fBbank\fR(1)`,
	} {
		page, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(page), want) {
			t.Errorf("%s: %v\n%s\nwant %s", name, err, page, want)
		}
	}

	if err := nestedApp(&out).Run(t.Context(), []string{"bank", "man", "key", "list"}); err != nil {
		t.Error(err)
	}
	if page, _ := os.ReadFile("bank-key-list.1"); out.String() != string(page) {
		t.Errorf("man key list prints another page than --dir writes:\n%s", out.String())
	}
}

// A command with commands may also do something itself, with flags and an argument of its own, which its commands
// do not have.
func TestCommandThatActsItself(t *testing.T) {
	app := func(out *bytes.Buffer) *cli.Command {
		act := func(name string) cli.ActionFunc {
			return func(_ context.Context, c *cli.Command) error {
				fmt.Fprintf(out, "%s %v %v", name, c.Args().Slice(), c.Bool("json"))
				return nil
			}
		}
		json := func() []cli.Flag {
			return []cli.Flag{&cli.BoolFlag{Name: "json", Category: "Output", Usage: "print JSON"}}
		}

		root := nestedApp(out)
		root.Commands = []*cli.Command{{
			Name:      "door",
			Usage:     "print a door",
			ArgsUsage: "[front|back]",
			Flags:     json(),
			Action:    act("door"),
			Commands: []*cli.Command{
				{Name: "list", Usage: "list the doors", Flags: json(), Action: act("list")},
				{Name: "lock", Usage: "lock a door", ArgsUsage: "NAME", Action: act("lock")},
			},
		}}
		root.Commands = append(root.Commands, NewCompletionCommands(nil)...)
		Prepare(root, Rules{})

		return root
	}

	const help = `bank door: print a door

Usage: bank door [FLAGS] [front|back]

Commands:
  list  list the doors
  lock  lock a door

bank door COMMAND --help prints the flags of a command.

Output:
      --json                print JSON

General:
  -h, --help                print this help

Each flag is also an environment variable: --json is PROMPTMILL_JSON.
`
	for args, want := range map[string]string{
		"door":                        "door [] false",
		"door back --json":            "door [back] true",
		"door list --json":            "list [] true",
		"door lock a":                 "lock [a] false",
		"door --help":                 help,
		"__complete door ":            "words\nfront\nback\nlist\tlist the doors\nlock\tlock a door\n",
		"__complete door l":           "words\nlist\tlist the doors\nlock\tlock a door\n",
		"__complete door front --":    "words\n--json\tprint JSON\n--help\tprint this help\n",
		"__complete door lock --":     "words\n--help\tprint this help\n",
		"__complete door list --json": "words\n--json\tprint JSON\n",
	} {
		var out bytes.Buffer
		words := strings.Split(args, " ") // an empty word stands at the cursor
		if err := app(&out).Run(t.Context(), append([]string{"bank"}, words...)); err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%s prints (-want +got):\n%s", args, diff)
		}
	}

	for args, want := range map[string][2]string{
		"door --json list": {"--json stands before list", "put it behind list"},
		"door lock --json": {"unknown flag --json", "bank door and door list have it; bank door lock --help lists all flags"},
		"door back x":      {"unexpected argument x", "usage: bank door [FLAGS] [front|back]"},
	} {
		err := app(&bytes.Buffer{}).Run(t.Context(), append([]string{"bank"}, strings.Fields(args)...))
		if err == nil || exit.Code(err) != exit.CodeUsage || err.Error() != want[0] || exit.Hint(err) != want[1] {
			t.Errorf("%s: %v, hint %q, want %q", args, err, exit.Hint(err), want)
		}
	}
}
