package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// version is set by the release build: -ldflags "-X main.version=v1.2.3".
var version string

// run executes a command line and returns the exit code.
func run(ctx context.Context, env environment) int {
	err := newApp(env).Run(ctx, env.args)
	if err != nil {
		terminal.PrintError(env.stderr, err)
	}

	return exit.Code(err)
}

// newApp returns the program with all of its commands.
func newApp(env environment) *cli.Command {
	app := &cli.Command{
		Name:  "promptmill",
		Usage: "run files of prompts through language models that you host",
		Description: "A file of prompts goes in, zstd-compressed JSONL comes out. Pull the plug at any\n" +
			"moment: the same command resumes where it was.\n\n" +
			"Exit codes: 0 done, 1 error, 2 usage or invalid input, 3 done but some requests\n" +
			"failed, 4 bus or model server not reachable, or it refuses all requests, 130 interrupted, can be resumed.",
		Commands: slices.Concat([]*cli.Command{
			runCommand(env), workerCommand(env), serveCommand(env), submitCommand(env), collectCommand(env),
			listCommand(env), statusCommand(env), workersCommand(env), tailCommand(env),
		}, controlCommands(env), []*cli.Command{
			joinCommand(env), natsConfigCommand(env), verifyCommand(env), doctorCommand(env),
			reportCommand(env), compareCommand(env), historyCommand(env), simCommand(env), versionCommand(env),
		}),
		Version:               versionText(),
		HideVersion:           true,
		EnableShellCompletion: true,
		Suggest:               true,
		Writer:                env.stdout,
		ErrWriter:             env.stderr,
		ExitErrHandler:        func(context.Context, *cli.Command, error) {}, // run prints the error
	}

	setUsageErrors(app)
	for _, c := range app.Commands {
		if !slices.Contains(stopThemselves, c.Name) {
			endAtSignal(c, env)
		}
	}

	return app
}

// setUsageErrors turns errors of the flags into usage errors that point to the help.
func setUsageErrors(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, c *cli.Command, err error, _ bool) error {
		return exit.Usage(c.FullName()+" --help shows all flags", "%w", err)
	}

	for _, sub := range c.Commands {
		setUsageErrors(sub)
	}

	if c.Action == nil {
		c.Action = func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return exit.Usage("promptmill --help lists the commands", "there is no command %q", c.Args().First())
			}
			return cli.ShowRootCommandHelp(c)
		}
	}
}

// flagEnv returns the environment variable of a flag.
func flagEnv(name string) cli.ValueSourceChain {
	return variables("PROMPTMILL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
}

// variables returns a source that takes the first environment variable that is set.
func variables(names ...string) cli.ValueSourceChain {
	var chain cli.ValueSourceChain
	for _, name := range names {
		chain.Chain = append(chain.Chain, variable(name))
	}
	return chain
}

// variable is an environment variable. An empty one counts as not set, so that compose and unit
// files can leave a value empty.
type variable string

// Lookup implements [cli.ValueSource].
func (v variable) Lookup() (string, bool) {
	value := os.Getenv(string(v))
	return value, value != ""
}

// String implements [cli.ValueSource].
func (v variable) String() string { return "environment variable " + string(v) }

// GoString implements [cli.ValueSource].
func (v variable) GoString() string { return fmt.Sprintf("variable(%q)", string(v)) }

// IsFromEnv implements [cli.EnvValueSource], for the help.
func (v variable) IsFromEnv() bool { return true }

// Key implements [cli.EnvValueSource].
func (v variable) Key() string { return string(v) }

func versionCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the versions of promptmill and Go",
		Action: func(context.Context, *cli.Command) error {
			_, err := fmt.Fprintf(env.stdout, "promptmill %s %s %s/%s\n", versionText(), runtime.Version(),
				runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// versionText returns the version of the release or of the commit.
func versionText() string {
	if version != "" {
		return version
	}

	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) > 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}

	return "dev"
}
