package report

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// shownCommands are as many causes as get a command of their own.
const shownCommands = 5

// buildFailures lists the failed requests by cause, with the server's words and the command
// that shows all of them.
func buildFailures(b *builder) Section {
	r := b.run.Results
	s := Section{ID: "failures", Title: "Failures", Columns: []Column{
		{Name: "Cause"},
		{Name: "Requests", Number: true},
		{Name: "Share of all", Number: true},
		{Name: "Message"},
		{Name: "Example"},
	}}
	for i, cause := range sortedByCount(r.Failures) {
		n, detail := r.Failures[cause], findFailure(b.run, cause)
		s.AddRow(DescribeCause(cause), CountCell(n), shareCell(n, int64(countRequests(b.run))),
			KnownCell(detail.Message), KnownCell(detail.CustomID))

		if file := b.run.Test.ErrorFile; file != nil && *file != "" && i < shownCommands {
			s.Commands = append(s.Commands, Command{
				Why:  fmt.Sprintf("Show %s with %s", formatFailedCount(n), DescribeCause(cause)),
				Line: showFailures(*file, cause),
			})
		}
	}

	return s
}

// formatFailedCount counts failed requests in a sentence.
func formatFailedCount(n int64) string {
	if n == 1 {
		return "the request that failed"
	}
	return "the " + figures.Count(n) + " requests that failed"
}

// findFailure returns what is known of a cause of failures.
func findFailure(run *metadata.Run, cause string) metadata.FailureDetail {
	for _, d := range run.Results.FailureDetails {
		if d.Cause == cause {
			return d
		}
	}

	return metadata.FailureDetail{
		Cause:    cause,
		Count:    run.Results.Failures[cause],
		CustomID: run.Results.FailureExamples[cause],
	}
}

// showFailures is the command line that prints the lines of the requests that failed of a cause.
func showFailures(file, cause string) string {
	return "zstd -dc " + ShellWords(file) + " | jq -c " + ShellWords("select("+matchCause(cause)+")")
}

// matchCause is the filter of jq for the lines of a cause, as [proto.Line] names it.
func matchCause(cause string) string {
	if status, ok := strings.CutPrefix(cause, "http_"); ok {
		if n, err := strconv.Atoi(status); err == nil {
			return fmt.Sprintf(".error == null and .response.status_code == %d", n)
		}
	}

	if cause == "unknown" {
		return ".error.code == null and (.error != null or .response.status_code == null)"
	}

	return "(.error.code | tostring) == " + quoteJSON(cause)
}

// quoteJSON is a text as a string of JSON, whose <, > and & stay as they are.
func quoteJSON(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic(err) // a string is always JSON
	}

	return strings.TrimSuffix(b.String(), "\n")
}
