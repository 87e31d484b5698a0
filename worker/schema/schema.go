// Package schema checks the text of a model's answer against a JSON Schema.
package schema

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Schema is a compiled JSON Schema. It is safe for concurrent use.
type Schema struct{ compiled *jsonschema.Schema }

// Compile compiles a JSON Schema, of draft 2020-12 if it does not name another in $schema. A
// $ref may refer to the schema itself and to the drafts' own schemas, and to nothing else:
// nothing is fetched, no file is read. A pattern is a regular expression of Go, which has no
// look-ahead. format is checked if the draft says so (up to draft 7).
func Compile(text []byte) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read the JSON Schema: it is not JSON: %s", describeSyntax(text, err))
	}

	if err := checkNumbers(doc, ""); err != nil {
		return nil, fmt.Errorf("read the JSON Schema: %w", err)
	}

	const url = "schema:///"
	c := jsonschema.NewCompiler()
	c.UseLoader(refusingLoader{})
	if err := c.AddResource(url, doc); err != nil {
		return nil, fmt.Errorf("read the JSON Schema: %w", err)
	}

	compiled, err := c.Compile(url)
	if invalid, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if cause, ok := errors.AsType[*jsonschema.ValidationError](invalid.Err); ok {
			err = shortError(describeMismatch(cause))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("compile the JSON Schema: %w", describeReference(err, url))
	}

	return &Schema{compiled}, nil
}

// describeReference describes a reference that cannot be followed, in a schema with a URL. It
// returns all other errors as they are.
func describeReference(err error, url string) error {
	if load, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return fmt.Errorf("it refers to %s: a schema may only refer to itself and to the drafts of JSON Schema",
			strings.TrimPrefix(load.URL, url))
	}

	if absent, ok := errors.AsType[*jsonschema.JSONPointerNotFoundError](err); ok {
		return fmt.Errorf("it refers to %s, which is not in it", strings.TrimPrefix(absent.URL, url))
	}

	return err
}

// refusingLoader keeps the compiler from files and from the network.
type refusingLoader struct{}

var _ jsonschema.URLLoader = refusingLoader{}

func (refusingLoader) Load(string) (any, error) {
	return nil, errors.New("a schema may only refer to itself")
}

// Check returns nil if text is one JSON value that matches the schema, with nothing but white
// space around it. The text is taken as it is: JSON in a fence of ``` does not match, since
// every reader of the answers would have to remove the fence. The error is one line of at most
// 300 bytes for people, such as "/age: got string, want integer".
func (s *Schema) Check(text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return shortError("the answer is not JSON: " + describeSyntax(text, err))
	}

	if err := checkNumbers(value, ""); err != nil {
		return shortError(err.Error())
	}

	err = s.compiled.Validate(value)
	if invalid, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return shortError(describeMismatch(invalid))
	}

	return err
}

// describeSyntax describes where a text is not one JSON value, from the error of the decoder.
func describeSyntax(text []byte, err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "there is no text"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends in the middle"
	}

	var value json.RawMessage
	wrong, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(text, &value))
	if !ok {
		return err.Error()
	}

	const most = 24 // bytes of a quotation
	at := max(0, int(wrong.Offset)-1)
	near := strings.Join(strings.Fields(strings.ToValidUTF8(string(text[at:min(len(text), at+most)]), "")), " ")
	switch before := bytes.TrimSpace(text[:at]); {
	case len(before) == 0:
		return "it begins with " + near
	case json.Valid(before):
		return "more text comes after its end: " + near
	}

	return fmt.Sprintf("at byte %d, near %s", at+1, near)
}

// checkNumbers refuses numbers far out of the range of a float64: the schema library would
// compute with all their digits, or panic.
func checkNumbers(value any, where string) error {
	switch value := value.(type) {
	case json.Number:
		_, exponent, found := strings.Cut(strings.ToLower(value.String()), "e")
		if n, err := strconv.Atoi(exponent); found && (err != nil || n > 400 || n < -400) {
			return fmt.Errorf("%s: number %s is out of range", cmp.Or(where, "/"), value)
		}
	case []any:
		for i, element := range value {
			if err := checkNumbers(element, where+"/"+strconv.Itoa(i)); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, member := range value {
			if err := checkNumbers(member, where+"/"+name); err != nil {
				return err
			}
		}
	}

	return nil
}

// describeMismatch returns where a value does not match and why, for each place.
func describeMismatch(e *jsonschema.ValidationError) string {
	var causes []string
	for _, cause := range e.Causes {
		causes = append(causes, describeMismatch(cause))
	}

	slices.Sort(causes) // the library visits objects in random order

	causes = slices.Compact(causes)
	switch e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf:
		if len(causes) > 1 {
			return "(" + strings.Join(causes, " or ") + ")"
		}
	case *kind.PropertyNames: // its causes have no place
		causes = nil
	}

	if len(causes) > 0 {
		return strings.Join(causes, "; ")
	}

	leaf := *e
	leaf.Causes = nil
	out := leaf.BasicOutput()
	what := out.Error.String()
	switch k := e.ErrorKind.(type) { // the library writes null as <nil> and does not write objects
	case *kind.Enum:
		what = "must be one of " + quoteJSON(k.Want)
	case *kind.Const:
		what = "must be " + quoteJSON(k.Want)
	}

	return cmp.Or(out.InstanceLocation, "/") + ": " + what
}

// quoteJSON returns a part of a schema as it was written.
func quoteJSON(value any) string {
	text, _ := json.Marshal(value) // it was JSON
	return string(text)
}

// shortError returns an error of one line, from a text that may quote anything.
func shortError(text string) error {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)

	const most = 300
	if len(text) <= most {
		return errors.New(text)
	}

	cut := most - len("...")
	for !utf8.RuneStart(text[cut]) {
		cut--
	}

	return errors.New(text[:cut] + "...")
}
