package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/apiserver"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/deploy/pipeline"
)

// serveAddress is the default listen address.
var serveAddress = fmt.Sprintf("127.0.0.1:%d", natsserver.DefaultPort)

func serveCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run a bus for many boxes, and collect all runs on it",
		Description: "promptmill submit adds runs to the bus. serve writes the answers of each run to " +
			"DIR/RUN.jsonl.zst. With --nats it uses a NATS server instead of starting a bus.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{
				Name:     "dir",
				Category: groupOutput,
				Value:    ".",
				Usage:    "`DIR`: folder for the output files; it is created if it does not exist",
			},
			&cli.StringFlag{
				Name:     "write-join",
				Category: groupBus,
				Usage:    "`FILE`: write the join string for workers there, for --join-file, and do not print it",
			},
		}, outputFlags(), reportFlags(), listenFlags(), metricsFlags(), otlpFlags(), apiFlags(), webhookFlags(),
			[]cli.Flag{onEndFlag(), scaleFlag()}, ownBusFlags(), []cli.Flag{replicasFlag()}),
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := parseServe(env, c)
			if err != nil {
				return err
			}

			api, err := parseAPI(env, c)
			if err != nil {
				return err
			}

			events, err := parseEvents(c)
			if err != nil {
				return err
			}

			return serve(ctx, env, parseCommon(c, "plain"), cfg, api, events)
		},
	}
}

// outputFlags returns the flags for the format of output files.
func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{
			Name:     "flush",
			Category: groupOutput,
			Value:    5 * time.Second,
			Usage:    "`DURATION`: the longest time until an answer is in the output file",
		},
		&cli.BoolFlag{
			Name:     "ordered",
			Category: groupOutput,
			Usage:    "write the answers in the order of the input",
		},
		&cli.BoolFlag{
			Name:     "seekable",
			Category: groupOutput,
			Usage:    "write the seekable format of zstd instead of a single frame",
		},
		&cli.BoolFlag{
			Name:     "plain",
			Category: groupOutput,
			Usage:    "leave the key \"promptmill\" out of the output lines",
		},
	}
}

func formatOf(c *cli.Command) output.Format {
	return output.Format{Ordered: c.Bool("ordered"), Seekable: c.Bool("seekable"), Plain: c.Bool("plain")}
}

// parseServe reads and checks the flags of the serve command.
func parseServe(env environment, c *cli.Command) (cfg pipeline.ServeConfig, err error) {
	cfg = pipeline.ServeConfig{
		Bus:           parseConnect(env, c),
		JoinFile:      c.String("write-join"),
		FlushInterval: c.Duration("flush"),
		Format:        formatOf(c),
		Version:       versionText(),
	}

	if err := cfg.Bus.Check(); err != nil {
		return cfg, err
	}

	if err := checkScale(c); err != nil {
		return cfg, err
	}

	if cfg.FlushInterval <= 0 {
		return cfg, exit.Usage("", "--flush %s: must be more than 0", cfg.FlushInterval)
	}

	if cfg.Listen, err = parseListen(c, serveAddress); err != nil {
		return cfg, err
	}

	if dir := c.String("dir"); objectstore.IsURL(dir) {
		return cfg, exit.Usage("give a folder of this machine; run, collect and submit --wait take "+
			"-o s3://BUCKET/NAME.jsonl.zst",
			"--dir %s: serve does not write into object stores", dir)
	}

	if cfg.Dir, err = filepath.Abs(c.String("dir")); err != nil {
		return cfg, err
	}

	if err := checkFolder("--dir", cfg.Dir); err != nil {
		return cfg, err
	}

	if cfg.State, err = stateOf(env, c); err != nil {
		return cfg, err
	}

	cfg.Report, err = parseReports(env, c)

	return cfg, err
}

// checkFolder refuses the folder of a flag that is not there and cannot be made: a file has its name,
// or that of a folder above it.
func checkFolder(flag, dir string) error {
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return exit.Usage("choose another folder with "+flag, "%s %s: %s is a file, not a folder", flag, dir, path)
		case path == filepath.Dir(path), !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return exit.Usage("choose another folder with "+flag, "%s %s: %w", flag, dir, err)
		}
	}
}

func serve(
	ctx context.Context, env environment, o commonOptions, cfg pipeline.ServeConfig, api apiOptions,
	events eventOptions,
) error {
	cmd, err := openCommand(ctx, env, o)
	if err != nil {
		return err
	}
	defer cmd.Close()

	cmd.limitMemory()
	noteUnusedURL(env, cfg.Bus, cmd.screen)
	cfg.Log, cfg.Metrics, cfg.Hooks = cmd.log, cmd.metrics, cmd.hooks()

	ends, err := newEndEvents(cmd, events, cfg)
	if err != nil {
		return err
	}
	if ends != nil {
		cfg.OpenEvents = ends.open
	}

	if api.hasAPI() || api.hasPage() {
		closeAll, err := addServed(cmd, &cfg, api, ends)
		if err != nil {
			return err
		}
		defer closeAll()
	}

	err = pipeline.Serve(cmd.untilSignals("syncing the results received", nothingToCount, continueHint), cfg)
	if errors.Is(err, pipeline.ErrInterrupted) {
		cmd.screen.Printf("stopped; promptmill serve resumes where it was")
		return nil // serve ends by a signal
	}

	return err
}

// addServed listens for clients of the batch API and for viewers of the page, as the flags want, and has the bus
// served to them. ends may be nil.
func addServed(
	cmd *activeCommand, cfg *pipeline.ServeConfig, o apiOptions, ends *endEvents,
) (closeAll func(), err error) {
	parts, err := o.openParts(cmd, cfg.State)
	if err != nil {
		return nil, err
	}
	closing := []func(){parts.close}
	closeAll = func() {
		for _, f := range slices.Backward(closing) {
			f()
		}
	}

	var serve []func(context.Context, *busconn.Connection) error
	shown := page.Config{State: cfg.State, Dir: cfg.Dir, OwnBus: !cfg.Bus.External()}
	if o.hasAPI() {
		served := apiserver.Config{Dir: cfg.Dir, State: cfg.State, Format: cfg.Format}
		if ends != nil {
			served.Ended = ends.addBatch
		}

		server, err := openAPI(cmd, served, o, parts)
		if err != nil {
			closeAll()
			return nil, err
		}
		closing, serve = append(closing, server.Close), append(serve, server.Serve)

		cfg.Collects, shown.Owner = server.Collects, server.Owner
		if ends != nil {
			ends.isBatch = server.Collects
		}
	}

	if o.hasPage() {
		server, err := openPage(cmd, shown, o, parts)
		if err != nil {
			closeAll()
			return nil, err
		}
		closing, serve = append(closing, server.Close), append(serve, server.Serve)
	}

	cfg.API = serveAll(serve)

	return closeAll, nil
}
