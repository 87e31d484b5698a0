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
		return nil, fmt.Errorf("read the JSON Schema: %w", err)
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
		return nil, fmt.Errorf("compile the JSON Schema: %w", err)
	}

	return &Schema{compiled}, nil
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
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("not JSON: there is no text")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("not JSON: it ends in the middle")
	case err != nil:
		return shortError("not JSON: " + err.Error())
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
