package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

func workerCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "worker",
		Usage: "work for the runs on a bus with the model server of this box",
		Description: "Takes requests of all runs that need a model which the server has, until it is\n" +
			"stopped. It waits for the model server, and for the bus when that goes away.",
		Flags: slices.Concat([]cli.Flag{
			urlFlag(),
			&cli.StringFlag{
				Name:        "name",
				Usage:       "what to call this worker",
				DefaultText: "the host's name",
				Sources:     flagEnv("name"),
			},
			&cli.BoolFlag{
				Name:    "sim",
				Usage:   "answer by a simulated model server, for trying things out",
				Sources: flagEnv("sim"),
			},
		}, modelFlags(), metricsFlags(), busFlags(), simFlags()),
		Action: func(ctx context.Context, c *cli.Command) error { return runWorker(ctx, env, c) },
	}
}

func runWorker(ctx context.Context, env environment, c *cli.Command) error {
	if err := checkModelFlags(c, c.StringSlice("url")...); err != nil {
		return err
	}

	if n := len(c.String("name")); n > maxWorkerName {
		return exit.Usage("", "--name: %d bytes, of %d at most", n, maxWorkerName)
	}

	state, err := stateOf(env, c)
	if err != nil {
		return err
	}

	screen, err := newScreen(env.stderr, "plain", env.getenv)
	if err != nil {
		return err
	}

	log := newLog(c.Bool("verbose"), screen)
	measured := &exporter{}
	unmeasure, err := startMetrics(c, measured)
	if err != nil {
		return err
	}
	defer unmeasure()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	go interrupt(ctx, env, screen, stop,
		fmt.Sprintf("finishing what is in flight, at most %s", c.Duration("grace")), nothingLost)
	name := cmp.Or(c.String("name"), hostName())
	l, err := awaitBus(ctx, parseConnect(env, c), proto.RoleWorker, screen, log)

	if errors.Is(context.Cause(ctx), errInterrupted) {
		return nil
	}

	if err != nil {
		return err
	}

	defer l.close()

	m, err := awaitModels(ctx, c, screen, filepath.Join(state, "worker-"+name), log)
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return nil
	}

	if err != nil {
		return err
	}

	defer m.close()

	closed := make(chan struct{})
	l.conn.SetClosedHandler(func(*nats.Conn) { close(closed); stop(nats.ErrConnectionClosed) })
	workers := &staff{
		command:  c,
		models:   m,
		link:     l,
		screen:   screen,
		log:      log,
		measured: measured,
		name:     name,
		state:    state,
	}

	err = workers.work(ctx)
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		screen.say("stopped; what was not finished goes to other workers")
		return nil // a signal is how it ends
	case errors.Is(context.Cause(ctx), nats.ErrConnectionClosed):
		return exit.Unreachable(fmt.Errorf("the bus at %s does not let this worker in any more: %w",
			l.name, cmp.Or(l.away.givenUp(), l.conn.LastError(), err, nats.ErrConnectionClosed)),
			"take the join string that promptmill join prints there now")
	}

	return err
}

// maxWorkerName leaves room for the number of each of several servers.
const maxWorkerName = proto.MaxWorkerName - len("-1000")

// awaitModels opens the model servers. Where none is named and none is found, it waits
// for one to come.
func awaitModels(
	ctx context.Context, c *cli.Command, screen *screen, state string, log zerolog.Logger,
) (*models, error) {
	for said := false; ; said = true {
		m, err := openModels(ctx, c, c.StringSlice("url"), state, nil, log)
		if !errors.Is(err, errNoModels) || ctx.Err() != nil {
			return m, err
		}

		if !said {
			screen.say("%v; waiting for one to come (or %s)", err, exit.Hint(err))
		}

		sleep(ctx, 2*time.Second)
	}
}

// memoryFile is what keeps, in the state folder, how many requests at once model servers were
// found to take.
const memoryFile = "servers.json"

// workerConfig is the configuration of a worker at a server, as the flags want it. state is the
// state folder.
func workerConfig(
	c *cli.Command, m *models, server *modelserver.Server, l *link, state string, log zerolog.Logger,
) worker.Config {
	var memory *limit.Memory
	if !c.Bool("sim") { // whose URL is another one each time
		memory = limit.NewMemory(filepath.Join(state, memoryFile))
	}

	return worker.Config{
		JS:       l.js,
		Server:   server,
		Limiter:  newLimiter(c, len(m.servers), log),
		Process:  m.process,
		Cards:    m.cards.Now,
		Name:     hostName(),
		Host:     hostName(),
		Version:  versionText(),
		Memory:   memory,
		Attempts: c.Int("attempts"),
		Timeout:  c.Duration("timeout"),
		Stall:    c.Duration("stall"),
		Grace:    c.Duration("grace"),
		Log:      log,
	}
}

// workerName is the name of the worker at the i-th server.
func (m *models) workerName(name string, i int) string {
	if len(m.servers) == 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, i+1)
}

// atOnce says how many requests will be at a model server at once.
func atOnce(c *cli.Command) string {
	if n := c.Int("concurrency"); n > 0 {
		return fmt.Sprintf("%d requests at once", n)
	}
	return "as many requests at once as it can use"
}
