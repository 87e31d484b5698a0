package cmdline

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// refuseUsage implements [cli.OnUsageErrorFunc]: it says what is wrong with a command line.
// urfave/cli has only texts for its errors.
func refuseUsage(_ context.Context, c *cli.Command, err error, _ bool) error {
	for _, f := range c.Flags {
		if f, ok := f.(*checkedFlag); ok && f.refusal != nil {
			return f.refusal
		}
	}

	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return unknownFlag(c, name)
	}

	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: "); ok {
		return missingValue(c, name)
	}

	return exit.Usage(helpHint(c), "--help and --version take no value") // the only flags that are not checked
}

// unknownFlag returns the error of a flag that a command does not have.
func unknownFlag(c *cli.Command, name string) error {
	typed := findTyped(c, name)
	hint := helpHint(c)
	if len(c.Commands) > 0 {
		hint = NameOf(c) + " --help lists all commands"
	}

	having := commandsWith(c.Root(), name)
	switch short := name[:min(1, len(name))]; {
	case typed == "-v" && c.Root() == c:
		hint = c.Name + " --version prints the version; -v after a command logs more"
	case c.Root() == c && len(having) > 0:
		hint = "put it after a command: " + list(having) + "; " + hint
	case len(having) > 0:
		hint = list(having) + "; " + hint
	case Suggest(name, flagNames(c)) != "":
		hint = "did you mean " + dashed(Suggest(name, flagNames(c))) + "? " + hint
	case typed[1] != '-' && slices.Contains(flagNames(c), short):
		hint = "put a space after -" + short + "; " + hint
	}

	return exit.Usage(hint, "unknown flag %s", typed)
}

// findTyped returns a flag with the dashes that were typed, which urfave/cli leaves out of its
// error.
func findTyped(c *cli.Command, name string) string {
	if root := c.Root(); root != c {
		for _, arg := range root.Args().Slice() {
			arg, _, _ = strings.Cut(arg, "=")
			if arg == "-"+name || arg == "--"+name {
				return arg
			}
		}
	}

	return dashed(name)
}

// commandsWith returns the commands that have a flag.
func commandsWith(root *cli.Command, name string) (names []string) {
	walkCommands(root, func(c *cli.Command) {
		if slices.Contains(flagNames(c), name) {
			names = append(names, strings.TrimPrefix(NameOf(c), root.Name+" "))
		}
	})

	if len(names) > 0 {
		names[0] = root.Name + " " + names[0]
	}

	return names
}

// flagNames returns the names of a command's flags, without dashes.
func flagNames(c *cli.Command) (names []string) {
	for _, f := range c.Flags {
		names = append(names, f.Names()...)
	}
	return names
}

// missingValue returns the error of a flag at the end of the command line, which needs a value.
func missingValue(c *cli.Command, typed string) error {
	hint := helpHint(c)
	for _, f := range c.Flags {
		if f, ok := f.(flag); ok && slices.Contains(f.Names(), strings.TrimLeft(typed, "-")) {
			hint = "give " + typed + " " + metavar(f) + "; " + hint
		}
	}

	return exit.Usage(hint, "%s needs a value", typed)
}

// unknownCommand returns the error of a command that the program, or another command, does not have.
func unknownCommand(above *cli.Command, name string) error {
	hint := NameOf(above) + " --help lists all commands"
	var names []string
	for _, c := range above.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}

	if meant := Suggest(name, names); meant != "" {
		hint = "did you mean " + NameOf(above) + " " + meant + "? " + hint
	} else if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && above.Root() == above {
		hint = "did you mean " + above.Name + " run " + name + "? " + hint
	}

	return exit.Usage(hint, "unknown command %q", name)
}

// checkArguments refuses arguments that a command does not take. Those that are missing are refused
// by the command, which knows an example.
func checkArguments(c *cli.Command) error {
	most := 0
	for word := range strings.FieldsSeq(c.ArgsUsage) {
		if strings.Contains(word, "...") {
			return nil
		}
		most++
	}

	args := c.Args().Slice()
	if len(args) <= most {
		return nil
	}

	return unexpectedArguments(c, args[most:])
}

// unexpectedArguments returns the error of arguments that a command does not take.
func unexpectedArguments(c *cli.Command, args []string) error {
	text := "unexpected argument"
	if len(args) > 1 {
		text += "s"
	}

	return exit.Usage("usage: "+usageOf(c), "%s %s", text, strings.Join(args, " "))
}

// list says that commands have a flag.
func list(names []string) string {
	switch n := len(names); {
	case n == 1:
		return names[0] + " has it"
	case n <= 4:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1] + " have it"
	default:
		return fmt.Sprintf("%s and %d more have it", strings.Join(names[:3], ", "), n-3)
	}
}
