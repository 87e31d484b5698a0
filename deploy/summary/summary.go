// Package summary prints the results of a complete run: the number of answered requests, the rates,
// the causes of failed requests, and the names of the files.
package summary

import (
	"fmt"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// Print prints the counts, rates, causes of failure and files of a complete run. inputs are the
// names of its input files as the user gave them, if they are known.
func Print(s *terminal.Screen, meta *metadata.Run, out output.Prefix, inputs []string) {
	res := meta.Results
	done := "done"
	if meta.Status != proto.StateCompleted {
		done = string(meta.Status)
	}

	s.Printf("%s: %d answered, %d failed, in %s", done, res.SuccessCount, res.FailureCount,
		(time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))

	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		s.Printf("      %.1f requests/s, %.0f tokens/s in, %.0f tokens/s out",
			*res.ThroughputRequestsPerSec, *res.InputTokensPerSec, *res.OutputTokensPerSec)
	}

	PrintCauses(s, meta, out.Errors())
	PrintFiles(s, meta, out, inputs)
}

// PrintFiles prints the names of the output files and the command that verifies them.
func PrintFiles(s *terminal.Screen, meta *metadata.Run, out output.Prefix, inputs []string) {
	s.Printf("  results   %s", files.Short(out.Results()))
	if meta.Test.ErrorFile != nil {
		s.Printf("  errors    %s", files.Short(out.Errors()))
	}

	s.Printf("  metadata  %s", files.Short(out.Meta()))
	for _, path := range []string{out.ReportMarkdown(), out.ReportHTML()} {
		if files.Exists(path) {
			s.Printf("  report    %s", files.Short(path))
		}
	}

	if len(inputs) > 0 && inputs[0] != "-" {
		words := []string{"promptmill", "verify"}
		for _, input := range inputs {
			if input[0] == '-' {
				input = "./" + input // not a flag
			}
			words = append(words, input)
		}

		s.Printf("prove it:   %s", report.ShellWords(append(words, files.Short(out.Results()))...))
	}
}

// Err returns the error of a complete run that has failed requests, or nil.
func Err(meta *metadata.Run) error {
	if meta.Results.FailureCount == 0 {
		return nil
	}

	return exit.RequestsFailed(
		fmt.Errorf("%d of %d requests failed", meta.Results.FailureCount, meta.Test.NumRequests),
		report.ShellWords("zstd", "-dc", files.Short(*meta.Test.ErrorFile))+" shows why")
}
