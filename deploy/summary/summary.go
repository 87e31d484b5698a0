// Package summary prints the results of a complete run: the number of answered requests, the rates,
// the causes of failed requests, and the names of the files.
package summary

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/program"
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

	s.Print(terminal.Line{
		{Text: done + ": " + terminal.FormatCount(res.SuccessCount) + " answered, "},
		spanFailed(res),
		{Text: fmt.Sprintf(", in %s",
			(time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))},
	})

	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		s.Printf("      %s requests/s, %s tokens/s in, %s tokens/s out",
			formatRate(*res.ThroughputRequestsPerSec), terminal.FormatCount(int(*res.InputTokensPerSec+0.5)),
			terminal.FormatCount(int(*res.OutputTokensPerSec+0.5)))
	}

	PrintCauses(s, meta, out.Errors())
	PrintFiles(s, meta, out, inputs)
}

// PrintCopied is [Print] for a copy of a run that had ended: without rates, which are those of the
// run and not of the copy.
func PrintCopied(s *terminal.Screen, meta *metadata.Run, out output.Prefix, inputs []string) {
	s.Print(terminal.Line{
		{Text: fmt.Sprintf("copied the %s run: %s answered, ", meta.Status,
			terminal.FormatCount(meta.Results.SuccessCount))},
		spanFailed(meta.Results),
	})
	PrintCauses(s, meta, out.Errors())
	PrintFiles(s, meta, out, inputs)
}

// spanFailed returns the number of failed requests.
func spanFailed(res metadata.Results) terminal.Span {
	failed := terminal.Span{Text: terminal.FormatCount(res.FailureCount) + " failed"}
	if res.FailureCount > 0 {
		failed.Colour = terminal.Red
	}

	return failed
}

// formatRate formats requests per second: with a decimal below 1,000.
func formatRate(rate float64) string {
	if rate < 1000 {
		return fmt.Sprintf("%.1f", rate)
	}
	return terminal.FormatCount(int(rate + 0.5))
}

// PrintFiles prints the names of the output files and the command that verifies them.
func PrintFiles(s *terminal.Screen, meta *metadata.Run, out output.Prefix, inputs []string) {
	printFile := func(label, text string) {
		s.Print(terminal.Line{
			{Text: fmt.Sprintf("  %-10s", label), Colour: terminal.Dim},
			{Text: text, Whole: true},
		})
	}

	tables := meta.Test.Tables
	if len(tables) > 0 {
		text := files.Short(filepath.Join(filepath.Dir(string(out)), tables[0].File))
		if n := len(tables) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		printFile("table", text)
	}

	printFile("results", files.Short(out.Results()))
	if meta.Test.ErrorFile != nil {
		printFile("errors", files.Short(out.Errors()))
	}

	printFile("metadata", files.Short(out.Meta()))

	markdown, html := files.Exists(out.ReportMarkdown()), files.Exists(out.ReportHTML())
	switch {
	case markdown && html:
		printFile("report", files.Short(out.ReportHTML())+" and .md")
	case html:
		printFile("report", files.Short(out.ReportHTML()))
	case markdown:
		printFile("report", files.Short(out.ReportMarkdown()))
	}

	if len(inputs) > 0 && inputs[0] != "-" {
		words := []string{"verify"}
		for _, input := range inputs {
			if input[0] == '-' {
				input = "./" + input // not a flag
			}
			words = append(words, input)
		}

		proved := out.Results()
		if len(tables) > 0 {
			proved = filepath.Join(filepath.Dir(string(out)), tables[0].File)
		}

		command := program.Name() + " " + report.ShellWords(append(words, files.Short(proved))...)
		s.Printf("prove it:   %s", terminal.Command(command))
	}
}

// Err returns the error of a complete run that has failed requests, or has reached a limit, or nil.
// retry names the command that runs the failed requests again. It is empty if there is none.
func Err(meta *metadata.Run, reached *proto.ReachedLimit, retry string) error {
	hint := ""
	if meta.Results.FailureCount > 0 {
		hint = report.ShellWords("zstd", "-dc", files.Short(*meta.Test.ErrorFile)) + " shows each"
		if retry != "" {
			hint = retry + " runs them again; " + hint
		}
	}

	switch {
	case reached != nil:
		return exit.LimitReached(reached.Key(), fmt.Errorf("the run is complete, and %s", reached), hint)
	case hint == "":
		return nil
	}

	return exit.RequestsFailed(
		fmt.Errorf("%s of %s requests failed", terminal.FormatCount(meta.Results.FailureCount),
			terminal.FormatCount(meta.Test.NumRequests)),
		hint)
}
