package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
)

// reportFlags returns the flags for the content of reports.
func reportFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{
			Name:        "baseline",
			Category:    groupReport,
			Usage:       "`META`: metadata of the run to compare with",
			DefaultText: "the last run of another model on the same input",
		},
	}, estimateFlags()...)
}

// estimateFlags returns the flags for the estimates and the costs in reports.
func estimateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:        "estimate",
			Category:    groupReport,
			Usage:       "`N,...`: numbers of requests to estimate the time for",
			DefaultText: "100,5000,50000,200000",
		},
		&cli.FloatFlag{
			Name:        "price-in",
			Category:    groupReport,
			Usage:       "`PRICE`: price of a million prompt tokens at an API, for comparison",
			DefaultText: "unknown",
		},
		&cli.FloatFlag{
			Name:        "price-out",
			Category:    groupReport,
			Usage:       "`PRICE`: price of a million completion tokens at that API",
			DefaultText: "unknown",
		},
		&cli.FloatFlag{
			Name:        "price-kwh",
			Category:    groupReport,
			Usage:       "`PRICE`: price of a kilowatt-hour, in the same currency",
			DefaultText: "unknown",
		},
		&cli.StringFlag{
			Name:        "currency",
			Category:    groupReport,
			Usage:       "`CODE`: currency of the prices, such as USD; reports print it with each cost",
			DefaultText: "none",
		},
	}
}

// priceFlags are the names of the flags of prices.
var priceFlags = []string{"price-in", "price-out", "price-kwh", "price-hour"}

// estimateWorkersFlag returns the flag for the workers to estimate for.
func estimateWorkersFlag() cli.Flag {
	return &cli.IntFlag{
		Name:        "workers",
		Category:    groupReport,
		Usage:       "`N`: also estimate for this number of workers",
		DefaultText: "1, 2, 4 and as many as the run had",
	}
}

// parseReports reads and checks the flags of reports.
func parseReports(env environment, c *cli.Command) (o report.Options, err error) {
	if o, err = parseEstimateFlags(c); err != nil {
		return o, err
	}

	if name := c.String("baseline"); name != "" {
		state, _ := stateOf(env, c) // only the names of runs need it
		o.BaselinePath, o.Baseline, err = metaFinder{env: env, state: state}.open(context.Background(), name)
		if err != nil {
			return o, fmt.Errorf("--baseline: %w", err)
		}
	}

	return o, nil
}

// parseEstimateFlags reads and checks the flags for the estimates and the costs in reports.
func parseEstimateFlags(c *cli.Command) (o report.Options, err error) {
	if o.Estimates, err = parseEstimates(c.String("estimate")); err != nil {
		return o, err
	}

	for name, price := range map[string]**float64{
		"price-in":  &o.Prices.In,
		"price-out": &o.Prices.Out,
		"price-kwh": &o.Prices.KWh,
	} {
		if !c.IsSet(name) {
			continue
		}

		if v := c.Float(name); !(v >= 0 && v <= 1e9) {
			return o, exit.Usage("", "--%s %g: must not be negative", name, v)
		}

		*price = new(c.Float(name))
	}

	o.Prices.Currency, err = parseCurrency(c.String("currency"))

	return o, err
}

// parseCurrency checks the code of a currency: three letters, as ISO 4217 has them.
func parseCurrency(code string) (string, error) {
	if code == "" {
		return "", nil
	}

	notLetter := func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') }
	if len(code) != 3 || strings.ContainsFunc(code, notLetter) {
		return "", exit.Usage("for example --currency USD", "--currency %s: want the three letters of a currency",
			report.ShellWords(code))
	}

	return strings.ToUpper(code), nil
}

// parseEstimates parses numbers of requests.
func parseEstimates(list string) (counts []int, err error) {
	if list == "" {
		return nil, nil
	}

	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 1e12 {
			return nil, exit.Usage("for example --estimate 5000,200000",
				"--estimate %s: %q is not a number of requests", list, part)
		}
		counts = append(counts, n)
	}

	return counts, nil
}
