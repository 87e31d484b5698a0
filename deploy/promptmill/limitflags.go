package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// limitFlags returns the flags of the limits that stop a run.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&wholeTextsFlag{
			Name:     "fail-if",
			Category: groupPolicy,
			Usage: "`CONDITION`: stop the run with exit code 5 when 'failed>1%', 'failed>50' or 'truncated>5%', in " +
				"quotes, is true of the requests that have ended since the last start; a percentage is judged " +
				"from 100 requests on",
		},
		&cli.StringFlag{
			Name:     "max-failures",
			Category: groupPolicy,
			Usage:    "`N`: stop the run with exit code 5 when more than N requests have failed since the last start",
		},
		&cli.StringFlag{
			Name:     "max-tokens",
			Category: groupPolicy,
			Usage: "`N`: stop the run with exit code 5 when its prompts and answers have used N tokens over all " +
				"starts, such as 500k or 5M (--set max_tokens=N limits each answer instead)",
		},
	}
}

// parseLimits reads the flags of the limits into a policy that has nothing else.
func parseLimits(c *cli.Command) (p proto.RunPolicy, err error) {
	for _, text := range textsOf(c, "fail-if") {
		t, err := proto.ParseThreshold(text)
		if err != nil {
			return p, exit.Usage("for example --fail-if 'failed>1%' or --fail-if 'truncated>=50', in quotes, "+
				"since > redirects in a shell", "--fail-if %q: %w", text, err)
		}
		p.FailIf = append(p.FailIf, t)
	}

	if text := c.String("max-failures"); text != "" {
		n, err := proto.ParseAmount(text)
		if err != nil {
			hint := "for example --max-failures 50"
			if t, err := proto.ParseThreshold("failed>" + text); err == nil {
				hint += fmt.Sprintf(", or --fail-if '%s'", t)
			}
			return p, exit.Usage(hint, "--max-failures %w", err)
		}
		p.FailIf = append(p.FailIf, proto.Threshold{Metric: proto.MetricFailed, Value: float64(n)})
	}

	if text := c.String("max-tokens"); text != "" {
		if p.MaxTokens, err = proto.ParseAmount(text); err == nil && p.MaxTokens == 0 {
			err = errors.New("0: must be more than 0")
		}
		if err != nil {
			return p, exit.Usage("for example --max-tokens 5M; without it, the tokens of a run are not limited",
				"--max-tokens %w", err)
		}
	}

	return p, nil
}
