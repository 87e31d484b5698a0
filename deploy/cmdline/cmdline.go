// Package cmdline has the manners of promptmill's command line, on top of
// [github.com/urfave/cli/v3]: the help, the man pages, the completion of shells, and the errors
// of wrong usage. It knows no command.
//
// [Prepare] takes a program of urfave/cli and gives it all of that. A command may have commands of its
// own, as in "promptmill key list". A tour of the files:
//
//   - flag.go: each flag is also an environment variable; its values, and the sentences that refuse them.
//   - rules.go: flags that need or exclude each other.
//   - usageerror.go: unknown flags and commands, arguments that a command does not take.
//   - suggestion.go: the name that was probably meant.
//   - variable.go: environment variables that look like those of flags and are not.
//   - help.go: the help, in groups and as wide as the terminal.
//   - man.go: the same as pages for man.
//   - completion.go: completion for bash, zsh and fish, in scripts that ask the program at each Tab.
package cmdline

import (
	"context"
	"io"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// Prefix begins the environment variable of each flag: --max-concurrency is also
// PROMPTMILL_MAX_CONCURRENCY.
const Prefix = "PROMPTMILL_"

// GeneralGroup is the group of the flags of all commands: --help is in it. A program names its last
// group so.
const GeneralGroup = "General"

// Keys of a command's metadata.
const (
	apartKey = "apart" // its [groupApart]
	nameKey  = "name"  // its name with those of the commands above it
	actsKey  = "acts"  // set for a command with commands that does something itself
)

// groupApart is a group of flags that is not in the help of its command.
type groupApart struct {
	// name is the group's name.
	name string
	// flag is the name of the flag that prints its help.
	flag string
}

func init() {
	cli.HelpPrinter = func(w io.Writer, _ string, data any) { printHelp(w, data.(*cli.Command)) }
	cli.ShowCommandHelp = showCommandHelp
	cli.ShowSubcommandHelp = func(c *cli.Command) error { return showCommandHelp(context.Background(), c, "") }
	cli.VersionPrinter = func(c *cli.Command) { io.WriteString(c.Root().Writer, c.Version+"\n") }
	cli.HelpFlag = &cli.BoolFlag{
		Name:        "help",
		Category:    GeneralGroup,
		Aliases:     []string{"h"},
		Usage:       "print this help",
		HideDefault: true,
		Local:       true,
	}

	cli.VersionFlag = &cli.BoolFlag{
		Name:        "version",
		Aliases:     []string{"V"},
		Usage:       "print the version",
		HideDefault: true,
		Local:       true,
	}
}

// Prepare gives a program the manners of this package. It must be called once, after all
// commands are in the program. The flags' groups are their categories; the help has groups,
// flags and commands in the order of the program. The command line keeps the rules.
func Prepare(app *cli.Command, rules Rules) {
	app.HideHelpCommand = true
	app.ExitErrHandler = func(context.Context, *cli.Command, error) {} // the caller prints the error
	app.OnUsageError = refuseUsage
	app.Action = func(_ context.Context, c *cli.Command) error {
		if c.Args().Present() {
			return unknownCommand(c, c.Args().First())
		}
		return cli.ShowRootCommandHelp(c)
	}

	for _, c := range app.Commands {
		prepareCommand(c, app.Name, rules)
	}
}

// prepareCommand gives a command the manners of this package. above is the name of the command that
// it is a part of.
func prepareCommand(c *cli.Command, above string, rules Rules) {
	if c.Metadata == nil {
		c.Metadata = map[string]any{}
	}

	c.Metadata[nameKey] = above + " " + c.Name
	c.OnUsageError = refuseUsage
	if len(c.Commands) > 0 && c.Action == nil {
		prepareGroup(c, rules)
		return
	}

	if len(c.Commands) > 0 {
		c.HideHelpCommand = true
		c.Metadata[actsKey] = true
		for _, sub := range c.Commands {
			prepareCommand(sub, NameOf(c), rules)
		}
	}

	for i, f := range c.Flags {
		c.Flags[i] = &checkedFlag{flag: f.(flag)}
	}

	rules.addRivals(c)

	action := c.Action
	c.Action = func(ctx context.Context, c *cli.Command) error {
		if group, ok := c.Metadata[apartKey].(groupApart); ok && c.Bool(group.flag) {
			printGroupHelp(c.Root().Writer, c, group)
			return nil
		}

		if err := refuseFlagsOfGroup(c); err != nil {
			return err
		}

		if err := checkArguments(c); err != nil {
			return err
		}

		if err := rules.check(c); err != nil {
			return err
		}

		if !c.Hidden {
			warnOfVariables(c)
		}

		return action(ctx, c)
	}
}

// prepareGroup gives a command that does nothing but have commands the manners of this package.
func prepareGroup(c *cli.Command, rules Rules) {
	c.HideHelpCommand = true
	c.Action = func(_ context.Context, c *cli.Command) error {
		if c.Args().Present() {
			return unknownCommand(c, c.Args().First())
		}
		printHelp(c.Root().Writer, c)
		return nil
	}

	for _, sub := range c.Commands {
		prepareCommand(sub, NameOf(c), rules)
	}
}

// isGroup reports whether a command does nothing but have commands.
func isGroup(c *cli.Command) bool { return len(c.Commands) > 0 && c.Metadata[actsKey] == nil }

// refuseFlagsOfGroup refuses flags that stand before the name of a subcommand: they belong to the command around it,
// and have no effect there.
func refuseFlagsOfGroup(c *cli.Command) error {
	lineage := c.Lineage()
	if len(lineage) < 2 {
		return nil
	}

	for _, f := range lineage[1].Flags {
		if f, ok := f.(*checkedFlag); ok && f.given {
			return exit.Usage("put it behind "+c.Name, "%s stands before %s", dashed(f.Names()[0]), c.Name)
		}
	}

	return nil
}

// NameOf returns the name of a command as it is typed, with those of the program and of the commands that
// it is a part of. [cli.Command.FullName] knows them only of the command that runs.
func NameOf(c *cli.Command) string {
	if name, ok := c.Metadata[nameKey].(string); ok {
		return name
	}
	return c.FullName()
}

// walkCommands calls visit for each command below another that is not hidden: for those of a command
// behind it.
func walkCommands(c *cli.Command, visit func(*cli.Command)) {
	for _, sub := range c.Commands {
		if !sub.Hidden {
			visit(sub)
			walkCommands(sub, visit)
		}
	}
}

// findCommand returns the command below another that words name one after the other, and the words after
// those.
func findCommand(c *cli.Command, words []string) (*cli.Command, []string) {
	for len(words) > 0 && c.Command(words[0]) != nil {
		c, words = c.Command(words[0]), words[1:]
	}
	return c, words
}

// namedCommand returns the command of the program that the arguments of another name.
func namedCommand(c *cli.Command) (*cli.Command, error) {
	named, rest := findCommand(c.Root(), c.Args().Slice())
	switch {
	case len(rest) > 0 && isGroup(named):
		return nil, unknownCommand(named, rest[0])
	case len(rest) > 0:
		return nil, unexpectedArguments(c, rest)
	}

	return named, nil
}

// ShowApart moves a group of a command's flags out of its help, into that of a flag. It must be
// called before [Prepare].
func ShowApart(c *cli.Command, group string, flag *cli.BoolFlag) {
	c.Flags = append(c.Flags, flag)
	c.Metadata = map[string]any{apartKey: groupApart{name: group, flag: flag.Name}}
}

// NewHelpCommand returns the command that prints the help of another.
func NewHelpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Usage:     "print the help of a command",
		ArgsUsage: "[COMMAND...]",
		Action: func(_ context.Context, c *cli.Command) error {
			named, err := namedCommand(c)
			if err != nil {
				return err
			}

			printHelp(c.Root().Writer, named)

			return nil
		},
	}
}

// showCommandHelp prints the help of a command by name, or of c itself where it has no commands.
func showCommandHelp(_ context.Context, c *cli.Command, name string) error {
	if len(c.Commands) > 0 && name != "" {
		named := c.Command(name)
		if named == nil {
			return unknownCommand(c, name)
		}
		c = named
	}

	printHelp(c.Root().Writer, c)

	return nil
}

// helpHint returns the hint to look at the help of a command.
func helpHint(c *cli.Command) string { return NameOf(c) + " --help lists all flags" }

// usageOf returns the line that shows how a command is typed.
func usageOf(c *cli.Command) string {
	line := NameOf(c)
	switch {
	case isGroup(c):
		return line + " COMMAND [FLAGS] [ARGUMENTS]"
	case hasOwnFlags(c):
		line += " [FLAGS]"
	}

	if c.ArgsUsage != "" {
		line += " " + c.ArgsUsage
	}

	return line
}
