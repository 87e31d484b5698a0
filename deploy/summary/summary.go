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
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// Files names the files of a complete run.
type Files struct {
	// Local names the files on this machine. Required.
	Local output.Prefix
	// Place names the files where the user has asked for them: in an object store, or like Local.
	// Required.
	Place output.Prefix
	// Inputs are the names of the input files as the user gave them. Defaults to none: they are not known.
	Inputs []string
}

// isCopied reports whether the files were copied to another place.
func (f Files) isCopied() bool { return f.Place != f.Local }

// Print prints the counts, rates, causes of failure and files of a complete run.
func Print(s *terminal.Screen, meta *metadata.Run, f Files) {
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

	PrintCauses(s, meta, f.Local.Errors())
	PrintFiles(s, meta, f)
}

// PrintCopied is [Print] for a copy of a run that had ended: without rates, which are those of the
// run and not of the copy.
func PrintCopied(s *terminal.Screen, meta *metadata.Run, f Files) {
	s.Print(terminal.Line{
		{Text: fmt.Sprintf("copied the %s run: %s answered, ", meta.Status,
			terminal.FormatCount(meta.Results.SuccessCount))},
		spanFailed(meta.Results),
	})
	PrintCauses(s, meta, f.Local.Errors())
	PrintFiles(s, meta, f)
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
func PrintFiles(s *terminal.Screen, meta *metadata.Run, f Files) {
	printFile := func(label, text string) {
		s.Print(terminal.Line{
			{Text: fmt.Sprintf("  %-10s", label), Colour: terminal.Dim},
			{Text: text, Whole: true},
		})
	}

	proved := f.Place.Results()
	if tables := meta.Test.Tables; len(tables) > 0 {
		proved = f.Place.Beside(tables[0].File)
		text := files.Short(proved)
		if n := len(tables) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		printFile("table", text)
	}

	printFile("results", files.Short(f.Place.Results()))
	if meta.Test.ErrorFile != nil {
		printFile("errors", files.Short(f.Place.Errors()))
	}

	printFile("metadata", files.Short(f.Place.Meta()))

	markdown, html := files.Exists(f.Local.ReportMarkdown()), files.Exists(f.Local.ReportHTML())
	switch {
	case markdown && html:
		printFile("report", files.Short(f.Place.ReportHTML())+" and .md")
	case html:
		printFile("report", files.Short(f.Place.ReportHTML()))
	case markdown:
		printFile("report", files.Short(f.Place.ReportMarkdown()))
	}

	if f.isCopied() {
		printFile("copies", files.Short(string(f.Local))+".*")
	}

	if len(f.Inputs) > 0 && f.Inputs[0] != "-" {
		words := []string{"verify"}
		for _, input := range f.Inputs {
			if input[0] == '-' {
				input = "./" + input // not a flag
			}
			words = append(words, input)
		}

		command := program.Name() + " " + report.ShellWords(append(words, files.Short(proved))...)
		s.Printf("prove it:   %s", terminal.Command(command))
	}
}

// Err returns the error of a complete run that has failed requests, or has reached a limit, or nil.
// errors is the path of the failed requests on this machine. retry names the command that runs them
// again. It is empty if there is none.
func Err(meta *metadata.Run, errors string, reached *proto.ReachedLimit, retry string) error {
	hint := ""
	if meta.Results.FailureCount > 0 {
		hint = report.ShellWords("zstd", "-dc", files.Short(errors)) + " shows each"
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
