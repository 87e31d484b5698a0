package verify

import (
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// Result is the result of a comparison, and the form of --json.
type Result struct {
	// Requests is the number of requests of the input.
	Requests int `json:"requests"`
	// Answered and Failed are the numbers of lines with an answer and with an error.
	Answered int `json:"answered"`
	Failed   int `json:"failed"`
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
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
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
		return errors.New("the output is not complete")
	case r.Answers != nil && !r.Answers.isGood():
		return errors.New("the output has answers to other requests")
	}

	return nil
}

// Print prints the result for people.
func (r Result) Print(w io.Writer) {
	count := terminal.FormatCount[int]
	fmt.Fprintf(w,
		"%s requests: %s answered, %s failed, %s without a line, %s lines too many, %s lines of no request\n",
		count(r.Requests), count(r.Answered), count(r.Failed), count(r.Missing), count(r.Repeated), count(r.Unknown))

	if r.Answers != nil {
		r.Answers.print(w)
	}

	for _, example := range r.Examples {
		terminal.Fprintf(w, "  %s\n", example)
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
	fmt.Fprintf(w, "%d lines answer the text of the input", a.Matching)
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
			fmt.Fprintf(w, ", %d %s", part.count, part.text)
		}
	}

	fmt.Fprintln(w)
}
