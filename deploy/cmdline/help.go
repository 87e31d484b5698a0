package cmdline

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"
)

// Columns of the help.
const (
	defaultWidth = 80  // where the help goes to no terminal
	maxWidth     = 100 // longer lines are hard to read
	minWidth     = 40
	flagColumn   = 28 // where the descriptions of flags begin
)

// group is a heading of the help with the flags or commands below it.
type group[T any] struct {
	name  string
	items []T
}

// groupFlags returns the groups of a command's flags, in their order, without a group that is shown
// apart. The help's own flag is in the last group.
func groupFlags(c *cli.Command) (groups []group[flag]) {
	apart, _ := c.Metadata[apartKey].(groupApart)
	for _, f := range c.Flags {
		f := f.(flag)
		if f.GetCategory() != apart.name || apart.name == "" {
			groups = addToGroup(groups, f.GetCategory(), f)
		}
	}

	return groups
}

// groupCommands returns the groups of a program's commands, in their order.
func groupCommands(c *cli.Command) (groups []group[*cli.Command]) {
	for _, sub := range c.Commands {
		if !sub.Hidden {
			groups = addToGroup(groups, sub.Category, sub)
		}
	}
	return groups
}

// hasOwnFlags reports whether a command has other flags than that of the help, which all have.
func hasOwnFlags(c *cli.Command) bool { return len(c.Flags) > 1 }

// addToGroup adds an item to the group of a name. Without a name it goes to the last group.
func addToGroup[T any](groups []group[T], name string, item T) []group[T] {
	i := slices.IndexFunc(groups, func(g group[T]) bool { return g.name == name })
	if i < 0 && name == "" {
		i = len(groups) - 1
	}
	if i < 0 {
		i, groups = len(groups), append(groups, group[T]{name: name})
	}

	groups[i].items = append(groups[i].items, item)

	return groups
}

// printHelp prints the help of a program or of a command.
func printHelp(w io.Writer, c *cli.Command) {
	h := newHelp(w)
	h.printf("%s\n", wrap(NameOf(c)+": "+c.Usage, 0, h.width))
	h.printf("\nUsage: %s\n", wrap(usageOf(c), len("Usage: "), h.width))
	h.printDescription(c.Description)

	if len(c.Commands) > 0 {
		h.printCommands(c)
		h.printf("\n%s\n", wrap(NameOf(c)+" COMMAND --help prints the flags of a command.", 0, h.width))
	}
	if isGroup(c) {
		return
	}

	for _, g := range groupFlags(c) {
		h.printFlags(g)
	}

	if text := variablesText(c); text != "" {
		h.printf("\n%s\n", wrap(text, 0, h.width))
	}

	if apart, ok := c.Metadata[apartKey].(groupApart); ok {
		h.printf("%s --%s lists the %s's flags.\n", NameOf(c), apart.flag, strings.ToLower(apart.name))
	}
}

// printGroupHelp prints the help of the group that is shown apart.
func printGroupHelp(w io.Writer, c *cli.Command, apart groupApart) {
	h := newHelp(w)
	g := group[flag]{name: apart.name}
	for _, f := range c.Flags {
		if f := f.(flag); f.GetCategory() == apart.name {
			g.items = append(g.items, f)
		}
	}

	h.printf("%s\n", wrap("The "+strings.ToLower(apart.name)+"'s flags of "+NameOf(c)+".", 0, h.width))
	h.printFlags(g)
}

// variablesText says which environment variables a command's flags have: the rule with an example,
// and the variables that do not follow it. It is empty for a command whose flags have none.
func variablesText(c *cli.Command) string {
	var examples []string
	for _, f := range c.Flags {
		names := f.(flag).GetEnvVars()
		if len(names) > 0 && (len(examples) == 0 || !slices.Equal(names, []string{variableOf(f)})) {
			examples = append(examples, dashed(f.Names()[0])+" is "+strings.Join(names, " or "))
		}
	}

	if len(examples) == 0 {
		return ""
	}

	return "Each flag is also an environment variable: " + strings.Join(examples, ", ") + "."
}

// help is a help on its way to a person.
type help struct {
	w io.Writer
	// width is the number of columns of a line.
	width int
}

// newHelp returns the help for w, which may be a terminal.
func newHelp(w io.Writer) help {
	h := help{w: w, width: defaultWidth}
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			h.width = max(minWidth, min(maxWidth, columns-1)) // some terminals wrap a full line
		}
	}

	return h
}

func (h help) printf(format string, args ...any) { fmt.Fprintf(h.w, format, args...) }

// printDescription prints the paragraphs of a description. Lines that begin with a space are
// printed as they are.
func (h help) printDescription(text string) {
	if text == "" {
		return
	}

	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			h.printf("\n%s\n", paragraph)
			continue
		}
		h.printf("\n%s\n", wrap(strings.ReplaceAll(paragraph, "\n", " "), 0, h.width))
	}
}

// printCommands prints the groups of a program's commands.
func (h help) printCommands(c *cli.Command) {
	column := 0
	for _, sub := range c.Commands {
		column = max(column, len(sub.Name)+4)
	}

	for _, g := range groupCommands(c) {
		h.printf("\n%s:\n", cmp.Or(g.name, "Commands"))
		for _, sub := range g.items {
			h.printf("  %-*s%s\n", column-2, sub.Name, wrap(sub.Usage, column, h.width))
		}
	}
}

// printFlags prints a group of flags.
func (h help) printFlags(g group[flag]) {
	h.printf("\n%s:\n", g.name)

	column := min(flagColumn, h.width/2)
	for _, f := range g.items {
		head := headOf(f)
		if len(head)+2 > column {
			h.printf("%s\n", head)
			head = ""
		}
		h.printf("%-*s%s\n", column, head, wrap(describeFlag(f), column, h.width))
	}
}

// headOf returns the names of a flag and of its value, as the help has them.
func headOf(f flag) string {
	head := typedNames(f)
	if strings.HasPrefix(head, "--") {
		head = "    " + head // below the long names of flags with a short one
	}

	if value := metavar(f); value != "" {
		head += " " + value
	}

	return "  " + head
}

// typedNames returns the names of a flag as they are typed, the short one first.
func typedNames(f flag) string {
	text := dashed(f.Names()[0])
	for _, name := range f.Names()[1:] {
		text = dashed(name) + ", " + text
	}
	return text
}

// wrap returns a text in lines of a width. Lines after the first begin at a column.
func wrap(text string, column, width int) string {
	var b strings.Builder
	at := column
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case at+1+len(word) > width:
			b.WriteString("\n" + strings.Repeat(" ", column))
			at = column
		default:
			b.WriteByte(' ')
			at++
		}

		b.WriteString(word)
		at += len(word)
	}

	return b.String()
}
