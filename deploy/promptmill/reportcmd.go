package main

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
)

func reportCommand(env environment) *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "write what a run has come to, with conclusions and estimates",
		ArgsUsage: "META...",
		Description: "META is a run's NAME.meta.json, or the output beside it, or a file of another tool that\n" +
			"uses the same names. Every run leaves NAME.report.md and NAME.report.html; this command\n" +
			"writes them anew, with another baseline or other prices.",
		Flags: slices.Concat(reportFlags(), []cli.Flag{
			&cli.IntFlag{
				Name:        "workers",
				Usage:       "estimate for `N` workers",
				DefaultText: "as many as the run had",
				Sources:     flagEnv("workers"),
			},
		}, writingFlags(), []cli.Flag{stateFlag()}),
		Action: func(_ context.Context, c *cli.Command) error { return writeReport(env, c) },
	}
}

func writeReport(env environment, c *cli.Command) error {
	if !c.Args().Present() {
		return exit.Usage("for example: promptmill report NAME.meta.json", "want the metadata of a run")
	}

	if c.Int("workers") < 0 {
		return exit.Usage("", "--workers %d: must not be negative", c.Int("workers"))
	}

	to, err := parseWriting(env, c)
	if err != nil {
		return err
	}

	if to.format == "html" && c.Args().Len() > 1 {
		return exit.Usage("name them one by one, or promptmill compare", "a page of HTML is of one run")
	}

	options, err := parseReports(c)
	if err != nil {
		return err
	}

	options.Workers = c.Int("workers")
	state, err := stateOf(env, c)
	if err != nil {
		return err
	}

	var list []*report.Report
	for _, name := range c.Args().Slice() {
		path, run, err := openMeta(name)
		if err != nil {
			return err
		}

		made, err := pipeline.BuildReport(options, state, path, run)
		if err != nil {
			return err
		}

		list = append(list, made)
	}

	return to.write(list...)
}

// writingFlags say where a report goes, and in which form.
func writingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:    "output",
			Aliases: []string{"o"},
			Usage:   "write to `FILE` instead of standard output",
			Sources: flagEnv("output"),
		},
		&cli.StringFlag{
			Name:        "format",
			Usage:       "`FORMAT`: md, html or json",
			DefaultText: "that of FILE's name, or md",
			Sources:     flagEnv("format"),
		},
		&cli.BoolFlag{Name: "json", Usage: "the same as --format json", Sources: flagEnv("json")},
	}
}

// writing is where a report goes, and in which form.
type writing struct {
	path   string // empty: standard output
	format string
	stdout io.Writer
}

func parseWriting(env environment, c *cli.Command) (writing, error) {
	w := writing{path: c.String("output"), format: c.String("format"), stdout: env.stdout}
	if w.format == "" {
		w.format = strings.TrimPrefix(filepath.Ext(w.path), ".")
		if w.format != "html" && w.format != "json" {
			w.format = "md"
		}
		if c.Bool("json") {
			w.format = "json"
		}
	}

	switch w.format {
	case "md", "html", "json":
		return w, nil
	}

	return w, exit.Usage("", "--format %q: want md, html or json", w.format)
}

// write writes reports, one after the other.
func (w writing) write(list ...*report.Report) error {
	all := func(to io.Writer) error {
		for i, r := range list {
			if i > 0 && w.format == "md" {
				if _, err := io.WriteString(to, "\n"); err != nil {
					return err
				}
			}

			write := map[string]func(io.Writer) error{"md": r.Markdown, "html": r.HTML, "json": r.JSON}[w.format]
			if err := write(to); err != nil {
				return err
			}
		}

		return nil
	}
	if w.path == "" {
		return all(w.stdout)
	}

	return files.Write(w.path, 0o666, all)
}
