package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/proto"
)

func runCommand(env environment) *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "output `NAME.jsonl.zst`; by default INPUT.results.jsonl.zst in this folder", Sources: flagEnv("output")},
		&cli.StringFlag{Name: "url", Value: "http://localhost:8000", Usage: "the OpenAI-compatible model server", Sources: flagEnv("url")},
		&cli.StringFlag{Name: "api-key", Usage: "its API key; better given as PROMPTMILL_API_KEY", Sources: flagEnv("api-key")},
		&cli.StringFlag{Name: "model", Usage: "model for requests that name none", Sources: flagEnv("model")},
		&cli.StringSliceFlag{Name: "set", Usage: "body field `KEY=JSON` for requests that lack it (repeatable)", Sources: flagEnv("set")},
		&cli.BoolFlag{Name: "skip-invalid", Usage: "write refused input lines as failed requests and run the others", Sources: flagEnv("skip-invalid")},
		&cli.IntFlag{Name: "concurrency", Value: 64, Usage: "requests at the model server at once", Sources: flagEnv("concurrency")},
		&cli.IntFlag{Name: "attempts", Value: 5, Usage: "attempts for each request, at most", Sources: flagEnv("attempts")},
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Minute, Usage: "of one attempt", Sources: flagEnv("timeout")},
		&cli.DurationFlag{Name: "grace", Value: 30 * time.Second, Usage: "to finish requests in flight after Ctrl-C", Sources: flagEnv("grace")},
		&cli.DurationFlag{Name: "flush", Value: 5 * time.Second, Usage: "an answer is in the output file after this at most", Sources: flagEnv("flush")},
		&cli.BoolFlag{Name: "ordered", Usage: "write the output in the order of the input", Sources: flagEnv("ordered")},
		&cli.BoolFlag{Name: "seekable", Usage: "write the zstd seekable format instead of one frame", Sources: flagEnv("seekable")},
		&cli.BoolFlag{Name: "plain", Usage: "leave out the key \"promptmill\" of the output lines", Sources: flagEnv("plain")},
		&cli.IntFlag{Name: "shard-size", Value: 32, Usage: "requests in a shard, at most", Sources: flagEnv("shard-size")},
		&cli.StringFlag{Name: "run", Usage: "id of the run; made up if not given", Sources: flagEnv("run")},
		&cli.StringFlag{Name: "state", Usage: "folder for the bus's store and spooled input", DefaultText: "$XDG_STATE_HOME/promptmill", Sources: flagEnv("state")},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, bar, plain, json or none", Sources: flagEnv("progress")},
		&cli.BoolFlag{Name: "json", Usage: "print the metadata on stdout at the end", Sources: flagEnv("json")},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say more", Sources: flagEnv("verbose")},
		&cli.BoolFlag{Name: "sim", Usage: "answer by a simulated model server, for trying things out", Sources: flagEnv("sim")},
	}
	return &cli.Command{
		Name:      "run",
		Usage:     "run files of prompts: bus, producer, worker and collector in one process",
		ArgsUsage: "INPUT...",
		Description: "INPUT is JSONL in OpenAI's batch format, or with one request body a line\n" +
			"(messages, prompt or input), plain, gzip or zstd; \"-\" is standard input.",
		Flags: append(flags, simFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseRunOptions(env, c)
			if err != nil {
				return err
			}
			screen, err := newScreen(env.stderr, c.String("progress"), env.getenv)
			if err != nil {
				return err
			}
			level := zerolog.WarnLevel
			if c.Bool("verbose") {
				level = zerolog.DebugLevel
			}
			o.log = zerolog.New(zerolog.ConsoleWriter{Out: screen, NoColor: true, TimeFormat: "15:04:05"}).Level(level).With().Timestamp().Logger()
			r := &runner{options: o, env: env, screen: screen}
			defer screen.close()
			meta, err := r.run(ctx)
			screen.close()
			if meta != nil && c.Bool("json") {
				encoder := json.NewEncoder(env.stdout)
				encoder.SetIndent("", "  ")
				if jsonErr := encoder.Encode(meta); jsonErr != nil {
					return jsonErr
				}
			}
			return err
		},
	}
}

// runOptions is the command line of run.
type runOptions struct {
	inputs      []string // absolute paths, or "-"
	output      collector.Output
	stateDir    string // of this run alone
	settings    proto.Settings
	runID       string
	url, key    string
	concurrency int
	attempts    int
	timeout     time.Duration
	grace       time.Duration
	flush       time.Duration
	format      collector.Format
	sim         bool
	command     *cli.Command // for the simulated server's flags
	log         zerolog.Logger
}

const shardBytes = 256 << 10

func parseRunOptions(env environment, c *cli.Command) (runOptions, error) {
	o := runOptions{
		runID: c.String("run"), url: c.String("url"), key: c.String("api-key"),
		concurrency: c.Int("concurrency"), attempts: c.Int("attempts"),
		timeout: c.Duration("timeout"), grace: c.Duration("grace"), flush: c.Duration("flush"),
		format: collector.Format{Ordered: c.Bool("ordered"), Seekable: c.Bool("seekable"), Plain: c.Bool("plain")},
		sim:    c.Bool("sim"), command: c,
		settings: proto.Settings{
			Model: c.String("model"), SkipInvalid: c.Bool("skip-invalid"), Simulated: c.Bool("sim"),
			ShardSize: c.Int("shard-size"), ShardBytes: shardBytes, Capacity: c.Int("concurrency"),
		},
	}
	for name, least := range map[string]int{"concurrency": 1, "attempts": 1, "shard-size": 1} {
		if c.Int(name) < least {
			return o, usage("", "--%s %d: must be at least %d", name, c.Int(name), least)
		}
	}
	if o.settings.ShardSize > proto.MaxShardSize {
		return o, usage("", "--shard-size %d: must be at most %d", o.settings.ShardSize, proto.MaxShardSize)
	}
	for _, name := range []string{"timeout", "grace", "flush"} {
		if c.Duration(name) <= 0 {
			return o, usage("", "--%s %s: must be more than 0", name, c.Duration(name))
		}
	}
	if o.runID != "" {
		if err := proto.CheckRunID(o.runID); err != nil {
			return o, usage("", "--run: %w", err)
		}
	}
	if o.sim && c.IsSet("url") {
		return o, usage("leave out one of them", "--sim and --url exclude each other")
	}
	for _, set := range c.StringSlice("set") {
		key, value, ok := strings.Cut(set, "=")
		if !ok || key == "" {
			return o, usage("for example --set temperature=0", "--set %q: want KEY=JSON", set)
		}
		if key == "model" || key == "stream" {
			return o, usage("the model has --model NAME; answers cannot be streamed", "--set %s is not possible", key)
		}
		if !jsontext.Value(value).IsValid() {
			value = string(proto.Quote(value)) // --set stop=END means the text
		}
		if o.settings.Set == nil {
			o.settings.Set = map[string]string{}
		}
		o.settings.Set[key] = strings.NewReplacer("\n", " ", "\r", " ").Replace(value)
	}
	if err := o.parsePaths(env, c); err != nil {
		return o, err
	}
	return o, nil
}

// parsePaths settles the input, output and state paths.
func (o *runOptions) parsePaths(env environment, c *cli.Command) error {
	args := c.Args().Slice()
	if len(args) == 0 {
		return usage("for example: promptmill run prompts.jsonl", "no input file given")
	}
	for _, arg := range args {
		if arg == "-" {
			if len(args) > 1 {
				return usage("", "standard input cannot be mixed with files")
			}
			o.inputs = []string{"-"}
			break
		}
		path, err := filepath.Abs(arg)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return usage("", "input %s: %w", arg, unwrapPath(err))
		}
		if info.IsDir() {
			return usage("name the files in it", "input %s is a folder", arg)
		}
		if !info.Mode().IsRegular() {
			return usage("pipe it in: promptmill run - -o OUT.jsonl.zst", "input %s is not a regular file, and must be read twice", arg)
		}
		o.inputs = append(o.inputs, path)
	}
	out := c.String("output")
	switch {
	case out == "" && o.inputs[0] == "-":
		return usage("give -o NAME.jsonl.zst", "standard input has no name to make the output's from")
	case out == "":
		base := filepath.Base(o.inputs[0])
		for _, suffix := range []string{".gz", ".zst", ".jsonl", ".ndjson", ".json"} {
			base = strings.TrimSuffix(base, suffix)
		}
		out = base + ".results" + collector.OutputSuffix
	case !strings.HasSuffix(out, collector.OutputSuffix):
		return usage("for example -o "+out+collector.OutputSuffix, "-o %s: must end in %s", out, collector.OutputSuffix)
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
		return usage("make it first", "the folder of the output, %s, is not there", filepath.Dir(out))
	}
	o.output = collector.Output(strings.TrimSuffix(out, collector.OutputSuffix))
	state := c.String("state")
	if state == "" {
		if state, err = defaultState(env.getenv); err != nil {
			return err
		}
	}
	o.stateDir = runStateDir(state, string(o.output))
	return nil
}

// defaultState is where state lives by the XDG base directory specification.
func defaultState(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "promptmill"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "promptmill"), nil
	}
	if runtime.GOOS == "windows" {
		return "", usage("", "promptmill does not run on Windows")
	}
	return "", usage("give --state DIR", "there is no home folder to keep state in")
}
