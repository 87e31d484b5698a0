package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/apiserver"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/onend"
	"github.com/promptmill/promptmill/deploy/page"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/summary"
)

func runCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run files of prompts through model servers, in one process",
		ArgsUsage: "INPUT...",
		Description: "Bus, producer, worker and collector run in this process. INPUT is JSONL in OpenAI's batch " +
			"format, or has one request body a line (messages, prompt or input). With --prompt, it is a table: " +
			"CSV, Parquet, JSON or lines of text, with a request for each row. It may be compressed with gzip or zstd, and " +
			"be a folder, a pattern or a URL. The INPUT - is standard input.",
		Flags: slices.Concat(runFlags(), modelFlags(), inputFlags(), selectionFlags(), rowFlags(), placeFlags(),
			outputFlags(), listenFlags(), policyFlags(), shardFlags(), metricsFlags(), otlpFlags(), apiFlags(),
			[]cli.Flag{onEndFlag()}, ownBusFlags(),
			[]cli.Flag{replicasFlag()}, reportFlags(), simFlags()),
		Action: func(ctx context.Context, c *cli.Command) error {
			places := openPlaces(c)
			defer places.Close()

			o, err := parseRun(ctx, env, c, places)
			if err != nil {
				return err
			}

			if o.dryRun {
				return previewRun(ctx, env, o)
			}

			return runInputs(ctx, env, o)
		},
	}
}

// runFlags returns the flags that run has beside the groups that commands share.
func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:        "output",
			Category:    groupOutput,
			Aliases:     []string{"o"},
			Usage:       outputUsage,
			DefaultText: "INPUT.results.jsonl.zst in this folder",
		},
		shardsFlag(),
		urlFlag(),
		&cli.StringFlag{
			Name:     "progress",
			Category: groupOutput,
			Value:    "auto",
			Usage:    "`MODE`: how to show the progress: auto, bar, plain, json or none",
		},
		&cli.BoolFlag{
			Name:     "json",
			Category: groupOutput,
			Usage:    "print the run's metadata as JSON on standard output at the end",
		},
		&cli.BoolFlag{
			Name:     "retry",
			Category: groupPolicy,
			Usage:    "run the failed requests of a complete run again",
		},
		&cli.BoolFlag{
			Name:     "sim",
			Category: groupModel,
			Usage:    "use a simulated model server, for a first try and for tests",
		},
	}
}

// previewRun prints the requests of a run instead of running them.
func previewRun(ctx context.Context, env environment, o runOptions) error {
	settings := o.run.Settings
	if o.run.Servers.Sim != nil {
		settings.Model = cmp.Or(settings.Model, pipeline.SimModel)
	}

	return previewInputs(ctx, env, o.common, pipeline.DryRunConfig{
		Inputs:   o.run.Inputs,
		Opener:   o.run.Opener,
		Stdin:    o.run.Stdin,
		Settings: settings,
	}, o.json)
}

// runOptions are the flags of the run command.
type runOptions struct {
	common commonOptions
	run    pipeline.Config
	json   bool
	dryRun bool
	args   []string       // the inputs, as they were named
	onEnd  *onend.Command // nil: none
	api    apiOptions
	places *objectstore.Client
}

// parseRun reads and checks the flags of the run command.
func parseRun(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client,
) (o runOptions, err error) {
	o = runOptions{
		common: parseCommon(c, c.String("progress")),
		json:   c.Bool("json"),
		dryRun: c.Bool("dry-run"),
		args:   c.Args().Slice(),
		places: places,
	}

	if o.run, err = parseRunConfig(ctx, env, c, places); err != nil {
		return o, err
	}

	if o.onEnd, err = parseOnEnd(c); err != nil {
		return o, err
	}

	if o.api, err = parseAPI(env, c); err != nil {
		return o, err
	}

	if err := checkRun(o.run); err != nil {
		return o, err
	}

	err = readPlaces(ctx, env, o.common, places, func(ctx context.Context) error {
		return parsePaths(ctx, env, c, places, &o.run)
	})
	if err != nil {
		return o, err
	}

	o.run.State, err = stateOf(env, c)

	return o, err
}

// parseRunConfig reads the flags of the run itself, without its paths.
func parseRunConfig(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client,
) (cfg pipeline.Config, err error) {
	cfg = pipeline.Config{
		RunID:         c.String("run"),
		Opener:        places,
		Stdin:         env.stdin,
		Retry:         c.Bool("retry"),
		Bus:           parseConnect(env, c),
		Shared:        c.IsSet("listen"),
		FlushInterval: c.Duration("flush"),
		Format:        formatOf(c),
		Version:       versionText(),
	}

	if cfg.Label, err = parseLabel(c); err != nil {
		return cfg, err
	}

	if cfg.Settings, err = parseSettings(c); err != nil {
		return cfg, err
	}

	if cfg.Servers, cfg.Workers, err = parseModels(ctx, env, c); err != nil {
		return cfg, err
	}

	if cfg.Listen, err = parseListen(c, natsserver.Loopback.Address); err != nil {
		return cfg, err
	}

	if cfg.Policy, err = parsePolicy(c, time.Now()); err != nil {
		return cfg, err
	}

	cfg.Report, err = parseReports(env, c)

	return cfg, err
}

// checkRun refuses flags that do not go together.
func checkRun(cfg pipeline.Config) error {
	if err := cfg.Bus.Check(); err != nil {
		return err
	}

	servers := cfg.Servers
	switch {
	case cfg.Retry && cfg.Bus.External():
		return exit.Usage("promptmill retry RUN, and then promptmill collect RUN -o OUT",
			"--retry is not possible on a bus of many runs")
	case cfg.Bus.CollectsOnly() && (servers.Sim != nil || len(servers.Commands) > 0 || len(servers.URLs) > 0):
		return exit.Usage("leave out --url, --exec and --sim, and start promptmill worker with them and with the string that promptmill join worker prints",
			"a collector on this bus takes no requests, so this command cannot run them itself")
	case cfg.FlushInterval <= 0:
		return exit.Usage("", "--flush %s: must be more than 0", cfg.FlushInterval)
	}

	return nil
}

// parsePaths reads the paths of the inputs and of the output.
func parsePaths(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client, cfg *pipeline.Config,
) (err error) {
	named, err := nameInputs(ctx, c, places)
	if err != nil {
		return err
	}

	if c.String("output") == "" && named.files[0] == "-" {
		if c.Bool("dry-run") { // writes none
			cfg.Inputs = named.files
			return nil
		}
		return exit.Usage("give -o NAME.jsonl.zst", "standard input has no name to make the output's from")
	}

	var local string
	if local, cfg.Upload, err = placeOutput(ctx, env, c, places); err != nil {
		return err
	}

	out, table, err := outputOf(c, cmp.Or(local, defaultOutput(named.first()).Results()))
	if err != nil {
		return err
	}

	cfg.Output, cfg.Table = string(out), table

	if named, err = named.without(pipeline.NewOwnFiles(out, table.Path, cfg.Upload)); err != nil {
		return err
	}

	if cfg.Inputs, err = named.check(ctx, places, cfg.Settings); err != nil {
		return err
	}

	return checkInputs(out, cfg.Inputs)
}

// defaultSuffix ends the name of an output without -o, before the endings of its files.
const defaultSuffix = ".results"

// defaultOutput returns the output of a run of an input, without -o.
func defaultOutput(input string) output.Prefix {
	base := objectstore.BaseName(input)
	for _, suffix := range []string{".gz", ".zst", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt"} {
		base = strings.TrimSuffix(base, suffix)
	}

	return output.Prefix(base + defaultSuffix)
}

// addAPI listens for clients of the batch API and for viewers of the page, as the flags want, and has the run served
// to them.
func addAPI(cmd *activeCommand, cfg *pipeline.Config, o apiOptions) (closeAll func(), err error) {
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

	dir, err := filepath.Abs(filepath.Dir(cfg.Output))
	if err != nil {
		closeAll()
		return nil, err
	}

	var serve []func(context.Context, pipeline.LiveRun) error
	if o.hasAPI() {
		api, err := openRunAPI(cmd, cfg, o, parts)
		if err != nil {
			closeAll()
			return nil, err
		}
		closing, serve = append(closing, api.Close), append(serve, api.serve)
	}

	if o.hasPage() {
		shown, err := openPage(cmd, page.Config{State: cfg.State, Dir: dir, OwnBus: !cfg.Bus.External()}, o, parts)
		if err != nil {
			closeAll()
			return nil, err
		}
		closing, serve = append(closing, shown.Close), append(serve, shown.ServeRun)
	}

	cfg.API = serveAll(serve)

	return closeAll, nil
}

// runAPI is the batch API of the one run of a command.
type runAPI struct {
	*apiserver.Server

	id string // of the run
}

// openRunAPI listens for clients of the batch API.
func openRunAPI(cmd *activeCommand, cfg *pipeline.Config, o apiOptions, parts webParts) (api *runAPI, err error) {
	api = &runAPI{}
	api.Server, err = openAPI(cmd, apiserver.Config{
		Dir:     filepath.Dir(cfg.Output),
		State:   cfg.State,
		Format:  cfg.Format,
		Started: func(string) { cmd.screen.Printf("it has this run as batch_%s", api.id) },
	}, o, parts)

	return api, err
}

// serve serves a run until ctx ends.
func (a *runAPI) serve(ctx context.Context, run pipeline.LiveRun) error {
	a.id = run.Run
	return a.ServeRun(ctx, run)
}

// serveAll returns a function that serves a bus, or a run, in several ways until ctx ends.
func serveAll[T any](serve []func(context.Context, T) error) func(context.Context, T) error {
	return func(ctx context.Context, what T) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, f := range serve {
			group.Go(func() error { return f(ctx, what) })
		}

		return group.Wait()
	}
}

// runInputs runs the inputs of the run command and prints the results.
func runInputs(ctx context.Context, env environment, o runOptions) (err error) {
	cmd, err := openCommand(ctx, env, o.common)
	if err != nil {
		return err
	}
	defer cmd.Close()
	defer func() { err = cmd.fail(err) }()

	o.places.LogTo(cmd.log)
	cmd.limitMemory()
	noteUnusedURL(env, o.run.Bus, cmd.screen)
	o.run.Log, o.run.Metrics, o.run.Hooks = cmd.log, cmd.metrics, cmd.hooks()
	o.run.Observe = cmd.telemetry.Observer

	if o.api.hasAPI() || o.api.hasPage() {
		closeAPI, err := addAPI(cmd, &o.run, o.api)
		if err != nil {
			return err
		}
		defer closeAPI()
	}

	doing := fmt.Sprintf("finishing the requests in flight, at most %s", o.run.Workers.Grace)
	running := cmd.untilSignals(doing, cmd.countSafe, continueHint)
	res, err := pipeline.Run(running, o.run)
	if err != nil {
		cmd.printCauses(err)
		return err
	}

	printRun(cmd, o, res)

	cmd.screen.Close()
	if o.json {
		if err := printJSON(env.stdout, res.Metadata); err != nil {
			return err
		}
	}

	if !res.WasComplete {
		cmd.runOnEndOf(running, o.onEnd, res)
	}

	return summary.Err(res.Metadata, res.Output.Errors(), res.Reached, describeRetry(o, res))
}

// printRun prints the results of a run that is complete, or was complete before.
func printRun(cmd *activeCommand, o runOptions, res *pipeline.Result) {
	written := summary.Files{
		Local:  res.Output,
		Place:  res.Place,
		Inputs: o.args,
		Table:  o.run.Table.FirstName(),
	}
	if !res.WasComplete {
		summary.Print(cmd.screen, res.Metadata, written)
		return
	}

	cmd.screen.Printf("complete already: run %s of %s, %s", res.Run,
		res.Metadata.Timestamp.Local().Format(time.DateTime), summary.FormatOutcome(res.Metadata.Results))
	summary.PrintCauses(cmd.screen, res.Metadata, res.Output.Errors())
	summary.PrintFiles(cmd.screen, res.Metadata, written)
}

// describeRetry returns the command that runs the failed requests of a run again, or "" if there is none.
func describeRetry(o runOptions, res *pipeline.Result) string {
	switch {
	case res.Metadata.Config.Plain: // its lines do not say which requests failed
		return ""
	case o.run.Bus.External():
		return report.ShellWords("promptmill", "retry", res.Run) + ", and then " +
			report.ShellWords("promptmill", "collect", res.Run, "-o", files.Short(res.Place.Results())) + ","
	}
	return "the same command with --retry"
}
