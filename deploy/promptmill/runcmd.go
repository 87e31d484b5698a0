package main

import (
	"cmp"
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

func runCommand(env environment) *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{
			Name:    "output",
			Aliases: []string{"o"},
			Usage:   "output `NAME.jsonl.zst`; by default INPUT.results.jsonl.zst in this folder",
			Sources: flagEnv("output"),
		},
		urlFlag(),
		&cli.StringFlag{
			Name:    "progress",
			Value:   "auto",
			Usage:   "auto, bar, plain, json or none",
			Sources: flagEnv("progress"),
		},
		&cli.BoolFlag{Name: "json", Usage: "print the metadata on stdout at the end", Sources: flagEnv("json")},
		&cli.BoolFlag{
			Name:    "retry",
			Usage:   "if the run is complete, run its failed requests again",
			Sources: flagEnv("retry"),
		},
		&cli.BoolFlag{
			Name:    "sim",
			Usage:   "answer by a simulated model server, for trying things out",
			Sources: flagEnv("sim"),
		},
	}

	return &cli.Command{
		Name:      "run",
		Usage:     "run files of prompts: bus, producer, worker and collector in one process",
		ArgsUsage: "INPUT...",
		Description: "INPUT is JSONL in OpenAI's batch format, or with one request body a line\n" +
			"(messages, prompt or input), plain, gzip or zstd; \"-\" is standard input.",
		Flags: slices.Concat(flags, modelFlags(), inputFlags(), outputFlags(), listenFlags(), termsFlags(),
			metricsFlags(), ownBusFlags(), []cli.Flag{replicasFlag()}, reportFlags(), simFlags()),
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseRunOptions(env, c)
			if err != nil {
				return err
			}

			screen, err := terminal.Open(env.stderr, c.String("progress"), env.getenv)
			if err != nil {
				return err
			}

			o.log = newLog(c.Bool("verbose"), screen)
			o.servers.Log = o.log
			r := &runner{options: o, env: env, screen: screen}
			defer screen.Close()

			meta, err := r.run(ctx)
			screen.Close()
			if meta != nil && c.Bool("json") {
				encoder := json.NewEncoder(env.stdout)
				encoder.SetIndent("", "  ")
				if jsonErr := encoder.Encode(meta); jsonErr != nil {
					return jsonErr
				}
			}

			return screen.ReportError(err)
		},
	}
}

// runOptions is the command line of run.
type runOptions struct {
	inputs     []string // absolute paths, or "-"
	output     output.Prefix
	state      string // folder
	stateDir   string // of this run alone
	settings   proto.Settings
	terms      proto.RunPolicy
	reports    reports
	listen     natsserver.ListenAddress
	servers    modelservers.Config
	workers    workerOptions
	metrics    string
	args       []string // the inputs, as they were named
	connection busconn.Options
	shared     bool // boxes other than this one may work for the run
	retry      bool
	runID      string
	flush      time.Duration
	format     output.Format
	log        zerolog.Logger
}

func parseRunOptions(env environment, c *cli.Command) (runOptions, error) {
	o := runOptions{
		runID:      c.String("run"),
		flush:      c.Duration("flush"),
		format:     formatOf(c),
		retry:      c.Bool("retry"),
		connection: parseConnect(env, c),
		metrics:    c.String("metrics"),
		args:       c.Args().Slice(),
	}

	o.shared = o.connection.External() || c.IsSet("listen")

	var err error
	if o.settings, err = parseSettings(c); err != nil {
		return o, err
	}

	if o.servers, o.workers, err = parseModels(c); err != nil {
		return o, err
	}

	o.settings.Simulated = o.servers.Sim != nil
	o.settings.Capacity = cmp.Or(o.workers.Concurrency, oneBox) * max(1, len(o.servers.URLs))
	if o.shared {
		o.settings.Capacity = max(o.settings.Capacity, manyBoxes)
	}

	if o.listen, err = parseListen(c, natsserver.Loopback.Address); err != nil {
		return o, err
	}

	if o.terms, err = parseTerms(c, time.Now()); err != nil {
		return o, err
	}

	if o.reports, err = parseReports(c); err != nil {
		return o, err
	}

	o.terms.Attended = true
	if o.retry && o.connection.External() {
		return o, exit.Usage("promptmill retry RUN, and then promptmill collect RUN -o OUT",
			"--retry is not possible on a bus of many runs")
	}

	if o.connection.CollectsOnly() && (o.servers.Sim != nil || o.servers.Command != "" || len(o.servers.URLs) > 0) {
		return o,
			exit.Usage("leave out --url, --exec and --sim, and start promptmill worker with them and with what promptmill join worker prints",
				"a collector on this bus takes no requests, so this command cannot run them itself")
	}

	if o.flush <= 0 {
		return o, exit.Usage("", "--flush %s: must be more than 0", o.flush)
	}

	if err := o.parsePaths(env, c); err != nil {
		return o, err
	}

	return o, nil
}

// oneBox is the number of requests at once that a run on one box counts with while it
// is not known.
const oneBox = 64

// manyBoxes is the number of requests at once that a run counts with when it cannot
// know which boxes will come. A larger one would make shards small too early, a
// smaller one too late.
const manyBoxes = 256

// parsePaths settles the input, output and state paths.
func (o *runOptions) parsePaths(env environment, c *cli.Command) error {
	var err error
	if o.inputs, err = parseInputs(c); err != nil {
		return err
	}

	if c.String("output") == "" && o.inputs[0] == "-" {
		return exit.Usage("give -o NAME.jsonl.zst", "standard input has no name to make the output's from")
	}

	base := filepath.Base(o.inputs[0])
	for _, suffix := range []string{".gz", ".zst", ".jsonl", ".ndjson", ".json"} {
		base = strings.TrimSuffix(base, suffix)
	}

	if o.output, err = outputOf(c, base+".results"+output.ResultsSuffix); err != nil {
		return err
	}

	if err := checkInputs(o.output, o.inputs); err != nil {
		return err
	}

	if o.state, err = stateOf(env, c); err != nil {
		return err
	}

	o.reports.state = o.state
	o.stateDir = statedir.ForOutput(o.state, string(o.output))
	o.servers.StateDir = o.stateDir

	return nil
}
