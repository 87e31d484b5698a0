package main

import (
	"context"
	"runtime"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// unixCommands keep a journal or the store of a bus. They rename and remove files that are open, sync folders and end
// groups of processes, which Windows does not do as Unix does. What a crash would leave there is not known.
var unixCommands = []string{"run", "trial", "serve", "collect"}

// checkSystem refuses a command that does not keep its promises on an operating system.
func checkSystem(system, command string) error {
	if system == "windows" && slices.Contains(unixCommands, command) {
		return exit.Usage("run it in WSL, or on a box with Linux or macOS that a worker here joins: promptmill worker --help",
			"promptmill %s does not run on Windows, where a crash could cost answers", command)
	}
	return nil
}

// refuseOnWindows has a command refused where it does not keep its promises.
func refuseOnWindows(c *cli.Command) {
	act := c.Action
	c.Action = func(ctx context.Context, c *cli.Command) error {
		if err := checkSystem(runtime.GOOS, c.Name); err != nil {
			return err
		}
		return act(ctx, c)
	}
}
