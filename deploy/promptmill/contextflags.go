package main

import (
	"cmp"
	"errors"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/buscontext"
	"github.com/promptmill/promptmill/deploy/cmdline"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/secretfile"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// contextFlag is the flag of commands that use a bus.
func contextFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "context",
		Category: groupBus,
		Usage:    "`CONTEXT`: bus that promptmill join save has kept under this name",
	}
}

// startOwnBus are the commands that start a bus unless one is named. They do not use the selected context.
var startOwnBus = []string{"run", "trial", "serve"}

// applyContext adds the context that the command line or the environment names or else, where no bus is
// named, the selected one. A state folder that is typed names the bus in it. A context that cannot be used
// is in Problem.
func applyContext(env environment, c *cli.Command, o *busconn.Options) {
	name := c.String("context")
	if name == "" && (o.External() || cmdline.IsTyped(c, "state") || slices.Contains(startOwnBus, c.Name)) {
		return
	}

	if name != "" && (o.Joins() || o.URL != "" && o.URLVariable != "NATS_URL") {
		o.Problem = exit.Usage("leave out one of them, also in the environment",
			"--context names a bus, and so does --join, --join-file or --nats")
		return
	}

	folder, err := buscontext.OpenDefault(env.getenv)
	if err != nil {
		if name != "" {
			o.Problem = err
		}
		return
	}

	if name == "" {
		if name, err = folder.Selected(); err != nil || name == "" {
			o.Problem = err
			return
		}
		o.ContextSelected = true
	}

	o.Context = name
	saved, err := folder.Load(name)
	if err != nil {
		o.Problem = explainContext(folder, name, err, o.ContextSelected)
		return
	}

	useContext(o, saved)
}

// useContext has the options name the bus of a context.
func useContext(o *busconn.Options, saved buscontext.Context) {
	o.Join, o.URL, o.URLVariable = saved.Join, saved.URL, ""
	o.User, o.Password, o.PasswordFile = saved.User, cmp.Or(saved.Password, o.Password), nil
	o.Credentials, o.CA, o.Certificate, o.Key = saved.Credentials, saved.CA, saved.Certificate, saved.Key
	if saved.PasswordFile != "" {
		o.PasswordFile = secretfile.New("--nats-password-file", saved.PasswordFile)
	}
}

// noteContext prints which context is used, if it was not named.
func noteContext(o busconn.Options, screen *terminal.Screen) {
	if o.ContextSelected {
		screen.Printf("using the selected context %s", o.Context)
	}
}

// explainContext returns the error of a context that cannot be used, with a hint.
func explainContext(folder *buscontext.Folder, name string, err error, selected bool) error {
	quoted := report.ShellWords(name)
	switch {
	case errors.Is(err, buscontext.ErrUnknown) && selected:
		return exit.Usage("promptmill join select NAME selects another one, and join select --none none",
			"the selected context %s is not there any more", quoted)
	case errors.Is(err, buscontext.ErrUnknown):
		names, _ := folder.Names()
		return exit.Usage(suggestName(name, names)+"promptmill join contexts shows the contexts",
			"there is no context %s", quoted)
	case errors.Is(err, buscontext.ErrName):
		return exit.Usage("promptmill join contexts shows the contexts", "the name of the context, %w", err)
	case errors.Is(err, buscontext.ErrWrite):
		return err
	case errors.Is(err, buscontext.ErrContent):
		return exit.Usage("save it again: promptmill join save "+quoted, "%w", err)
	}

	return exit.Usage("", "the context %s cannot be read: %w", quoted, err)
}

// namesOfContexts are the names of the contexts, for completion.
func namesOfContexts(env environment) []string {
	folder, err := buscontext.OpenDefault(env.getenv)
	if err != nil {
		return nil
	}

	names, _ := folder.Names() // a folder that cannot be read completes nothing

	return names
}
