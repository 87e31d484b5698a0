package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/pipeline"
)

// outputUsage describes -o.
const outputUsage = "`NAME.jsonl.zst`: file for the answers; or NAME.csv, .tsv, .jsonl, .jsonl.gz or .parquet: table of " +
	"the input's rows with their answers, beside that file; or s3://BUCKET/NAME or gs://BUCKET/NAME with such an ending"

// shardsFlag returns the flag for the number of files of a table.
func shardsFlag() cli.Flag {
	return &cli.IntFlag{
		Name:     "shards",
		Category: groupOutput,
		Usage:    "`N`: write the table of -o as N files, NAME-00000-of-0000N.csv and so on",
		Value:    1,
	}
}

// outputOf returns the output that -o names, or else name in the working directory, and the
// table of its answers, if -o names one. An output at a URL has its local files at name.
func outputOf(c *cli.Command, name string) (output.Prefix, pipeline.TableOutput, error) {
	t := pipeline.TableOutput{Shards: c.Int("shards")}
	shown := cmp.Or(c.String("output"), name)
	if !objectstore.IsURL(shown) {
		name = shown
	}

	if scheme, rest, _ := strings.Cut(name, ":/"); scheme == "s3" || scheme == "gs" {
		return "", t, exit.Usage("write -o "+report.ShellWords(scheme+"://"+strings.TrimLeft(rest, "/")),
			"-o %s: a URL has two slashes after the colon", name)
	}

	if t.Shards < 1 || t.Shards > export.MaxShards {
		return "", t, exit.Usage("for example --shards 16", "--shards %d: must be from 1 to %d", t.Shards,
			export.MaxShards)
	}

	ending := export.Ending(name)
	switch {
	case ending == "" && (!strings.HasSuffix(name, output.ResultsSuffix) ||
		filepath.Base(name) == output.ResultsSuffix):
		return "", t, refuseOutputName(name)
	case ending == "" && t.Shards > 1:
		return "", t, exit.Usage("for example -o "+
			report.ShellWords(strings.TrimSuffix(shown, output.ResultsSuffix)+".csv"),
			"--shards %d: only a table has several files, and %s is none", t.Shards, shown)
	case ending != "" && c.Bool("plain"):
		return "", t, exit.Usage("leave out --plain", "--plain takes out what a table needs of the output lines")
	}

	if isFolder(name) {
		return "", t, refuseOutputName(name)
	}

	name, err := filepath.Abs(name)
	if err != nil {
		return "", t, err
	}

	if !objectstore.IsURL(shown) { // the folder of a copy is made later
		if err := checkOutputFolder(filepath.Dir(name)); err != nil {
			return "", t, err
		}
	}

	if ending == "" {
		return output.Prefix(strings.TrimSuffix(name, output.ResultsSuffix)), t, nil
	}

	t.Path = name

	return output.Prefix(strings.TrimSuffix(name, ending)), t, nil
}

// listEndings lists the endings of tables.
func listEndings() string { return joinWords(export.Formats()) }

// isFolder reports whether a path is that of a folder.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// checkOutputFolder refuses an output whose folder is not there.
func checkOutputFolder(dir string) error {
	switch info, err := os.Stat(dir); {
	case err != nil:
		return exit.Usage("make it first", "the folder of the output, %s, is not there", dir)
	case !info.IsDir():
		return exit.Usage("choose another folder", "the folder of the output, %s, is a file", dir)
	}
	return nil
}

// refuseOutputName returns the error for an output without a name that ends as it must.
func refuseOutputName(name string) error {
	info, err := os.Stat(name)
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		return exit.Usage("promptmill tail prints the answers of a run as they come",
			"-o %s: a run writes several files, and cannot write into a device or a pipe", name)
	}

	if filepath.Base(name) == output.ResultsSuffix || strings.HasSuffix(name, "/") || err == nil && info.IsDir() {
		example := filepath.Join(strings.TrimSuffix(name, output.ResultsSuffix), "results"+output.ResultsSuffix)
		table := strings.TrimSuffix(example, output.ResultsSuffix) + ".csv"

		return exit.Usage("for example -o "+report.ShellWords(example)+", or for a table -o "+report.ShellWords(table),
			"-o %s names no file", name)
	}

	if name == "-" {
		return exit.Usage("give -o NAME.jsonl.zst; promptmill tail prints the answers of a run as they come",
			"-o -: a run writes several files, and cannot write to standard output")
	}

	return exit.Usage("for example -o "+report.ShellWords(exampleOutput(name)),
		"-o %s: must end in %s, or for a table in %s", name, output.ResultsSuffix, listEndings())
}

// exampleOutput returns the name of an output that is like a name: the name in lower case if that
// ends in the right way, a table in CSV for a spreadsheet, and else a file of output lines.
func exampleOutput(name string) string {
	lower := strings.TrimSuffix(name, filepath.Ext(name)) + strings.ToLower(filepath.Ext(name))
	if export.Ending(lower) != "" {
		return lower
	}

	ending := output.ResultsSuffix
	for _, suffix := range []string{".zst", ".gz", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet"} {
		name = strings.TrimSuffix(name, suffix)
	}

	for _, suffix := range []string{".xlsx", ".xls", ".ods"} {
		if trimmed, ok := strings.CutSuffix(strings.ToLower(name), suffix); ok {
			name, ending = name[:len(trimmed)], ".csv"
		}
	}

	return cmp.Or(name, "results") + ending
}
