// Package summary prints the results of a complete run: the number of answered requests, the rates,
// the causes of failed requests, and the names of the files.
package summary

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/objectstore"
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
	// Inputs are the names of the input files as the user gave them. Defaults to none: they are
	// not known.
	Inputs []string
	// Table is the name, without its folder, of the first file of the table that the command asks
	// for. Defaults to the first table of the run.
	Table string
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
		{Text: fmt.Sprintf("%s, in %s", formatNotSent(res),
			(time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))},
	})

	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		s.Printf("      %s requests/s, %s tokens/s in, %s tokens/s out",
			formatRate(*res.ThroughputRequestsPerSec), terminal.FormatCount(int(*res.InputTokensPerSec+0.5)),
			terminal.FormatCount(int(*res.OutputTokensPerSec+0.5)))
	}

	printDepartures(s, res.Departures)
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
		{Text: formatNotSent(meta.Results)},
	})
	PrintCauses(s, meta, f.Local.Errors())
	PrintFiles(s, meta, f)
}

// formatNotSent continues the number of failed requests by that of those that were never sent, if there are any.
func formatNotSent(res metadata.Results) string {
	if res.NotSentCount == 0 {
		return ""
	}
	return ", " + terminal.FormatCount(res.NotSentCount) + " not sent"
}

// spanFailed returns the number of requests that were sent and failed.
func spanFailed(res metadata.Results) terminal.Span {
	failed := terminal.Span{Text: terminal.FormatCount(res.CountFailed()) + " failed"}
	if res.CountFailed() > 0 {
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
		named := max(0, slices.IndexFunc(tables, func(t metadata.TableFile) bool { return t.File == f.Table }))
		proved = f.Place.Beside(tables[named].File)
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
		s.Printf("prove it:   %s", FormatProof(f.Inputs, files.Short(proved)))
		printExport(s, meta, f)
	}
}

// FormatProof returns the command that verifies an output of some inputs. proved names the output:
// the results, the table, or the results and then a table of any name.
func FormatProof(inputs []string, proved ...string) terminal.Command {
	words := slices.Concat([]string{"verify"}, protectNames(inputs), proved)
	return terminal.Command(program.Name() + " " + report.ShellWords(words...))
}

// printExport prints the command that writes the answers to the rows of a table as a table, if the
// run has written none.
func printExport(s *terminal.Screen, meta *metadata.Run, f Files) {
	ofRows := meta.Manifest != nil && meta.Manifest.Settings.Rows != nil
	if !ofRows || meta.Config.Plain || len(meta.Test.Tables) > 0 {
		return
	}

	results := files.Short(f.Place.Results())
	table := strings.TrimSuffix(results, output.ResultsSuffix) + ".csv"
	if slices.Contains(f.Inputs, table) {
		table = strings.TrimSuffix(table, ".csv") + ".answers.csv"
	}

	words := slices.Concat([]string{"export", results}, protectNames(f.Inputs), []string{"-o", table})
	s.Printf("as a table: %s", terminal.Command(program.Name()+" "+report.ShellWords(words...)))
}

// protectNames returns the names of files in a form in which none is read as a flag.
func protectNames(names []string) []string {
	protected := slices.Clone(names)
	for i, name := range protected {
		protected[i] = objectstore.Redact(name) // a signed URL is a secret
		if name[0] == '-' && name != "-" {
			protected[i] = "./" + name
		}
	}

	return protected
}

// Err returns the error of a complete run that has requests without an answer, or has reached a limit, or nil.
// errorsFile is the path of the failed requests on this machine. retry names the command that runs them
// again. It is empty if there is none.
func Err(meta *metadata.Run, errorsFile string, reached *proto.ReachedLimit, retry string) error {
	hint := ""
	if meta.Results.FailureCount > 0 {
		hint = report.ShellWords("zstd", "-dc", files.Short(errorsFile)) + " shows each"
		if fix := hintForFailures(meta, retry); fix != "" {
			hint = fix + "; " + hint
		}
	}

	switch {
	case reached != nil:
		return exit.LimitReached(reached.Key(), fmt.Errorf("the run is complete, and %s", reached), hint)
	case hint == "":
		return nil
	}

	return exit.RequestsFailed(
		errors.New(describeUnanswered(meta.Results, meta.Test.NumRequests)), hint)
}

// hintForFailures returns how the failed requests of a run are run again; empty if they cannot be.
// Rows and lines that were never sent fail again in the same run, whose input is fixed.
func hintForFailures(meta *metadata.Run, retry string) string {
	unsent := int(meta.Results.Failures[proto.CodeInvalidRequest])
	fix := "correct the input and run it with another output for the " + terminal.FormatCount(unsent) +
		" that could not be sent"
	switch {
	case unsent == 0 && retry == "":
		return ""
	case unsent == 0:
		return retry + " runs them again"
	case unsent >= meta.Results.FailureCount || retry == "":
		return fix
	}

	return retry + " runs the others again; " + fix
}
