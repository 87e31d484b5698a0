package fileformat

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// object is a JSON object, as far as its format shows in it.
type object struct {
	// names are the members that were read.
	names []string
	// array is the first member whose value is an array of objects; empty if there is none.
	array string
	// ofRequests reports that the first object in the array is a request.
	ofRequests bool
	// run is the run of an output line or of metadata.
	run string
	// failed reports that the member error is not null.
	failed bool
}

// has reports whether the object has all of the members.
func (o object) has(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(o.names, name) })
}

// isRequest reports whether the object has a member that only requests have.
func (o object) isRequest() bool { return slices.ContainsFunc(o.names, isRequestMember) }

// isRequestMember reports whether only requests have a member of that name.
func isRequestMember(name string) bool {
	switch name {
	case "body", "url", "messages", "prompt", "input":
		return true
	}
	return false
}

// scanObject reads the members of an object, as far as it is there.
func scanObject(text []byte) (o object, err error) {
	var s jsonscan.Scanner
	s.Reset(text)

	for s.Enter(); s.Next(); {
		name := string(s.Name())
		o.names = append(o.names, name)

		switch {
		case name == "error":
			o.failed = s.Kind() != 'n'
		case name == "id" || name == "test_id":
			o.run = runOf(name, jsonscan.Word(s.Value()))
		case o.array == "" && s.Kind() == '[':
			s.EnterArray()
			for first := true; s.NextElement(); first = false {
				if first && s.Kind() == '{' {
					o.array = name
					for s.Enter(); s.Next(); {
						o.ofRequests = o.ofRequests || isRequestMember(string(s.Name()))
					}
				}
			}
		}
	}

	return o, s.End()
}

// runOf returns the run that a member names: metadata as it is, an output line in its id.
func runOf(member string, value []byte) string {
	if member == "test_id" {
		return string(value)
	}

	id, ok := strings.CutPrefix(string(value), "batch_req_")
	run := id[:max(0, strings.LastIndexByte(id, '_'))]
	if !ok || !strings.Contains(run, "-") { // OpenAI's ids are one word
		return ""
	}

	return run
}

// detectObject recognises a text that begins with a brace.
func detectObject(text []byte, whole bool) Detection {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	if o, err := scanObject(line); err == nil || len(line) == len(text) && isCut(err) {
		isLast := len(bytes.TrimSpace(rest)) == 0
		if isLast && (whole || err != nil) && isTransposed(line) {
			return Detection{Format: JSONDocument, Transposed: true}
		}

		return detectLine(o, whole && isLast)
	}

	if len(line) > 1 && line[1] == '\'' {
		return Detection{Format: PythonLines}
	}

	if !spansLines(text, whole) {
		return Detection{} // the first line is wrong
	}

	o, _ := scanObject(text)
	d := Detection{Format: JSONDocument, Certain: true, Run: o.run}
	switch {
	case o.has("schema_version", "test_id"):
		d.Format = Metadata
	case isTransposed(text):
		d.Transposed = true
	case !o.isRequest():
		d.Member = o.array
	}

	return d
}

// detectLine recognises a format by its first line, which is a JSON object. alone reports that
// there is no other.
func detectLine(o object, alone bool) Detection {
	switch {
	case o.isRequest():
		return Detection{}
	case o.has("custom_id", "response") && o.failed:
		return Detection{Format: Failures, Run: o.run}
	case o.has("custom_id", "response"), o.has("custom_id", "result"):
		return Detection{Format: Results, Run: o.run}
	case o.has("custom_id", "params"):
		return Detection{Format: AnthropicBatch}
	case alone && o.has("schema_version", "test_id"):
		return Detection{Format: Metadata, Run: o.run}
	case alone && o.ofRequests:
		return Detection{Format: JSONDocument, Member: o.array}
	}

	return Detection{}
}

// isCut reports whether a text is JSON, and incomplete.
func isCut(err error) bool {
	syntax, ok := errors.AsType[*jsonscan.SyntaxError](err)
	return ok && syntax.Fault == jsonscan.Cut
}

// spansLines reports whether a text is one JSON value, or several, of which the first has line
// breaks between its tokens. If text is the beginning of a longer one, it is enough that no fault
// shows.
func spansLines(text []byte, whole bool) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true))
	first := -1
	for {
		err := dec.SkipValue()
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return first > 0 && bytes.IndexByte(text[:first], '\n') >= 0
		case errors.Is(err, io.ErrUnexpectedEOF):
			return !whole && (first < 0 || bytes.IndexByte(text[:first], '\n') >= 0)
		case err != nil:
			return false
		}

		if first < 0 {
			first = int(dec.InputOffset())
		}
	}
}

// detectArray recognises a text that begins with a bracket: one array, unless further lines follow
// it.
func detectArray(text []byte, whole bool) Detection {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadToken(); err != nil {
		return Detection{}
	}

	d := Detection{Format: JSONArray, Element: elementKind(dec)}
	for elements := 0; ; elements++ {
		if dec.PeekKind() == ']' {
			break
		}

		err := dec.SkipValue()
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) { // the end is not there
			d.Certain = !whole && elements > 1 && bytes.IndexByte(text[:dec.InputOffset()], '\n') > 0
			return d
		}

		if err != nil { // plain text may begin with a bracket
			if elements == 0 && !hasObjectLine(text) {
				return Detection{Format: Text}
			}
			return Detection{}
		}
	}

	dec.ReadToken()

	if len(bytes.TrimSpace(text[dec.InputOffset():])) > 0 {
		return Detection{} // the first of several lines
	}

	d.Certain = true

	return d
}

// elementKind returns the kind of the value that comes next, 0 at the end of the array.
func elementKind(dec *jsontext.Decoder) byte {
	kind := byte(dec.PeekKind())
	if kind == ']' {
		return 0
	}
	return kind
}
