package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
)

// reportFlags say what stands in a report besides the run.
func reportFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:        "baseline",
			Usage:       "compare with the run of this `META`",
			DefaultText: "the last run of another model on the same input",
			Sources:     flagEnv("baseline"),
		},
		&cli.StringFlag{
			Name:        "estimate",
			Usage:       "how long `N,...` requests would take",
			DefaultText: "100,5000,50000,200000",
			Sources:     flagEnv("estimate"),
		},
		&cli.FloatFlag{
			Name:        "price-in",
			Usage:       "`PRICE` of a million prompt tokens at an API",
			DefaultText: "unknown",
			Sources:     flagEnv("price-in"),
		},
		&cli.FloatFlag{
			Name:        "price-out",
			Usage:       "`PRICE` of a million completion tokens there",
			DefaultText: "unknown",
			Sources:     flagEnv("price-out"),
		},
		&cli.FloatFlag{
			Name:        "price-kwh",
			Usage:       "`PRICE` of a kilowatt-hour",
			DefaultText: "unknown",
			Sources:     flagEnv("price-kwh"),
		},
	}
}

// reports say what to write of a run.
type reports struct {
	options report.Options // but for the run's own path
	state   string         // folder of the history
}

func parseReports(c *cli.Command) (r reports, err error) {
	if r.options.Estimates, err = parseEstimates(c.String("estimate")); err != nil {
		return r, err
	}

	for name, price := range map[string]**float64{
		"price-in":  &r.options.Prices.In,
		"price-out": &r.options.Prices.Out,
		"price-kwh": &r.options.Prices.KWh,
	} {
		if !c.IsSet(name) {
			continue
		}

		if v := c.Float(name); !(v >= 0 && v <= 1e9) {
			return r, exit.Usage("", "--%s %g: must not be negative", name, v)
		}

		*price = new(c.Float(name))
	}

	if name := c.String("baseline"); name != "" {
		r.options.BaselinePath, r.options.Baseline, err = openMeta(name)
		if err != nil {
			return r, fmt.Errorf("--baseline: %w", err)
		}
	}

	return r, nil
}

func parseEstimates(list string) (counts []int, err error) {
	if list == "" {
		return nil, nil
	}

	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 1e12 {
			return nil, exit.Usage("for example --estimate 5000,200000",
				"--estimate %s: %q is no number of requests", list, part)
		}
		counts = append(counts, n)
	}

	return counts, nil
}

// openMeta reads the metadata that is called so, or that of an output that is.
func openMeta(name string) (path string, run *metadata.Run, err error) {
	path = name
	out := output.Prefix(strings.TrimSuffix(name, output.ResultsSuffix))
	if files.Exists(out.Meta()) {
		path = out.Meta()
	}

	run, err = metadata.Read(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return path, nil, exit.Usage("promptmill history lists the runs of this machine",
			"there is neither %s nor %s", name, out.Meta())
	case errors.Is(err, metadata.ErrFormat):
		return path, nil, exit.WithHint(err, "want NAME.meta.json, or the NAME.jsonl.zst beside it")
	}

	return path, run, err
}

// of makes the report of the run whose metadata is at path.
func (r reports) of(path string, run *metadata.Run) (*report.Report, error) {
	o := r.options
	o.Path = path
	if o.Baseline == nil {
		list, err := history.Load(r.state)
		if err != nil {
			return nil, err
		}

		for _, e := range history.Baselines(list, run) {
			if baseline, err := metadata.Read(e.Meta); err == nil && baseline.TestID == e.TestID { // else it was moved
				o.BaselinePath, o.Baseline = e.Meta, baseline
				break
			}
		}
	}

	return report.Build(run, o), nil
}

// write writes the report of an ended run beside its metadata, and notes the run in the
// history. The results are there: what goes wrong here is no more than a warning.
func (r reports) write(run *metadata.Run, out output.Prefix, log zerolog.Logger) {
	made, err := r.of(out.Meta(), run)
	if err == nil {
		err = errors.Join(files.Write(out.ReportMarkdown(), 0o666, made.Markdown),
			files.Write(out.ReportHTML(), 0o666, made.HTML))
	}
	if err != nil {
		log.Warn().Err(err).Msg("failed to write the report; make it with promptmill report")
	}

	if err := history.Append(r.state, history.Of(out.Meta(), run)); err != nil {
		log.Warn().Err(err).Msg("failed to note the run in the history")
	}
}

// writeOf is write for the metadata that lies beside an output.
func (r reports) writeOf(out output.Prefix, log zerolog.Logger) {
	run, err := out.ReadMeta()
	if err != nil {
		log.Warn().Err(err).Msg("failed to write the report; make it with promptmill report")
		return
	}
	r.write(run, out, log)
}
