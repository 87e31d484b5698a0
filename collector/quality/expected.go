package quality

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// ExpectedError reports an expected answer that no answer can be compared with.
type ExpectedError struct {
	// Path is the path of the expected answers, and Line the number of the line, from 1: that of the request in the
	// sample.
	Path string
	Line int
	// Problem says what is wrong with it, and what to do.
	Problem string
}

// Error implements error.
func (e *ExpectedError) Error() string {
	return fmt.Sprintf("the expected answer of request %d of the sample: %s (%s)", e.Line, e.Problem, e.Path)
}

// CheckExpected reads a file of expected answers, as [Config] has it, before there are answers. The error is an
// [ExpectedError] for the first line that is no expected answer.
func CheckExpected(path string, match Match) error {
	f, err := openExpected(path, match, false)
	if err == nil {
		f.close()
	}
	return err
}

// form is a digest of a form of an answer.
type form [16]byte

// formOf returns the digest of a text in a way of reading it.
func formOf(mode mode, text []byte) (f form) {
	sum := sha256.Sum256(append([]byte{byte(mode)}, text...))
	copy(f[:], sum[:])
	return f
}

// expectation is the expected answer to a request, without its text.
type expectation struct {
	// isJudged reports that there is one.
	isJudged bool
	// forms are those of the text, and number is its number: one of them is set.
	forms  []form
	number float64
}

// expectedFile is a file of expected answers.
type expectedFile struct {
	*lineFile

	match Match
	// isJSON reports that the answers are JSON.
	isJSON bool
	list   []expectation
}

// openExpected opens a file of expected answers.
func openExpected(path string, match Match, isJSON bool) (*expectedFile, error) {
	f := &expectedFile{match: match, isJSON: isJSON}

	var err error
	f.lineFile, err = openLineFile(path, func(line []byte) error {
		e, problem := f.parse(line)
		f.list = append(f.list, e)
		if problem != "" {
			return &ExpectedError{path, len(f.list), problem}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the expected answers: %w", err)
	}

	return f, nil
}

// text returns the expected answer to the request of an index; nil if there is none.
func (f *expectedFile) text(index int64) (*string, error) {
	if !f.list[index].isJudged {
		return nil, nil
	}

	line, err := f.line(index)
	if err != nil {
		return nil, fmt.Errorf("open the expected answers: %w", err)
	}

	text, ok := parseText(line)
	if !ok || text == nil {
		return nil, fmt.Errorf("the expected answers %s have changed while they were read", f.path)
	}
	s := string(text)

	return &s, nil
}

// isRight reports whether an answer is the expected one.
func (f *expectedFile) isRight(index int64, text []byte) bool {
	e := f.list[index]
	if f.match == Number {
		n, ok := findLastNumber(string(text))
		return ok && sameNumber(n, e.number)
	}

	return slices.ContainsFunc(formsOf(text, f.isJSON), func(one form) bool { return slices.Contains(e.forms, one) })
}

// parse parses a line of expected answers. problem says what is wrong with it; empty: nothing.
func (f *expectedFile) parse(line []byte) (e expectation, problem string) {
	text, ok := parseText(line)
	switch {
	case !ok:
		return e, fmt.Sprintf("%s is neither a JSON string nor null", excerpt(line))
	case text == nil:
		return e, ""
	}

	e.isJudged = true
	if f.match == Number {
		if e.number, ok = parseExpectedNumber(string(text)); !ok {
			return e, fmt.Sprintf("%s is no number; expect a column of numbers, or compare with --match exact",
				excerpt(line))
		}
		return e, ""
	}

	trimmed := bytes.TrimSpace(text)
	e.forms = append(e.forms, formOf(asText, trimmed))
	if f.isJSON {
		if value, err := jsonscan.Canonical(trimmed); err == nil {
			e.forms = append(e.forms, formOf(asJSON, value))
		}
	}

	return e, ""
}

// parseText parses a JSON string or null, which is nil.
func parseText(line []byte) (text []byte, ok bool) {
	var scan jsonscan.Scanner
	scan.Reset(line)

	raw := scan.Value()
	if scan.End() != nil {
		return nil, false
	}

	if string(raw) == "null" {
		return nil, true
	}

	text = jsonscan.Text(raw)

	return text, text != nil
}

// formsOf returns the forms of an answer that can be the expected one: its text and, if it is JSON, its value, the
// text of a string, and both of the only member of an object.
func formsOf(text []byte, isJSON bool) []form {
	trimmed := bytes.TrimSpace(text)
	forms := []form{formOf(asText, trimmed)}
	if !isJSON {
		return forms
	}

	value, err := jsonscan.Canonical(trimmed)
	if err != nil {
		return forms
	}

	forms = appendValue(forms, value)
	if member := onlyMember(value); member != nil {
		forms = appendValue(forms, member)
	}

	return forms
}

// appendValue appends the forms of a canonical JSON value.
func appendValue(forms []form, value []byte) []form {
	forms = append(forms, formOf(asJSON, value))
	if value[0] == '"' {
		forms = append(forms, formOf(asText, bytes.TrimSpace(jsonscan.Text(value))))
	} else {
		forms = append(forms, formOf(asText, value))
	}

	return forms
}

// onlyMember returns the value of the only member of an object; nil if there is none.
func onlyMember(value []byte) (member []byte) {
	if value[0] != '{' {
		return nil
	}

	var scan jsonscan.Scanner
	scan.Reset(value)

	members := 0
	for scan.Enter(); scan.Next(); members++ {
		member = scan.Value()
	}

	if members != 1 {
		return nil
	}

	return member
}

// excerpt returns the beginning of a line, for an error.
func excerpt(line []byte) string {
	const most = 80
	if len(line) <= most {
		return string(bytes.ToValidUTF8(line, []byte("?")))
	}

	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(line[end]) {
		end--
	}

	return string(bytes.ToValidUTF8(line[:end], []byte("?"))) + "..."
}
