package main

import "testing"

func TestUsageOfLimits(t *testing.T) {
	t.Parallel()

	const (
		thresholds = "for example --fail-if 'failed>1%' or --fail-if 'truncated>=50', in quotes, " +
			"since > redirects in a shell"
		tokens = "for example --max-tokens 5M; without it, the tokens of a run are not limited"
	)
	files := map[string]string{"in.jsonl": `{"prompt":"hello"}` + "\n"}

	var usages []usage
	for _, u := range []struct{ args, err, hint string }{
		{"--fail-if failed", `--fail-if "failed": want METRIC>VALUE or METRIC>=VALUE`, thresholds},
		{"--fail-if failed=1", `--fail-if "failed=1": want METRIC>VALUE or METRIC>=VALUE`, thresholds},
		{"--fail-if fail>1%", `--fail-if "fail>1%": "fail" is no metric: there are failed and truncated`, thresholds},
		{"--fail-if failed>-1%", `--fail-if "failed>-1%": "-1%" is no percentage from 0% to 100%`, thresholds},
		{"--fail-if failed>101%", `--fail-if "failed>101%": "101%" is no percentage from 0% to 100%`, thresholds},
		{"--fail-if failed>many",
			`--fail-if "failed>many": "many" is no whole number such as 500, 500k, 5M or 1e9`, thresholds},
		{"--fail-if latency>3s", `--fail-if "latency>3s": "latency" is no metric: there are failed and truncated`, thresholds},
		{"--fail-if failed>1,5%", `--fail-if "failed>1,5%": "1,5%" is no percentage: write 1.5%`, thresholds},
		{"--fail-if failed>=0", `--fail-if "failed>=0": failed>=0 is always true`, thresholds},
		{"--fail-if failed>1% --fail-if truncated>x%",
			`--fail-if "truncated>x%": "x%" is no percentage from 0% to 100%`, thresholds},
		{"--max-failures -1", `--max-failures "-1" is no whole number such as 500, 500k, 5M or 1e9`,
			"for example --max-failures 50"},
		{"--max-failures 1%", `--max-failures "1%" is no whole number such as 500, 500k, 5M or 1e9`,
			"for example --max-failures 50, or --fail-if 'failed>1%'"},
		{"--max-tokens 5q", `--max-tokens "5q" is no whole number such as 500, 500k, 5M or 1e9`, tokens},
		{"--max-tokens 0", "--max-tokens 0: must be more than 0", tokens},
		{"--max-tokens -5", `--max-tokens "-5" is no whole number such as 500, 500k, 5M or 1e9`, tokens},
	} {
		usages = append(usages,
			usage{args: "run in.jsonl --sim " + u.args, files: files, err: u.err, hint: u.hint, code: 2})
	}

	testUsages(t, append(usages,
		usage{
			args:  "submit in.jsonl --fail-if failed",
			files: files,
			err:   `--fail-if "failed": want METRIC>VALUE or METRIC>=VALUE`,
			hint:  thresholds,
			code:  2,
		},
		usage{
			args: "resume r --max-tokens 0",
			err:  "--max-tokens 0: must be more than 0",
			hint: tokens,
			code: 2,
		},
		usage{
			args:  "run in.jsonl --sim",
			env:   []string{"PROMPTMILL_FAIL_IF=failed"},
			files: files,
			err:   `--fail-if "failed": want METRIC>VALUE or METRIC>=VALUE`,
			hint:  thresholds,
			code:  2,
		},
	))
}
