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
		Usage:     "write the report of a run, with conclusions and estimates",
		ArgsUsage: "META...",
		Description: "META is the id or the label of a run, its NAME.meta.json, the output beside that, or a file " +
			"of another tool with the same names. Every run leaves NAME.report.md and NAME.report.html. This " +
			"command writes a report again, with another baseline or other prices.",
		Flags: slices.Concat(reportFlags(), []cli.Flag{estimateWorkersFlag()}, reportWriterFlags(), busFlags()),
		Action: func(ctx context.Context, c *cli.Command) error {
			o, err := parseReport(env, c)
			if err != nil {
				return err
			}
			return writeReports(ctx, o)
		},
	}
}

// reportOptions are the flags of report.
type reportOptions struct {
	metadata []string // names of files, of the outputs beside them, or of runs
	finder   metaFinder
	report   report.Options
	to       reportWriter
}

// parseReport reads the flags of report.
func parseReport(env environment, c *cli.Command) (o reportOptions, err error) {
	o.metadata = c.Args().Slice()
	if len(o.metadata) == 0 {
		return o, exit.Usage("for example: promptmill report NAME.meta.json, or promptmill report RUN",
			"want the metadata of a run, or its id")
	}

	workers, err := parseEstimateWorkers(c)
	if err != nil {
		return o, err
	}

	if o.to, err = parseReportWriter(env, c); err != nil {
		return o, err
	}

	if o.to.format == "html" && len(o.metadata) > 1 {
		return o, exit.Usage("name them one by one, or promptmill compare", "a page of HTML is of one run")
	}

	if o.report, err = parseReports(env, c); err != nil {
		return o, err
	}

	o.report.Workers = workers
	o.finder, err = newMetaFinder(env, c)

	return o, err
}

// parseEstimateWorkers reads the number of workers to estimate for.
func parseEstimateWorkers(c *cli.Command) (int, error) {
	workers := c.Int("workers")
	if workers < 0 {
		return 0, exit.Usage("", "--workers %d: must not be negative", workers)
	}
	return workers, nil
}

// writeReports writes the reports of some runs.
func writeReports(ctx context.Context, o reportOptions) error {
	var list []*report.Report
	for _, name := range o.metadata {
		path, run, err := o.finder.open(ctx, name)
		if err != nil {
			return err
		}

		made, err := pipeline.BuildReport(o.report, o.finder.state, path, run)
		if err != nil {
			return err
		}

		list = append(list, made)
	}

	return o.to.write(list...)
}

// reportWriterFlags returns the flags for the place and format of a report.
func reportWriterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:     "output",
			Category: groupOutput,
			Aliases:  []string{"o"},
			Usage:    "`FILE`: write to this file instead of standard output",
		},
		&cli.StringFlag{
			Name:        "format",
			Category:    groupReport,
			Usage:       "`FORMAT`: md, html or json",
			DefaultText: "by the name of -o, or md",
		},
		&cli.BoolFlag{
			Name:     "json",
			Category: groupOutput,
			Usage:    "print JSON, as --format json does",
		},
	}
}

// reportWriter writes reports to a place, in a format.
type reportWriter struct {
	path   string // empty: standard output
	format string // md, html or json
	stdout io.Writer
}

// parseReportWriter reads the flags for the place and format of a report.
func parseReportWriter(env environment, c *cli.Command) (reportWriter, error) {
	w := reportWriter{path: c.String("output"), format: c.String("format"), stdout: env.stdout}
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

// write writes reports one after the other.
func (w reportWriter) write(list ...*report.Report) error {
	writeAll := func(to io.Writer) error {
		for i, r := range list {
			if i > 0 && w.format == "md" {
				if _, err := io.WriteString(to, "\n"); err != nil {
					return err
				}
			}

			if err := w.writeOne(to, r); err != nil {
				return err
			}
		}

		return nil
	}

	if w.path == "" {
		return writeAll(w.stdout)
	}

	return files.Write(w.path, 0o666, writeAll)
}

func (w reportWriter) writeOne(to io.Writer, r *report.Report) error {
	switch w.format {
	case "html":
		return r.HTML(to)
	case "json":
		return r.JSON(to)
	}
	return r.Markdown(to)
}
