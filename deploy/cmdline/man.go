package cmdline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// sourceWidth is the width of a page's text in the source, where roff's escapes make it longer.
// roff fills the lines itself.
const sourceWidth = 60

// NewManCommand returns the command that prints pages for man: the help of the program and of its
// commands, as roff.
func NewManCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print a man page, or write them all",
		ArgsUsage: "[COMMAND...]",
		Description: `To read the page of a command:

  promptmill man run | man -l -

To install all pages:

  promptmill man --dir /usr/local/share/man/man1`,
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name:     "dir",
				Category: GeneralGroup,
				Usage:    "`DIR`: write the pages of all commands into this folder",
				Local:    true, // PROMPTMILL_DIR is for serve
			},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			root := c.Root()
			switch dir := c.String("dir"); {
			case dir != "" && c.Args().Present():
				return exit.Usage("leave out one of them",
					"--dir writes the pages of all commands, and not of %s", strings.Join(c.Args().Slice(), " "))
			case dir != "":
				return writePages(root, dir)
			}

			named, err := namedCommand(c)
			if err != nil {
				return err
			}

			return writePage(root.Writer, root, named)
		},
	}
}

// writePages writes the pages of a program and of its commands into a folder.
func writePages(root *cli.Command, dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return exit.Usage("mkdir -p "+dir, "there is no folder %s", dir)
	}

	all := []*cli.Command{root}
	walkCommands(root, func(c *cli.Command) { all = append(all, c) })

	for _, c := range all {
		var page bytes.Buffer
		writePage(&page, root, c)
		if err := os.WriteFile(filepath.Join(dir, pageName(c)+".1"), page.Bytes(), 0o666); err != nil {
			return err
		}
	}

	return nil
}

// pageName returns the name of a command's page.
func pageName(c *cli.Command) string { return strings.ReplaceAll(NameOf(c), " ", "-") }

// writePage writes the page of a program or of a command of it.
func writePage(w io.Writer, root, c *cli.Command) error {
	version := strings.Join(strings.Fields(root.Version)[:2], " ")

	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %s 1 \"\" %q \"User Commands\"\n", strings.ToUpper(pageName(c)), version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Usage))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fR%s\n",
		roff(NameOf(c)), roff(strings.TrimPrefix(usageOf(c), NameOf(c))))

	if c.Description != "" {
		b.WriteString(".SH DESCRIPTION\n")
		writeParagraphs(&b, c.Description)
	}

	if len(c.Commands) > 0 {
		writeCommandList(&b, c)
	}
	if !isGroup(c) {
		writeFlagList(&b, root, c)
	}

	_, err := w.Write(b.Bytes())

	return err
}

// writeParagraphs writes the paragraphs of a description. Lines that begin with a space stay as
// they are.
func writeParagraphs(b *bytes.Buffer, text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}

		if strings.HasPrefix(paragraph, " ") {
			fmt.Fprintf(b, ".nf\n%s\n.fi\n", roff(paragraph))
		} else {
			fmt.Fprintf(b, "%s\n", roff(wrap(paragraph, 0, sourceWidth)))
		}
	}
}

// writeCommandList writes the commands of a program.
func writeCommandList(b *bytes.Buffer, c *cli.Command) {
	b.WriteString(".SH COMMANDS\n")
	for _, g := range groupCommands(c) {
		if g.name != "" {
			fmt.Fprintf(b, ".SS %s\n", roff(g.name))
		}
		for _, sub := range g.items {
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR(1)\n%s\n", roff(pageName(sub)), roff(sub.Usage))
		}
	}
}

// writeFlagList writes the flags of a command, with those that the help shows apart.
func writeFlagList(b *bytes.Buffer, root, c *cli.Command) {
	b.WriteString(".SH OPTIONS\n")

	var groups []group[flag]
	for _, f := range c.Flags {
		f := f.(flag)
		groups = addToGroup(groups, f.GetCategory(), f)
	}

	for _, g := range groups {
		fmt.Fprintf(b, ".SS %s\n", roff(g.name))
		for _, f := range g.items {
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR", roff(typedNames(f)))
			if value := metavar(f); value != "" {
				fmt.Fprintf(b, " \\fI%s\\fR", roff(value))
			}
			fmt.Fprintf(b, "\n%s\n", roff(wrap(describeFlag(f), 0, sourceWidth)))
		}
	}

	if text := variablesText(c); text != "" {
		fmt.Fprintf(b, ".SH ENVIRONMENT\n%s\n", roff(wrap(text, 0, sourceWidth)))
	}

	fmt.Fprintf(b, ".SH SEE ALSO\n\\fB%s\\fR(1)\n", roff(root.Name))
}

// roff returns a text as roff prints it: no character is markup.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}

	return strings.Join(lines, "\n")
}
