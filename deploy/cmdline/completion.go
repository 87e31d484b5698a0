package cmdline

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// completeName is the hidden command that the scripts call at each Tab, with the words of the
// command line up to the cursor.
const completeName = "__complete"

// The scripts, with PROGRAM for the name of the program.
var (
	//go:embed completion.bash
	bashScript string
	//go:embed completion.zsh
	zshScript string
	//go:embed completion.fish
	fishScript string
)

// Values returns the values that a flag or an argument can have. c has the flags of the command
// line so far. A value may have a description behind a tab.
type Values func(ctx context.Context, c *cli.Command) []string

// NewCompletionCommands returns the command that prints the completion of a shell, and the
// hidden one that answers it. values has the values of flags and arguments by the names that
// the help has for them: RUN, or MODE for a flag "--progress MODE". Names of files and folders
// (FILE, INPUT, DIR ...) need none, nor do arguments that list their values, such as
// [bash|zsh|fish].
func NewCompletionCommands(values map[string]Values) []*cli.Command {
	scripts := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}

	return []*cli.Command{
		{
			Name:      "completion",
			Usage:     "print the completion script for a shell",
			ArgsUsage: "bash|zsh|fish",
			Description: `The script completes commands, flags, their values, files, and the ids of runs. It needs no
other package. To use it in each new shell:

  bash, in ~/.bashrc:  eval "$(promptmill completion bash)"
  zsh, in ~/.zshrc:    eval "$(promptmill completion zsh)"
  fish, once:          promptmill completion fish \
                         > ~/.config/fish/completions/promptmill.fish`,
			Action: func(_ context.Context, c *cli.Command) error {
				if !c.Args().Present() {
					return exit.Usage("for example: "+c.FullName()+" bash", "want the name of a shell")
				}

				script, ok := scripts[c.Args().First()]
				if !ok {
					return exit.Usage("want bash, zsh or fish", "there is no completion for the shell %q",
						c.Args().First())
				}

				_, err := io.WriteString(c.Root().Writer, strings.ReplaceAll(script, "PROGRAM", c.Root().Name))

				return err
			},
		},
		{
			Name:            completeName,
			Hidden:          true,
			ArgsUsage:       "WORD...",
			SkipFlagParsing: true,
			Action: func(ctx context.Context, c *cli.Command) error {
				done := parseLine(c.Root(), c.Args().Slice()).complete(ctx, values)
				fmt.Fprintln(c.Root().Writer, done.kind)
				for _, value := range done.values {
					fmt.Fprintln(c.Root().Writer, value)
				}
				return nil
			},
		},
	}
}

// line is a command line up to the cursor.
type line struct {
	root *cli.Command
	// group is the command whose commands can follow: the program, or one that has commands of its own.
	group *cli.Command
	// command is the command on the line. Nil if its name is not complete yet.
	command *cli.Command
	// words are the words behind the command and before the cursor.
	words []string
	// current is the word at the cursor, as far as it is typed.
	current string

	// given are the names of the flags in words.
	given map[string]bool
	// flag is the flag whose value current is. Nil for none.
	flag flag
	// arguments is the number of arguments in words.
	arguments int
	// onlyArguments is set behind --.
	onlyArguments bool
}

// completion is the answer to a Tab.
type completion struct {
	// kind is "files" or "folders" if the shell completes those too, or else "words".
	kind string
	// values are the values that begin with the current word, each with a description behind a tab.
	values []string
}

// parseLine parses the words of a command line, of which the last is at the cursor.
func parseLine(root *cli.Command, words []string) line {
	if len(words) == 0 {
		words = []string{""}
	}

	l := line{root: root, group: root, current: words[len(words)-1], given: map[string]bool{}}
	words = words[:len(words)-1]
	for i, word := range words {
		c := l.group.Command(word)
		if c == nil || strings.HasPrefix(word, "-") {
			continue
		}

		if len(c.Commands) > 0 {
			l.group = c
		}
		if isGroup(c) || slices.ContainsFunc(words[i+1:], func(w string) bool { return c.Command(w) != nil }) {
			continue
		}

		l.command, l.words = c, words[i+1:]

		break
	}

	for i := 0; i < len(l.words) && l.command != nil; i++ {
		word := l.words[i]
		switch {
		case word == "--":
			l.onlyArguments = true
			l.arguments += len(l.words) - i - 1
			return l
		case !isFlag(word):
			l.arguments++
			continue
		}

		name, _, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		f := findFlag(l.command, name)
		if f == nil {
			continue
		}

		l.given[f.Names()[0]] = true
		if f.TakesValue() && !joined {
			if i++; i == len(l.words) {
				l.flag = f
			}
		}
	}

	return l
}

// isFlag reports whether a word is a flag, as urfave/cli sees it.
func isFlag(word string) bool {
	name := strings.TrimLeft(word, "-")
	return name != word && name != "" && unicode.IsLetter([]rune(name)[0])
}

// findFlag returns the flag of a command with a name. It is nil if there is none.
func findFlag(c *cli.Command, name string) flag {
	for _, f := range c.Flags {
		if f, ok := f.(flag); ok && slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// complete returns the values that the word at the cursor can have.
func (l line) complete(ctx context.Context, values map[string]Values) completion {
	flagName, value, joined := strings.Cut(l.current, "=")
	switch {
	case l.flag != nil:
		return l.completeValue(ctx, values, metavar(l.flag), "", l.current)
	case l.command == nil && strings.HasPrefix(l.current, "-"):
		return l.filter(l.listGroupFlags(), "", l.current)
	case l.command == nil:
		return l.filter(listCommands(l.group), "", l.current)
	case !l.onlyArguments && joined && isFlag(flagName):
		if f := findFlag(l.command, strings.TrimLeft(flagName, "-")); f != nil {
			return l.completeValue(ctx, values, metavar(f), flagName+"=", value)
		}
		return completion{kind: "words"}
	case !l.onlyArguments && strings.HasPrefix(l.current, "-"):
		return l.filter(l.listFlags(), "", l.current)
	}

	if name := l.argument(); name != "" {
		done := l.completeValue(ctx, values, name, "", l.current)
		if l.arguments == 0 { // a command of this command may stand here too
			done.values = append(done.values, l.filter(listCommands(l.command), "", l.current).values...)
		}
		return done
	}

	if !l.onlyArguments {
		return l.filter(l.listFlags(), "", l.current)
	}

	return completion{kind: "words"}
}

// argument returns the name of the argument at the cursor in the usage of its command. It is
// empty if the command takes no more.
func (l line) argument() string {
	names := strings.Fields(l.command.ArgsUsage)
	if len(names) == 0 {
		return ""
	}

	last := names[len(names)-1]
	switch {
	case l.arguments < len(names):
		return strings.Trim(names[l.arguments], "[].")
	case strings.Contains(l.command.ArgsUsage, "..."):
		return strings.Trim(last, "[].")
	}

	return ""
}

// completeValue completes the value of a flag or of an argument with a name. prefix is the part
// of the word before the value.
func (l line) completeValue(
	ctx context.Context, values map[string]Values, name, prefix, typed string,
) completion {
	if strings.HasSuffix(name, ",...") { // one of several values
		if comma := strings.LastIndex(typed, ","); comma >= 0 {
			prefix, typed = prefix+typed[:comma+1], typed[comma+1:]
		}
	}

	var all []string
	switch source := values[name]; {
	case source != nil:
		all = source(ctx, l.parseFlags())
	case name == "COMMAND" && l.flag == nil && prefix == "":
		all = l.listNamed()
	case strings.Contains(name, "|"):
		all = strings.Split(name, "|")
	}

	done := l.filter(all, prefix, typed)
	done.kind = kindOf(name)

	return done
}

// kindOf returns what the shell completes for the name of a value.
func kindOf(name string) string {
	switch {
	case name == "DIR":
		return "folders"
	case slices.Contains([]string{"FILE", "PATH", "INPUT", "META"}, name), strings.Contains(name, ".jsonl"):
		return "files"
	}
	return "words"
}

// filter returns the values that begin with the typed text, behind a prefix.
func (l line) filter(all []string, prefix, typed string) completion {
	done := completion{kind: "words"}
	for _, value := range all {
		if strings.HasPrefix(value, typed) {
			done.values = append(done.values, prefix+value)
		}
	}

	return done
}

// listGroupFlags lists the flags that can stand where a command is wanted.
func (l line) listGroupFlags() []string {
	if l.group == l.root {
		return []string{"--help", "--version"}
	}
	return []string{"--help"}
}

// listNamed lists the commands that can follow as arguments, those of the command that the arguments name
// so far.
func (l line) listNamed() []string {
	named, rest := findCommand(l.root, slices.DeleteFunc(slices.Clone(l.words), isFlag))
	if len(rest) > 0 {
		return nil
	}
	return listCommands(named)
}

// listCommands lists the commands of a program or of a command.
func listCommands(above *cli.Command) (list []string) {
	for _, c := range above.Commands {
		if !c.Hidden {
			list = append(list, c.Name+"\t"+c.Usage)
		}
	}
	return list
}

// listFlags lists the flags that can follow: without those that are given and cannot be
// repeated, and without those that the help shows apart, until more than the dashes is typed.
func (l line) listFlags() (list []string) {
	apart, _ := l.command.Metadata[apartKey].(groupApart)
	for _, f := range l.command.Flags {
		f, ok := f.(flag)
		if !ok || l.given[f.Names()[0]] && !f.IsMultiValueFlag() ||
			len(l.current) <= 2 && apart.name != "" && f.GetCategory() == apart.name {
			continue
		}

		_, description := splitUsage(f)
		list = append(list, dashed(f.Names()[0])+"\t"+description)
	}

	return list
}

// parseFlags returns the command of the line with its flags set, from the line and the environment.
// Flags that are wrong are left out.
func (l line) parseFlags() *cli.Command {
	parsed := l.command
	l.command.OnUsageError = func(_ context.Context, _ *cli.Command, err error, _ bool) error { return err }
	l.command.Action = func(_ context.Context, c *cli.Command) error {
		parsed = c
		return nil
	}

	words := slices.DeleteFunc(slices.Clone(l.words), func(word string) bool {
		return word == "--help" || word == "-h"
	})
	if l.flag != nil {
		words = words[:len(words)-1] // its value is not there yet
	}

	l.command.Run(context.Background(), append([]string{l.command.Name}, words...))

	return parsed
}
