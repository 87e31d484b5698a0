package main

import (
	"context"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

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
	control := controlCommands(env)
	app := &cli.Command{
		Name:  "promptmill",
		Usage: "run files of prompts through language models that you host",
		Description: `A file of prompts goes in, zstd-compressed JSONL comes out. Pull the plug at any moment: the
same command resumes where it was.

For a first try, with a simulated model server:

  promptmill run prompts.jsonl --sim

Exit codes:

  0    done
  1    error
  2    wrong usage, or an invalid input
  3    done, but some requests failed
  4    the bus or a model server cannot be reached, or refuses all requests
  5    stopped by --fail-if, --max-failures or --max-tokens; it can be resumed
  130  interrupted; the same command resumes it`,
		Commands: slices.Concat(
			inGroup(groupRun, runCommand(env), trialCommand(env), simCommand(env), doctorCommand(env)),
			inGroup(groupResults, exportCommand(env), verifyCommand(env), reportCommand(env), compareCommand(env),
				historyCommand(env)),
			inGroup(groupBoxes, serveCommand(env), workerCommand(env), submitCommand(env), collectCommand(env),
				joinCommand(env), keyCommand(env), natsConfigCommand(env)),
			inGroup(groupRuns, slices.Concat([]*cli.Command{
				listCommand(env), statusCommand(env), workersCommand(env), tailCommand(env),
			}, control, []*cli.Command{webhooksCommand(env)})...),
			inGroup(groupOther, cmdline.NewCompletionCommands(completionValues(env))...),
			inGroup(groupOther, cmdline.NewManCommand(), versionCommand(env), cmdline.NewHelpCommand()),
		),
		Version:   readBuild().String(),
		Writer:    env.stdout,
		ErrWriter: env.stderr,
	}

	prepareCommands(env, app.Commands)
	cmdline.Prepare(app, flagRules())

	return app
}

// prepareCommands sorts the flags of commands, and has those end at a signal that do not handle it.
func prepareCommands(env environment, commands []*cli.Command) {
	for _, c := range commands {
		if len(c.Commands) > 0 {
			prepareCommands(env, c.Commands)
		}
		if len(c.Commands) > 0 && c.Action == nil {
			continue
		}

		if c.Name == "run" || c.Name == "worker" {
			cmdline.ShowApart(c, groupSim, &cli.BoolFlag{
				Name:        "help-sim",
				Category:    groupGeneral,
				Usage:       "print the simulator's flags",
				HideDefault: true,
			})
		}

		if c.Action != nil {
			refuseOnWindows(c)
		}

		sortFlags(c.Flags)
		if !slices.Contains(stopThemselves, c.Name) {
			endAtSignal(c, env)
		}
	}
}

// inGroup puts commands into a group of the help.
func inGroup(group string, commands ...*cli.Command) []*cli.Command {
	for _, c := range commands {
		c.Category = group
	}
	return commands
}
