package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/schema"
)

// inputFlags returns the flags for the lines of the input.
func inputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "model",
			Category: groupInput,
			Usage:    "`NAME`: model for requests that name none; with --prompt, it may be a template",
		},
		&cli.StringFlag{
			Name:     "override-model",
			Category: groupInput,
			Usage:    "`NAME`: model for all requests, even for those that name another",
		},
		setFlag(),
		skipInvalidFlag(),
		&cli.BoolFlag{
			Name:     "group-by-prefix",
			Category: groupInput,
			Usage:    "run requests whose prompts share their first half or more together, for the prompt cache of the model server; helps llama.cpp, and vLLM and SGLang if the shared beginnings do not all fit the cache",
		},
		schemaFlag(),
		&cli.FloatFlag{
			Name:     "retry-truncated",
			Category: groupPolicy,
			Usage:    "`N`: rerun a truncated answer with N times as many tokens",
		},
		&cli.StringFlag{
			Name:        "run",
			Category:    groupPolicy,
			Usage:       "`ID`: id of the run",
			DefaultText: "generated",
		},
		&cli.StringFlag{
			Name:     "label",
			Category: groupPolicy,
			Usage:    "`NAME`: name for the run in lists and reports, which commands take in place of the id",
		},
	}
}

// skipInvalidFlag returns the flag for inputs with lines that cannot be sent.
func skipInvalidFlag() cli.Flag {
	return &cli.BoolFlag{
		Name:     "skip-invalid",
		Category: groupInput,
		Usage:    "record invalid input lines as failed requests, and run the others",
	}
}

// schemaFlag returns the flag for the form of answers.
func schemaFlag() cli.Flag {
	return &cli.StringFlag{
		Name:     "schema",
		Category: groupPolicy,
		Usage:    "`FILE`: JSON Schema that each answer must match",
	}
}

// setFlag returns the flag for fields of requests.
func setFlag() cli.Flag {
	return &wholeTextsFlag{
		Name:     "set",
		Category: groupInput,
		Usage:    "`KEY=JSON`: body field for requests that lack it, such as temperature=0; with --prompt, it may be a template, such as user={{json .name}}",
	}
}

// parseSettings reads the input flags.
func parseSettings(c *cli.Command) (proto.Settings, error) {
	s := proto.Settings{
		Model:         c.String("model"),
		OverrideModel: c.String("override-model"),
		SkipInvalid:   c.Bool("skip-invalid"),
		ShardSize:     c.Int("shard-size"),
		GroupByPrefix: c.Bool("group-by-prefix"),
	}
	for _, name := range []string{"model", "override-model"} {
		if c.IsSet(name) && strings.TrimSpace(c.String(name)) == "" {
			return s, exit.Usage("give --"+name+" NAME, or leave it out", "--%s names no model", name)
		}
	}

	if s.Model != "" && s.OverrideModel != "" {
		return s, exit.Usage("leave out one of them",
			"--model is for requests that name no model, and --override-model for all")
	}

	if s.ShardSize < 1 || s.ShardSize > proto.MaxShardSize {
		return s, exit.Usage("for example --shard-size 32",
			"--shard-size %d: must be from 1 to %d", s.ShardSize, proto.MaxShardSize)
	}

	if !c.IsSet("shard-size") {
		s.ShardSize = 0 // a run that is resumed keeps its own
	}

	switch e := proto.Encoding(c.String("shard-encoding")); {
	case e == proto.Snappy: // the default, which each version of promptmill reads
	case slices.Contains(proto.Encodings(), e):
		s.ShardEncoding = e
	default:
		return s, exit.Usage("want snappy, zstd or none", "there is no shard encoding %q", e)
	}

	if id := c.String("run"); id != "" {
		if err := proto.CheckRunID(id); err != nil {
			return s, exit.Usage("", "--run: %w", err)
		}
	}

	if s.RetryTruncated = c.Float("retry-truncated"); c.IsSet("retry-truncated") &&
		!(s.RetryTruncated > 1 && s.RetryTruncated <= 1000) {
		return s, exit.Usage("for example --retry-truncated 4",
			"--retry-truncated %g: must be more than 1, and 1000 at most", s.RetryTruncated)
	}

	var err error
	if s.Schema, err = parseSchema(c.String("schema")); err != nil {
		return s, err
	}

	if s.Rows, err = parseRows(c); err != nil {
		return s, err
	}

	if err := parseSelection(c, &s); err != nil {
		return s, err
	}

	s.Set, err = parseSet(textsOf(c, "set"), s.Rows != nil)

	return s, err
}

// parseLabel reads the label of a run.
func parseLabel(c *cli.Command) (string, error) {
	label := c.String("label")
	if !c.IsSet("label") {
		return "", nil
	}

	if err := proto.CheckLabel(label); err != nil {
		return "", exit.Usage("for example --label nightly", "--label: %w", err)
	}

	return label, nil
}

// parseSchema reads the JSON Schema of a file, if one is named.
func parseSchema(path string) (json.RawMessage, error) {
	if path == "" {
		return nil, nil
	}

	text, err := os.ReadFile(path)
	if err != nil {
		hint := ""
		if strings.HasPrefix(strings.TrimSpace(path), "{") {
			hint = "write the schema into a file, and give its name: --schema schema.json"
		}

		return nil, exit.Usage(hint, "--schema %s: %w", path, files.WithoutPath(err))
	}

	if err := checkJSON(text); err != nil {
		return nil, exit.Usage(`a schema is one JSON object, such as {"type": "object"}`, "--schema %s: %w", path, err)
	}

	if _, err := schema.Compile(text); err != nil {
		return nil, exit.Usage("", "--schema %s: %w", path, err)
	}

	var compact bytes.Buffer // as the manifest will have it, so that both compare
	if err := json.Compact(&compact, text); err != nil {
		return nil, exit.Usage("", "--schema %s: %w", path, err)
	}

	return compact.Bytes(), nil
}

// checkJSON returns an error that says where a text is not one JSON value.
func checkJSON(text []byte) error {
	var value json.RawMessage
	syntax, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &value))
	switch {
	case !ok:
		return nil
	case len(bytes.TrimSpace(text)) == 0:
		return errors.New("the file is empty")
	case syntax.Offset >= int64(len(text)):
		return errors.New("the JSON ends in the middle")
	}

	return fmt.Errorf("not one JSON value: see byte %d", syntax.Offset)
}

// parseInputs returns the absolute paths and the URLs of the input files, or "-".
func parseInputs(
	ctx context.Context, c *cli.Command, places *objectstore.Client, s proto.Settings,
) ([]string, error) {
	named, err := nameInputs(ctx, c, places)
	if err != nil {
		return nil, err
	}
	return named.check(ctx, places, s)
}

// nameInputs returns the files that the inputs of a command name.
func nameInputs(ctx context.Context, c *cli.Command, places *objectstore.Client) (n namedInputs, err error) {
	args := c.Args().Slice()
	switch {
	case len(args) == 0:
		return n, exit.Usage("for example: promptmill "+c.Name+" prompts.jsonl", "no input file given")
	case slices.Contains(args, "-") && len(args) > 1:
		return n, exit.Usage("", "standard input cannot be mixed with files")
	}

	return expandInputs(ctx, args, places)
}

// namedInputs are the files that inputs name.
type namedInputs struct {
	// files are their paths and URLs, or "-".
	files []string
	// args has for each file the folder, pattern or prefix that stands for it, empty for a file
	// that is named itself.
	args []string
}

// expandInputs returns the files that inputs name: folders, patterns and prefixes stand for all of theirs.
func expandInputs(ctx context.Context, args []string, places *objectstore.Client) (n namedInputs, err error) {
	for _, arg := range args {
		found := []string{arg}
		if arg != "-" {
			if found, err = places.Expand(ctx, arg); err != nil {
				return n, err
			}
		}

		if len(found) == 1 && found[0] == arg {
			arg = ""
		}

		n.files = append(n.files, found...)
		n.args = append(n.args, slices.Repeat([]string{arg}, len(found))...)
	}

	return n, nil
}

// first returns the first file, but not one of the output that a run of another of them has
// without -o.
func (n namedInputs) first() string {
	outputs := map[output.Prefix]bool{}
	for _, file := range n.files {
		outputs[defaultOutput(file)] = true
	}

	for i, file := range n.files {
		name := objectstore.BaseName(file)
		out := output.Prefix(name[:max(0, strings.LastIndex(name, defaultSuffix))] + defaultSuffix)
		if n.args[i] == "" || !outputs[out] || !pipeline.NewOwnFiles(out, "", nil).Has(file) {
			return file
		}
	}

	return n.files[0]
}

// without returns the inputs without those files of a run's output for which a folder, a pattern
// or a prefix stands. Files that are named themselves stay, to be refused.
func (n namedInputs) without(own *pipeline.OwnFiles) (left namedInputs, err error) {
	omitted := ""
	for i, file := range n.files {
		if n.args[i] != "" && own.Has(file) {
			omitted = n.args[i]
			continue
		}
		left.files, left.args = append(left.files, file), append(left.args, n.args[i])
	}

	if len(left.files) == 0 {
		return left, exit.Usage("name other files, or another output with -o",
			"input %s: it has no files but those of the output", omitted)
	}

	return left, nil
}

// check refuses inputs that are not of requests, and returns their absolute paths and URLs.
func (n namedInputs) check(ctx context.Context, places *objectstore.Client, s proto.Settings) ([]string, error) {
	input := inputerror.Input{Files: n.files, Opener: places, Prompts: true}
	if err := input.Check(ctx, s); err != nil {
		return nil, err
	}

	inputs := slices.Clone(n.files)
	for i, file := range inputs {
		if file == "-" || objectstore.IsURL(file) {
			continue
		}

		path, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}

		inputs[i] = path
	}

	return inputs, nil
}

// shardFlags returns the flags for the shards of a run.
func shardFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{
			Name:     "shard-size",
			Category: groupPolicy,
			Value:    32,
			Usage:    "`N`: the most requests that go to a worker together, 1 to 4096: with fewer, boxes end closer to each other; with more, fewer messages are needed",
		},
		&cli.StringFlag{
			Name:     "shard-encoding",
			Category: groupPolicy,
			Value:    string(proto.Snappy),
			Usage:    "`ENCODING`: encoding of the shards on the bus: snappy, or zstd or none for workers in other languages",
		},
	}
}

// policyFlags returns the flags of a run's policy on the bus.
func policyFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.IntFlag{
			Name:     "priority",
			Category: groupPolicy,
			Usage:    "`N`: workers take requests of the run with the highest priority first",
		},
		&cli.DurationFlag{
			Name:     "expires",
			Category: groupPolicy,
			Usage:    "`DURATION`: requests that have no answer after this time fail as batch_expired",
		},
		&cli.DurationFlag{
			Name:     "keep",
			Category: groupPolicy,
			Value:    24 * time.Hour,
			Usage:    "`DURATION`: how long the run stays on the bus after its end",
		},
		&cli.BoolFlag{
			Name:     "keep-results",
			Category: groupPolicy,
			Usage:    "keep all results on the bus for later readers, without a size limit",
		},
	}, limitFlags()...)
}

// parsePolicy reads and checks the flags of a run's policy.
func parsePolicy(c *cli.Command, now time.Time) (proto.RunPolicy, error) {
	t, err := parseLimits(c)
	if err != nil {
		return t, err
	}

	t.Priority, t.KeepResults = c.Int("priority"), c.Bool("keep-results")
	t.KeepSeconds = int64(c.Duration("keep").Seconds())

	if c.Duration("keep") < 0 {
		return t, exit.Usage("", "--keep %s: must not be negative", c.Duration("keep"))
	}

	if c.IsSet("expires") {
		if c.Duration("expires") <= 0 {
			return t, exit.Usage("", "--expires %s: must be more than 0", c.Duration("expires"))
		}
		at := now.UTC().Add(c.Duration("expires"))
		t.ExpiresAt = &at
	}

	return t, nil
}

// listenFlags returns the flags for the address of a bus that the command starts.
func listenFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:        "listen",
			Category:    groupBus,
			Usage:       "`HOST:PORT`: address at which other boxes can join, such as 0.0.0.0:4333",
			DefaultText: "only this machine can join",
		},
		advertiseFlag(),
	}
}

func parseListen(c *cli.Command, otherwise string) (natsserver.ListenAddress, error) {
	l := natsserver.ListenAddress{Address: otherwise, Advertise: c.String("advertise")}
	if c.IsSet("listen") {
		l.Address = c.String("listen")
	}

	named := []string{c.String("join"), c.String("join-file"), c.String("nats"), c.String("context")}
	if strings.Join(named, "") != "" && c.IsSet("listen") {
		return l, exit.Usage("leave out one of them", "--listen makes a bus, and --nats or --join uses another")
	}

	if _, _, err := natsserver.ParseAddress(l.Address); err != nil {
		return l, exit.Usage(natsserver.ExampleAddress(l.Address), "--listen %s: %w", l.Address, err)
	}

	return l, checkAdvertise(l.Advertise)
}
