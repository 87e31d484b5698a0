package verify

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// Result is the result of a comparison, and the form of --json.
type Result struct {
	// Requests is the number of requests of the input.
	Requests int `json:"requests"`
	// Answered and Failed are the numbers of lines with an answer and with an error.
	Answered int `json:"answered"`
	Failed   int `json:"failed"`
	// NotSent is the number of lines with an error whose requests were never sent; Failed has them, too.
	NotSent int `json:"not_sent,omitempty"`
	// Missing is the number of requests without a line, Repeated that of lines after the first one
	// of a request, and Unknown that of lines without a request.
	Missing  int `json:"missing"`
	Repeated int `json:"repeated"`
	Unknown  int `json:"unknown"`
	// Broken is the number of lines that are not output lines, and Swapped that of lines whose
	// response names another request.
	Broken  int `json:"broken"`
	Swapped int `json:"swapped"`
	// Complete is set if each request has exactly one line and there is no other line.
	Complete bool `json:"complete"`
	// Answers is null unless the answers were compared.
	Answers *AnswerResult `json:"answers"`
	// Examples are the first lines and requests that are wrong.
	Examples []string `json:"examples"`

	omitted int    // lines and requests that are wrong and no example
	journal string // path of the journal that was read, empty if the final files were
	run     string // id of the run of an output that is not complete, empty if it is not known
	input   string // paths of that run's input, likewise
}

// AnswerResult is the result of the comparison of answers.
type AnswerResult struct {
	// Matching is the number of lines whose request_hash matches the request with their custom_id.
	Matching int `json:"matching"`
	// Foreign is the number of lines with the hash of another request.
	Foreign int `json:"foreign"`
	// Unhashed is the number of lines without a hash, as --plain writes them.
	Unhashed int `json:"unhashed"`
	// OtherModel is the number of answers that name a model which other requests asked for.
	OtherModel int `json:"other_model"`
	// Renamed is the number of answers that name a model which no request asked for: an alias, a
	// path.
	Renamed int `json:"renamed"`
}

// maxExamples is the most examples of a result.
const maxExamples = 10

func (r *Result) addExample(format string, args ...any) {
	if len(r.Examples) == maxExamples {
		r.omitted++
		return
	}

	r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
}

// isGood reports whether all answers are to the requests of the input. Lines without a hash among
// others that have one were not written by the run.
func (a AnswerResult) isGood() bool {
	return a.Foreign == 0 && a.OtherModel == 0 && (a.Unhashed == 0 || a.Matching == 0)
}

// Err returns the first error of the output, or nil.
func (r Result) Err() error {
	switch {
	case r.Swapped > 0:
		return fmt.Errorf("%d lines have the response of another request", r.Swapped)
	case !r.Complete:
		return r.incompleteError()
	case r.Answers != nil && !r.Answers.isGood():
		return errors.New("the output has answers to other requests")
	}

	return nil
}

// incompleteError returns the error of an output that does not have exactly one line for each
// request.
func (r Result) incompleteError() error {
	lines := r.Answered + r.Failed
	onlyMissing := r.Repeated+r.Unknown+r.Broken == 0
	problems := r.describeProblems()
	switch {
	case r.Requests > 0 && lines > 0 && r.Unknown == lines && r.Broken == 0:
		hint := "give the input of that run"
		if r.input != "" {
			hint += ", " + r.input
		}
		return exit.WithHint(errors.New("the output is of another input: none of its lines has a custom_id of this one"),
			hint)
	case onlyMissing && r.journal != "":
		run := "the run"
		if r.run != "" {
			run += " " + r.run
		}
		return exit.WithHint(fmt.Errorf("%s is not finished: %s", run, problems),
			"let it end, or run the same command again to continue it")
	case onlyMissing:
		return exit.WithHint(fmt.Errorf("the output is not complete: %s", problems),
			"it lost lines, or the input got more requests after the run; run the input with another output, -o")
	}

	return exit.WithHint(fmt.Errorf("the output does not match the input: %s", problems),
		"give all input files of that run as they were then, and the output as the run wrote it")
}

// describeProblems counts what an output has too little or too much.
func (r Result) describeProblems() string {
	var parts []string
	for _, part := range []struct {
		count     int
		one, many string
	}{
		{r.Missing, "request has no line", "requests have no line"},
		{r.Repeated, "line is one too many for its request", "lines are too many for their requests"},
		{r.Unknown, "line is of no request", "lines are of no request"},
		{r.Broken, "line is not an output line", "lines are not output lines"},
	} {
		switch {
		case part.count == 1:
			parts = append(parts, "1 "+part.one)
		case part.count > 1:
			parts = append(parts, terminal.FormatCount(part.count)+" "+part.many)
		}
	}

	return strings.Join(parts, ", ")
}

// Print prints the result for people.
func (r Result) Print(w io.Writer) {
	count := terminal.FormatCount[int]
	notSent := ""
	if r.NotSent > 0 {
		notSent = ", " + count(r.NotSent) + " not sent"
	}

	fmt.Fprintf(w,
		"%s requests: %s answered, %s failed%s, %s without a line, %s lines too many, %s lines of no request\n",
		count(r.Requests), count(r.Answered), count(r.Failed-r.NotSent), notSent, count(r.Missing), count(r.Repeated),
		count(r.Unknown))

	if r.journal != "" {
		terminal.Fprintf(w, "these lines are in the journal of the run, %s: the run is not finished\n", r.journal)
	}

	if r.Answers != nil {
		r.Answers.print(w)
	}

	for _, example := range r.Examples {
		terminal.Fprintf(w, "  %s\n", example)
	}

	if r.omitted > 0 {
		fmt.Fprintf(w, "  and %s more\n", count(r.omitted))
	}

	switch {
	case !r.Complete:
	case r.Answers == nil:
		fmt.Fprintln(w,
			"proved: each request has exactly one line with its custom_id (--answers also compares the answered requests)")
	case r.Answers.Unhashed == r.Answered+r.Failed: // as --plain writes them
		fmt.Fprintln(w,
			"proved: each request has exactly one line with its custom_id; the lines do not say which text they answer")
	case r.Answers.isGood():
		fmt.Fprintln(w, "proved: each request has exactly one line, which answers the text of the input")
	}
}

func (a AnswerResult) print(w io.Writer) {
	fmt.Fprintf(w, "%s lines answer the text of the input", terminal.FormatCount(a.Matching))
	for _, part := range []struct {
		count int
		text  string
	}{
		{a.Foreign, "answer another text"},
		{a.Unhashed, "do not say which text they answer"},
		{a.OtherModel, "name a model that other requests asked for"},
		{a.Renamed, "name a model that no request asked for"},
	} {
		if part.count > 0 {
			fmt.Fprintf(w, ", %s %s", terminal.FormatCount(part.count), part.text)
		}
	}

	fmt.Fprintln(w)
}
