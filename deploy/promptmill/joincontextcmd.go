package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/buscontext"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/secretfile"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// joinContextCommands are the commands of join for the contexts of this user.
func joinContextCommands(env environment) []*cli.Command {
	return []*cli.Command{
		joinSaveCommand(env),
		joinContextsCommand(env),
		joinSelectCommand(env),
		joinForgetCommand(env),
	}
}

func joinSaveCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "keep a bus under a name, for --context NAME",
		ArgsUsage: "NAME",
		Description: "The join string is read from standard input. --join-file, or --nats with its user and its " +
			"files, name another bus. A context of that name is replaced. The context is in a file that only you may read.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{
				Name:     "select",
				Category: groupBus,
				Usage:    "use it where no bus is named, as join select does",
			},
		}, savedBusFlags()...),
		Action: func(_ context.Context, c *cli.Command) error {
			name, err := parseContextName(c)
			if err != nil {
				return err
			}

			saved, err := readContext(env, c)
			if err != nil {
				return err
			}

			return saveContext(env, name, saved, c.Bool("select"))
		},
	}
}

// savedBusFlags returns the flags of a bus that a context may have. No variable sets them: it would hide what
// standard input has.
func savedBusFlags() (flags []cli.Flag) {
	for _, f := range namedBusFlags() {
		text, ok := f.(*cli.StringFlag)
		if !ok || slices.Contains([]string{"join", "context", "state"}, text.Name) {
			continue
		}

		text.Local, text.Sources = true, cli.ValueSourceChain{}
		flags = append(flags, text)
	}

	return flags
}

// parseContextName reads the only argument of a command: the name of a context.
func parseContextName(c *cli.Command) (string, error) {
	name := c.Args().First()
	if name == "" {
		return "", exit.Usage("promptmill join contexts shows the contexts", "want the name of one context")
	}

	if err := buscontext.CheckName(name); err != nil {
		return "", exit.Usage("choose another name, for example head", "the name of the context, %w", err)
	}

	return name, nil
}

// readContext returns the context that the flags or standard input have.
func readContext(env environment, c *cli.Command) (saved buscontext.Context, err error) {
	o := parseNamedBus(env, c)
	if !o.External() {
		j, err := readJoin(env.stdin)
		return buscontext.Context{Join: j.String()}, err
	}

	if err := o.Check(); err != nil {
		return saved, err
	}

	if o.Joins() {
		j, err := o.ParseJoin()
		return buscontext.Context{Join: j.String()}, err
	}

	if o.User == "" {
		o.Password = "" // NATS_PASSWORD without a user means nothing
	}

	saved = buscontext.Context{
		URL:         o.URL,
		User:        o.User,
		Password:    o.Password,
		Credentials: absolutePath(o.Credentials),
		CA:          absolutePath(o.CA),
		Certificate: absolutePath(o.Certificate),
		Key:         absolutePath(o.Key),
	}
	if o.PasswordFile != nil {
		saved.Password, saved.PasswordFile = "", absolutePath(o.PasswordFile.Path())
	}

	return saved, nil
}

// absolutePath returns the absolute path of a file; of none, none.
func absolutePath(path string) string {
	if absolute, err := filepath.Abs(path); path != "" && err == nil {
		return absolute
	}
	return path
}

// readJoin reads a join string from standard input: at a terminal a line, which is not shown.
func readJoin(stdin io.Reader) (proto.Join, error) {
	text, err := readSecret(stdin)
	if err != nil {
		return proto.Join{}, err
	}

	if strings.TrimSpace(text) == "" {
		return proto.Join{}, exit.Usage("for example promptmill join save head < FILE, or name the bus with --join-file "+
			"or --nats", "standard input has no join string")
	}

	j, err := proto.ParseJoin(text)
	if err != nil {
		return j, exit.Usage("paste all of it, as promptmill serve or run --listen has printed it", "standard input: %w", err)
	}

	return j, nil
}

// readSecret is readJoin before the text is parsed.
func readSecret(stdin io.Reader) (string, error) {
	if file, ok := stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		fmt.Fprint(os.Stderr, "join string (it is not shown): ")
		text, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(os.Stderr)

		return string(text), err
	}

	text, err := io.ReadAll(io.LimitReader(stdin, secretfile.MaxBytes))

	return string(text), err
}

// saveContext keeps a bus under the name of a context, and prints both.
func saveContext(env environment, name string, saved buscontext.Context, selects bool) error {
	folder, err := buscontext.OpenDefault(env.getenv)
	if err != nil {
		return err
	}

	if err := folder.Save(name, saved); err != nil {
		return err
	}

	fmt.Fprintf(env.stdout, "saved context %s: %s\n", name, describeContext(saved))
	if selects {
		return selectContext(env, folder, name)
	}

	env.printf("to use it: --context %s, or promptmill join select %s", name, name)

	return nil
}

// describeContext describes a context without its secrets.
func describeContext(c buscontext.Context) string {
	if c.Join == "" {
		return busconn.RedactURLs(c.URL)
	}

	j, err := proto.ParseJoin(c.Join)
	if err != nil {
		return err.Error()
	}

	return "the bus at " + strings.Join(j.Addresses, ", ")
}

// roleOfContext returns the role, or the user of a NATS server, that a context has; a dash if neither is known.
func roleOfContext(c buscontext.Context) string {
	if j, err := proto.ParseJoin(c.Join); c.Join != "" && err == nil {
		return string(j.Role)
	}

	user, _, _ := strings.Cut(c.User, ":")

	return cmp.Or(user, "-")
}

// shownContext is a context as JSON for programs.
type shownContext struct {
	Name     string `json:"name"`
	Selected bool   `json:"selected"`
	Bus      string `json:"bus"`
	Role     string `json:"role"`
	Error    string `json:"error,omitempty"`
}

func joinContextsCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "contexts",
		Usage: "list the buses that join save has kept",
		Flags: []cli.Flag{jsonFlag()},
		Action: func(_ context.Context, c *cli.Command) error {
			list, err := listContexts(env)
			switch {
			case err != nil:
				return err
			case c.Bool("json"):
				return printJSON(env.stdout, list)
			case len(list) == 0:
				env.printf("there are no contexts; promptmill join save NAME makes one")
				return nil
			}

			return printContexts(env, list)
		},
	}
}

// listContexts returns all contexts. The error of one is in its place.
func listContexts(env environment) ([]shownContext, error) {
	folder, err := buscontext.OpenDefault(env.getenv)
	if err != nil {
		return nil, err
	}

	names, err := folder.Names()
	if err != nil {
		return nil, err
	}

	selected, err := folder.Selected()
	if err != nil {
		return nil, err
	}

	list := []shownContext{} // never null
	for _, name := range names {
		shown := shownContext{Name: name, Selected: name == selected, Role: "-"}
		if saved, err := folder.Load(name); err != nil {
			shown.Error = err.Error()
		} else {
			shown.Bus, shown.Role = describeContext(saved), roleOfContext(saved)
		}
		list = append(list, shown)
	}

	return list, nil
}

// printContexts prints contexts as a table.
func printContexts(env environment, list []shownContext) error {
	cells := terminal.CellsOf(list)

	width, _ := terminalSize(env.stdout)

	return terminal.Columns{
		{Head: "CONTEXT", Cells: cells(func(s shownContext) string { return s.Name })},
		{Head: "SELECTED", Cells: cells(func(s shownContext) string {
			if s.Selected {
				return "yes"
			}
			return "-"
		})},
		{Head: "ROLE", Cells: cells(func(s shownContext) string { return s.Role })},
		{
			Head:  "BUS",
			Cells: cells(func(s shownContext) string { return cmp.Or(s.Error, s.Bus) }),
			CutAt: 1,
			Least: 20,
		},
	}.Print(env.stdout, width)
}

func joinSelectCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "select",
		Usage:     "use a kept bus where none is named",
		ArgsUsage: "[CONTEXT]",
		Description: "A flag or an environment variable that names a bus comes first. Commands that start a bus of their " +
			"own (run, trial, serve) use a context only if it is named.",
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name:     "none",
				Category: groupBus,
				Usage:    "select none: commands use the bus of this machine again",
			},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			folder, err := buscontext.OpenDefault(env.getenv)
			if err != nil {
				return err
			}

			if c.Bool("none") && !c.Args().Present() {
				return selectContext(env, folder, "")
			}
			if c.Bool("none") {
				return exit.Usage("leave out one of them", "--none selects no context, and %s names one", c.Args().First())
			}

			name, err := parseContextName(c)
			if err != nil {
				return err
			}

			return selectContext(env, folder, name)
		},
	}
}

// selectContext selects a context, or none, and prints that.
func selectContext(env environment, folder *buscontext.Folder, name string) error {
	if err := folder.Select(name); err != nil {
		return explainContext(folder, name, err, false)
	}

	if name == "" {
		fmt.Fprintln(env.stdout, "no context is selected")
		return nil
	}

	fmt.Fprintf(env.stdout, "selected context %s\n", name)

	return nil
}

func joinForgetCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "forget",
		Usage:     "remove a kept bus",
		ArgsUsage: "CONTEXT",
		Action: func(_ context.Context, c *cli.Command) error {
			name, err := parseContextName(c)
			if err != nil {
				return err
			}

			folder, err := buscontext.OpenDefault(env.getenv)
			if err != nil {
				return err
			}

			if err := folder.Forget(name); err != nil {
				return explainContext(folder, name, err, false)
			}

			fmt.Fprintf(env.stdout, "forgot context %s\n", name)

			return nil
		},
	}
}
