package report

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// shownCommands are as many causes as get a command of their own.
const shownCommands = 5

// listCauses returns the causes of failures, the most frequent first: of requests that were sent, and of others.
func listCauses(r metadata.Results) (failed, notSent []string) {
	for _, cause := range sortedByCount(r.Failures) {
		if r.NotSentCount > 0 && proto.IsNotSent(cause) {
			notSent = append(notSent, cause)
		} else {
			failed = append(failed, cause)
		}
	}

	return failed, notSent
}

// buildFailures lists the failed requests by cause, with the server's words and the command
// that shows all of them. Requests that were never sent are left out.
func buildFailures(b *builder) Section {
	r := b.run.Results
	causes, _ := listCauses(r)
	s := buildCauses(b, causes, int64(r.CountSent()))
	s.ID, s.Title = "failures", "Failures"
	for _, cause := range causes[:min(len(causes), shownCommands)] {
		if file := b.run.Test.ErrorFile; file != nil && *file != "" {
			s.Commands = append(s.Commands, Command{
				Why:  fmt.Sprintf("Show %s with %s", formatFailedCount(r.Failures[cause]), DescribeCause(cause)),
				Line: showFailures(*file, cause),
			})
		}
	}

	return s
}

// buildNotSent lists the requests that were never sent by why.
func buildNotSent(b *builder) Section {
	r := b.run.Results
	_, causes := listCauses(r)
	s := buildCauses(b, causes, int64(r.SuccessCount+r.FailureCount))
	s.ID, s.Title = "not_sent", "Not sent"
	s.Columns[0].Name = "Why"
	for _, cause := range causes {
		if file := b.run.Test.ErrorFile; file != nil && *file != "" {
			s.Commands = append(s.Commands, Command{
				Why:  fmt.Sprintf("Show the %s with %s", figures.Plural(r.Failures[cause], "request"), cause),
				Line: showFailures(*file, cause),
			})
		}
	}

	if len(s.Rows) > 0 {
		s.AddNote("No model server had these requests: no share of answers, speed or estimate counts them.")
	}

	return s
}

// buildCauses is a table of causes, each with its share of a number of requests.
func buildCauses(b *builder, causes []string, all int64) Section {
	s := Section{Columns: []Column{
		{Name: "Cause"},
		{Name: "Requests", Number: true},
		{Name: "Share of all", Number: true},
		{Name: "Message"},
		{Name: "Example"},
	}}
	for _, cause := range causes {
		n, detail := b.run.Results.Failures[cause], findFailure(b.run, cause)
		s.AddRow(DescribeCause(cause), CountCell(n), shareCell(n, all), KnownCell(detail.Message),
			KnownCell(detail.CustomID))
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
