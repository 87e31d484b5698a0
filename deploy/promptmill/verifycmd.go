package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/inputerror"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/verify"
)

func verifyCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "prove that the output has exactly one line for each request",
		ArgsUsage: "INPUT... OUTPUT" + output.ResultsSuffix,
		Description: "verify reads the input and the output (results, errors, and the journal of an incomplete run) " +
			"and compares them by custom_id. OUTPUT may be the table of a run, with the run's files beside it: then " +
			"verify compares each cell with the input and the output lines. OUTPUT may be at s3:// or gs://. With --answers it also compares " +
			"the hash of the answered request, which each line has, and the model that the answer names. No check can say whether an answer is good.",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{
				Name:     "answers",
				Category: groupOutput,
				Usage:    "also compare the request and the model of each line with the input",
			},
			&cli.BoolFlag{
				Name:     "json",
				Category: groupOutput,
				Usage:    "print the counts as JSON",
			},
		}, placeFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			places := openPlaces(c)
			defer places.Close()

			var copies remoteResults
			defer copies.close()

			return copies.describeError(verifyOutput(ctx, env, c, places, &copies))
		},
	}
}

// verifyOutput verifies the output that the last argument names, of which copies has copies if it is in a
// store.
func verifyOutput(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client, copies *remoteResults,
) error {
	args := gatherShards(c.Args().Slice())
	last := len(args) - 1
	isTable := last >= 0 && export.Ending(args[last]) != ""
	for i := range args {
		isResults := isTable && i == last-1 && strings.HasSuffix(args[i], output.ResultsSuffix)
		if i != last && !isResults {
			continue
		}

		var err error
		if args[i], err = copies.copyResults(ctx, places, args[i]); err != nil {
			return err
		}
	}

	env.stdout = renamingWriter{env.stdout, copies}
	if isTable {
		return verifyTable(ctx, env, c, places, args)
	}

	cfg, err := parseVerify(ctx, c, places, args)
	if err != nil {
		return err
	}

	return runVerify(ctx, env, cfg, c.Bool("json"))
}

// gatherShards returns the arguments with one file of a table in several files at the end: a shell
// puts all of them in the place of a pattern, and a person names a pattern, or the table as -o did.
func gatherShards(args []string) []string {
	args = slices.Clone(args)
	last := len(args) - 1
	if last < 0 || export.Ending(args[last]) == "" || objectstore.IsURL(args[last]) {
		return args
	}

	if !files.Exists(args[last]) {
		ending := export.Ending(args[last])
		pattern := escapePattern(strings.TrimSuffix(args[last], ending)) + "-?????-of-?????" + ending
		if strings.ContainsAny(args[last], "*?[") {
			pattern = args[last]
		}

		found, _ := filepath.Glob(pattern) // a pattern with a fault is the name of no file
		args = append(args[:last], found...)
		if len(found) == 0 {
			args = args[:last+1]
		}
	}

	last = len(args) - 1
	shards := export.Paths(export.ParsePath(args[last]))

	return append(slices.DeleteFunc(args[:last:last], func(arg string) bool {
		return len(shards) > 1 && slices.Contains(shards, arg)
	}), args[last])
}

// escapePattern returns a pattern that matches a name alone.
func escapePattern(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

// verifyTable compares a table with the run that it is of, and prints the result. The table is the last
// argument. The results of the run precede it, if they are not beside it under the same name.
func verifyTable(
	ctx context.Context, env environment, c *cli.Command, places *objectstore.Client, args []string,
) error {
	inputs, path := args[:len(args)-1], args[len(args)-1]

	path, shards := export.ParsePath(path)
	out := output.Prefix(strings.TrimSuffix(path, export.Ending(path)))
	if n := len(inputs) - 1; n > 0 && strings.HasSuffix(inputs[n], output.ResultsSuffix) {
		out = output.Prefix(strings.TrimSuffix(inputs[n], output.ResultsSuffix))
		inputs = inputs[:n]
	} else if n >= 0 && !files.Exists(out.Meta()) && !files.Exists(out.Journal()) {
		words := slices.Concat([]string{"promptmill", "verify"}, inputs, []string{"RUN" + output.ResultsSuffix, args[n+1]})

		return exit.Usage("name the results of its run before the table: "+report.ShellWords(words...),
			"%s is not there: it has the metadata of the run of a table", files.Short(out.Meta()))
	}

	switch {
	case len(inputs) == 0:
		return exit.Usage("for example: promptmill verify tickets.csv out.csv",
			"want input files and, last, the table of their run")
	case c.Bool("answers"):
		return exit.Usage("leave out --answers", "--answers is for output lines; each cell of a table is compared anyway")
	}

	named, err := expandInputs(ctx, inputs, places)
	if err == nil {
		named, err = named.without(pipeline.NewOwnFiles(out, path, nil))
	}
	if err != nil {
		return err
	}

	if len(named.files) > 0 && named.files[0] == "-" {
		copied, discard, err := spoolStdin(ctx, env, named.files)
		if err != nil {
			return err
		}
		defer discard()
		named.files = []string{copied}
	}

	cfg, err := export.FinishedRun(ctx, out, named.files, places)
	if err != nil {
		return err
	}

	cfg.Path, cfg.Shards = path, shards

	result, err := export.Check(ctx, cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return exit.Usage("", "%w", err)
	}
	if err != nil {
		return err
	}

	if c.Bool("json") {
		return errors.Join(printJSON(env.stdout, result), result.Err())
	}

	result.Print(env.stdout)

	return result.Err()
}

// parseVerify reads the arguments and flags of verify.
func parseVerify(
	ctx context.Context, c *cli.Command, places *objectstore.Client, args []string,
) (verify.Config, error) {
	if len(args) == 0 {
		args = []string{""}
	}

	inputs, last := args[:len(args)-1], args[len(args)-1]
	name, ok := strings.CutSuffix(last, output.ResultsSuffix)
	if !ok {
		name, ok = strings.CutSuffix(last, output.JournalSuffix)
	}

	if !ok || len(inputs) == 0 {
		return verify.Config{}, exit.Usage("for example: promptmill verify prompts.jsonl prompts.results.jsonl.zst",
			"want input files and, last, an output file that ends in %s", output.ResultsSuffix)
	}

	results, isErrors := strings.CutSuffix(last, output.Prefix("").Errors())
	if isErrors && !files.Exists(output.Prefix(name).Meta()) {
		return verify.Config{}, exit.Usage(
			"give "+output.Prefix(results).Results()+" in its place: verify also reads the failed requests beside it",
			"%s has only the failed requests of its run", last)
	}

	named, err := expandInputs(ctx, inputs, places)
	if err == nil {
		named, err = named.without(pipeline.NewOwnFiles(output.Prefix(name), "", nil))
	}
	if err != nil {
		return verify.Config{}, err
	}

	inputs = named.files
	run := verify.ReadSelection(output.Prefix(name))
	input := inputerror.Input{
		Files:     inputs,
		Validated: run.Input.Files,
		Opener:    places,
	}
	if slices.ContainsFunc(inputs, isPipe) {
		input.Files, input.Validated = slices.DeleteFunc(slices.Clone(inputs), isPipe), nil
	}

	if err := input.Check(ctx, run.Settings); err != nil {
		return verify.Config{}, err
	}

	return verify.Config{
		Inputs:  inputs,
		Opener:  places,
		Output:  output.Prefix(name),
		Answers: c.Bool("answers"),
	}, nil
}

// isPipe reports whether a name is that of a pipe, such as <(zcat FILE) in a shell. verify reads an
// input once, so it may be one, but its beginning cannot be read apart.
func isPipe(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}

// runVerify compares an input with an output and prints the result.
func runVerify(ctx context.Context, env environment, cfg verify.Config, asJSON bool) error {
	fromStdin := cfg.Inputs[0] == "-"
	if fromStdin {
		path, discard, err := spoolStdin(ctx, env, cfg.Inputs)
		if err != nil {
			return err
		}
		defer discard()
		cfg.Inputs = []string{path}
	}

	result, err := verify.Run(ctx, cfg)
	if err != nil {
		return inputerror.Input{Files: cfg.Inputs, Stdin: fromStdin}.Describe(err)
	}

	if asJSON {
		return errors.Join(printJSON(env.stdout, result), result.Err())
	}

	result.Print(env.stdout)

	return result.Err()
}

// spoolStdin copies standard input, which verify and export read twice. The caller discards the copy.
func spoolStdin(ctx context.Context, env environment, inputs []string) (path string, discard func(), err error) {
	if len(inputs) > 1 {
		return "", nil, exit.Usage("", "standard input cannot be mixed with files")
	}

	dir, err := os.MkdirTemp("", "promptmill-")
	if err != nil {
		return "", nil, fmt.Errorf("copy standard input: %w", err)
	}

	discard = func() { os.RemoveAll(dir) }

	path, err = pipeline.CopyStdin(ctx, env.stdin, dir)
	if err != nil {
		discard()
		return "", nil, err
	}

	return path, discard, nil
}
