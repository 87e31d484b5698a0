package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
)

// requestFlags say how requests are run.
func requestFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "api-key", Usage: "API key of the model server; better given as PROMPTMILL_API_KEY", Sources: flagEnv("api-key")},
		&cli.IntFlag{Name: "concurrency", Value: 64, Usage: "requests at the model server at once", Sources: flagEnv("concurrency")},
		&cli.IntFlag{Name: "attempts", Value: 5, Usage: "attempts for each request, at most", Sources: flagEnv("attempts")},
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Minute, Usage: "of one attempt", Sources: flagEnv("timeout")},
		&cli.DurationFlag{Name: "grace", Value: 30 * time.Second, Usage: "to finish requests in flight after Ctrl-C", Sources: flagEnv("grace")},
	}
}

// checkRequestFlags refuses values that make no sense.
func checkRequestFlags(c *cli.Command) error {
	for _, name := range []string{"concurrency", "attempts"} {
		if c.Int(name) < 1 {
			return usage("", "--%s %d: must be at least 1", name, c.Int(name))
		}
	}
	for _, name := range []string{"timeout", "grace"} {
		if c.Duration(name) <= 0 {
			return usage("", "--%s %s: must be more than 0", name, c.Duration(name))
		}
	}
	return nil
}

const defaultURL = "http://localhost:8000"

func workerCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "worker",
		Usage: "work for the runs on a bus with the model server of this box",
		Description: "Takes requests of all runs that need a model which the server has, until it is\n" +
			"stopped. It waits for the model server, and for the bus when that goes away.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringSliceFlag{Name: "url", Value: []string{defaultURL}, Usage: "an OpenAI-compatible model server (repeatable)", Sources: flagEnv("url")},
			&cli.StringFlag{Name: "name", Usage: "what to call this worker", DefaultText: "the host's name", Sources: flagEnv("name")},
			&cli.BoolFlag{Name: "sim", Usage: "answer by a simulated model server, for trying things out", Sources: flagEnv("sim")},
		}, requestFlags(), busFlags(), simFlags()),
		Action: func(ctx context.Context, c *cli.Command) error { return runWorker(ctx, env, c) },
	}
}

func runWorker(ctx context.Context, env environment, c *cli.Command) error {
	if err := checkRequestFlags(c); err != nil {
		return err
	}
	if c.Bool("sim") && c.IsSet("url") {
		return usage("leave out one of them", "--sim and --url exclude each other")
	}
	urls := c.StringSlice("url")
	if c.Bool("sim") {
		cfg, err := simConfig(c, nil)
		if err != nil {
			return err
		}
		s, err := startSim("127.0.0.1:0", cfg)
		if err != nil {
			return err
		}
		defer s.stop()
		urls = []string{s.url}
	}
	screen, err := newScreen(env.stderr, "plain", env.getenv)
	if err != nil {
		return err
	}
	log := newLog(c, screen)
	var servers []*worker.Server
	for _, url := range urls {
		server, err := worker.NewServer(url, c.String("api-key"))
		if err != nil {
			return usage("", "--url: %w", err)
		}
		defer server.Close()
		servers = append(servers, server)
	}
	l, err := connect(ctx, env, c, proto.RoleWorker, log)
	if err != nil {
		return err
	}
	defer l.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	closed := make(chan struct{})
	l.conn.SetClosedHandler(func(*nats.Conn) { close(closed); stop(nats.ErrConnectionClosed) })
	go interrupt(ctx, env, screen, stop, fmt.Sprintf("finishing what is in flight, at most %s", c.Duration("grace")))
	name := cmp.Or(c.String("name"), hostName())
	gpus, err := worker.GPUs(ctx)
	if err != nil {
		log.Warn().Err(err).Msg("the GPUs of this machine are not known")
	}
	group, working := errgroup.WithContext(ctx)
	for i, server := range servers {
		cfg := worker.Config{
			JS: l.js, Server: server, Limiter: worker.NewFixedLimit(c.Int("concurrency")), Name: name, Host: hostName(), Version: versionText(), GPU: gpus,
			Attempts: c.Int("attempts"), Timeout: c.Duration("timeout"), Grace: c.Duration("grace"), Log: log.With().Str("server", server.URL()).Logger(),
		}
		if len(servers) > 1 {
			cfg.Name = fmt.Sprintf("%s-%d", name, i+1)
		}
		screen.say("worker %s: bus %s, model server %s, %d requests at once", cfg.Name, l.name, server.URL(), c.Int("concurrency"))
		group.Go(func() error { return worker.New(cfg).Run(working) })
	}
	err = group.Wait()
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		screen.say("stopped; what was not finished goes to other workers")
		return nil // a signal is how it ends
	case errors.Is(context.Cause(ctx), nats.ErrConnectionClosed):
		return &failure{exitUnreachable, fmt.Errorf("the bus at %s does not let this worker in any more: %w", l.name, cmp.Or(l.conn.LastError(), err, nats.ErrConnectionClosed)),
			"take the join string that promptmill join prints there now"}
	}
	return err
}
