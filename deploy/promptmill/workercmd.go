package main

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/notice"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func workerCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:  "worker",
		Usage: "take requests from a bus to the model server of this box",
		Description: "The worker takes requests of all runs that need a model of the server, until it is stopped. " +
			"While the model server or the bus is down, it waits.\n\n" +
			"Ctrl-C finishes the requests in flight, for at most --grace, and takes no more: a person waits for the end. " +
			"SIGTERM comes from a machine with a deadline (systemd, Kubernetes, Slurm): for --grace, the worker goes on " +
			"taking requests, but only those that end in time, and hands back the others at once. A notice that this box " +
			"goes away (--drain-on) does the same with the deadline of the notice. A second signal ends the process.",
		Flags: slices.Concat([]cli.Flag{
			urlFlag(),
			&cli.StringFlag{
				Name:        "name",
				Category:    groupModel,
				Usage:       "`NAME`: name of this worker",
				DefaultText: "the host name",
			},
			&cli.BoolFlag{
				Name:     "sim",
				Category: groupModel,
				Usage:    "use a simulated model server, for a first try and for tests",
			},
		}, modelFlags(), []cli.Flag{drainOnFlag()}, metricsFlags(), otlpFlags(), busFlags(), simFlags()),
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseWorker(ctx, env, c)
			if err != nil {
				return err
			}
			return runWorker(ctx, env, o)
		},
	}
}

// workerCommandOptions are the flags of the worker command.
type workerCommandOptions struct {
	connection busconn.Options
	servers    modelservers.Config
	workers    pipeline.WorkerConfig
	name       string
	state      string
	drainOn    []notice.Source
	common     commonOptions
}

// parseWorker reads and checks the flags of the worker command.
func parseWorker(ctx context.Context, env environment, c *cli.Command) (o workerCommandOptions, err error) {
	o = workerCommandOptions{
		connection: parseConnect(env, c),
		name:       cmp.Or(c.String("name"), pipeline.HostName()),
		common:     parseCommon(c, "plain"),
	}

	if err := o.connection.Check(); err != nil {
		return o, err
	}

	if o.servers, o.workers, err = parseModels(ctx, env, c); err != nil {
		return o, err
	}

	if o.servers.Sim != nil {
		if err := checkHold(*o.servers.Sim); err != nil {
			return o, err
		}
	}

	if n := len(c.String("name")); n > maxWorkerName {
		return o, exit.Usage("", "--name: %d bytes, of %d at most", n, maxWorkerName)
	}

	if o.state, err = stateOf(env, c); err != nil {
		return o, err
	}

	if o.drainOn, err = parseDrainOn(env, c); err != nil {
		return o, err
	}

	o.servers.StateDir = filepath.Join(o.state, "worker-"+o.name)

	return o, nil
}

func runWorker(ctx context.Context, env environment, o workerCommandOptions) error {
	cmd, err := openCommand(ctx, env, o.common)
	if err != nil {
		return err
	}
	defer cmd.Close()

	departures := newDepartures(cmd, o.workers.Grace)
	ctx, stop := context.WithCancelCause(departures.follow(o.drainOn))
	defer stop(nil)

	noteContext(o.connection, cmd.screen)
	l, err := busconn.Await(ctx, o.connection, proto.RoleWorker, cmd.screen.Printf, cmd.log)
	if err != nil {
		return ignoreInterrupt(ctx, err)
	}
	defer l.Close()

	// From now on: the bus may end the connection while the worker waits for a model server.
	l.Conn.SetClosedHandler(func(*nats.Conn) { stop(nats.ErrConnectionClosed) })
	if l.Conn.IsClosed() {
		stop(nats.ErrConnectionClosed)
	}

	o.servers.Log = cmd.log
	servers, err := awaitModels(ctx, o.servers, cmd.screen)
	if err != nil {
		return endOfWorkers(ctx, l, err)
	}
	defer func() {
		by := departures.endBy()
		cmd.telemetry.EndBy(by)
		servers.CloseBy(by)
	}()

	err = pipeline.RunWorkers(ctx, pipeline.WorkersConfig{
		Bus:     l,
		Servers: servers,
		Workers: o.workers,
		Name:    o.name,
		State:   o.state,
		Version: versionText(),
		Leave:   departures.begin(),
		Metrics: cmd.metrics,
		Observe: cmd.telemetry.Observer,
		Log:     cmd.log,
		Hooks:   cmd.hooks(),
	})
	text := departures.describeEnd(ctx)
	if text != "" && !l.Conn.IsClosed() {
		cmd.screen.Printf("%s", text)
	}

	return endOfWorkers(ctx, l, err)
}

// endOfWorkers returns why the workers of a connection end: it is closed for good, or err, unless a signal ends them.
func endOfWorkers(ctx context.Context, l *busconn.Connection, err error) error {
	if errors.Is(context.Cause(ctx), nats.ErrConnectionClosed) {
		return cmp.Or(l.ClosedErr(), err, nats.ErrConnectionClosed)
	}
	return ignoreInterrupt(ctx, err)
}

// ignoreInterrupt returns an error unless a signal has ended ctx: a worker ends by a signal.
func ignoreInterrupt(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), pipeline.ErrInterrupted) {
		return nil
	}
	return err
}

// maxWorkerName leaves room for the number of each of several servers.
const maxWorkerName = proto.MaxWorkerName - len("-1000")

// awaitModels opens the model servers. Where none is named and none is found, it waits for one.
func awaitModels(ctx context.Context, cfg modelservers.Config, screen *terminal.Screen) (*modelservers.Set, error) {
	for said := false; ; said = true {
		servers, err := modelservers.Open(ctx, cfg)
		if !errors.Is(err, modelservers.ErrNone) || ctx.Err() != nil {
			return servers, err
		}

		if !said {
			screen.Printf("%v; waiting for one to come (or %s)", err, exit.Hint(err))
		}

		bus.Sleep(ctx, 2*time.Second)
	}
}
