package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/summary"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/deploy/upload"
)

func exportCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write the answers of a finished run as a table, beside the rows of its input",
		ArgsUsage: "RESULTS" + output.ResultsSuffix + " INPUT...",
		Description: "export joins the input with the results, the errors and the metadata of a run: one row for " +
			"each request, in the order of the input, with its columns and answer, finish_reason, error, input_tokens, " +
			"output_tokens and latency_ms. A run with -o NAME.csv or another table writes the same itself.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{
				Name:     "output",
				Category: groupOutput,
				Aliases:  []string{"o"},
				Usage: "`FILE`: table to write; it ends in " + listEndings() +
					"; or s3://BUCKET/KEY or gs://BUCKET/KEY with such an ending",
			},
			shardsFlag(),
		}, placeFlags()...),
		Action: func(ctx context.Context, c *cli.Command) error {
			places := openPlaces(c)
			defer places.Close()

			var copies remoteResults
			defer copies.close()

			o, err := parseExport(ctx, c, places, &copies)
			if err != nil {
				return copies.describeError(err)
			}

			return copies.describeError(exportRun(ctx, env, o, &copies))
		},
	}
}

// exportOptions are the arguments and flags of export.
type exportOptions struct {
	results output.Prefix
	inputs  []string
	path    string
	shards  int
	// named are the results and the inputs as the user named them, and table is the first file of
	// the table.
	named []string
	table string
	// places opens the inputs.
	places *objectstore.Client
	// upload moves the table into a store. Nil: it stays on this machine.
	upload *upload.Target
}

// parseExport reads the arguments and flags of export.
func parseExport(
	ctx context.Context, c *cli.Command, places *objectstore.Client, copies *remoteResults,
) (o exportOptions, err error) {
	o.places = places
	o.inputs, o.path, o.shards = c.Args().Slice(), c.String("output"), c.Int("shards")

	const example = "for example: promptmill export out.jsonl.zst tickets.csv -o out.csv"
	if len(o.inputs) < 2 {
		return o, exit.Usage(example, "want the results of a run, the files of its input, and -o FILE")
	}

	if filepath.Base(o.inputs[0]) == output.ResultsSuffix || !strings.HasSuffix(o.inputs[0], output.ResultsSuffix) {
		return o, exit.Usage(example, "%s: want the results of a run first, which end in %s", o.inputs[0],
			output.ResultsSuffix)
	}

	switch {
	case o.path == "":
		return o, exit.Usage(example, "-o is missing: the table to write")
	case isFolder(o.path):
		return o, exit.Usage(example, "-o %s is a folder", o.path)
	case export.Ending(o.path) == "":
		return o, exit.Usage(example, "-o %s: must end in %s", o.path, listEndings())
	case o.shards < 1 || o.shards > export.MaxShards:
		return o, exit.Usage("for example --shards 16", "--shards %d: must be from 1 to %d", o.shards, export.MaxShards)
	}

	results, err := copies.copyResults(ctx, places, o.inputs[0])
	if err != nil {
		return o, err
	}

	o.named, o.table = c.Args().Slice(), export.Paths(o.path, o.shards)[0]
	place := output.Prefix(strings.TrimSuffix(o.inputs[0], output.ResultsSuffix))
	table := o.path
	o.results, o.inputs = output.Prefix(strings.TrimSuffix(results, output.ResultsSuffix)), o.inputs[1:]
	if objectstore.IsURL(o.path) {
		if slices.Contains(o.inputs, o.path) {
			return o, exit.Usage("choose another table with -o", "the input %s is the table", o.path)
		}
		o.path, o.upload, err = copies.placeTable(ctx, places, o.path, o.shards)
	} else {
		err = checkOutputFolder(filepath.Dir(o.path))
	}

	if err != nil {
		return o, err
	}

	named, err := expandInputs(ctx, o.inputs, places)
	if err != nil {
		return o, err
	}

	if named, err = named.without(pipeline.NewOwnFiles(place, table, nil)); err != nil {
		return o, err
	}

	o.inputs = named.files

	return o, checkTableInputs(o)
}

// checkTableInputs refuses a table that is one of the inputs, or a file of the run.
func checkTableInputs(o exportOptions) error {
	for _, path := range export.Paths(o.path, o.shards) {
		table, err := os.Stat(path)
		if err != nil {
			continue
		}

		for _, input := range o.inputs {
			if info, err := os.Stat(input); err == nil && os.SameFile(info, table) {
				return exit.Usage("choose another table with -o", "the input %s is the table %s", input, path)
			}
		}

		if own := o.results.FindSame(table); own != "" {
			return exit.Usage("choose another table with -o", "-o %s is the file %s of the run", path, files.Short(own))
		}
	}

	return nil
}

// exportRun writes the table of a run.
func exportRun(ctx context.Context, env environment, o exportOptions, copies *remoteResults) error {
	if len(o.inputs) > 0 && o.inputs[0] == "-" {
		copied, discard, err := spoolStdin(ctx, env, o.inputs)
		if err != nil {
			return err
		}
		defer discard()
		o.inputs = []string{copied}
	}

	cfg, err := export.FinishedRun(ctx, o.results, o.inputs, o.places)
	if err != nil {
		return err
	}

	cfg.Path, cfg.Shards, cfg.KeepOthers = o.path, o.shards, o.upload == nil
	if o.upload != nil {
		if err := o.upload.PrepareTables(ctx, cfg.Run.Run); err != nil {
			return err
		}
		cfg.Create = o.upload.CreateTable(ctx, cfg.Run.Run)
	} else if err := export.CheckReplaced(ctx, cfg); err != nil {
		return err
	}

	tables, err := export.Write(ctx, cfg)
	if errors.Is(err, syscall.ENOSPC) {
		err = exit.WithHint(err, "free space on that disk, then run the same command again")
	}
	if err != nil {
		return err
	}

	text := "wrote " + terminal.CountOf(cfg.Run.Input.Requests, "row") + " into " +
		files.Short(export.Paths(o.path, o.shards)[0])
	if n := len(tables) - 1; n > 0 {
		text += " and " + terminal.CountOf(n, "more file")
	}

	terminal.Fprintf(env.stderr, "%s\n", copies.rename(text))
	if o.named[1] != "-" {
		terminal.Fprintf(env.stderr, "prove it: %s\n", summary.FormatProof(o.named[1:], o.named[0], o.table))
	}

	return nil
}
