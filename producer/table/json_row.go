package table

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// jsonParser makes rows of JSON objects, whose members are the columns.
type jsonParser struct {
	scanner jsonscan.Scanner
	// wanted are the columns whose values are read; nil for all.
	wanted []string
	// columns are the columns of the object before, and only reports of each whether its values are read.
	columns []Column
	only    []bool
	// values and unescaped belong to the object before.
	values    []Value
	unescaped []byte
}

// parse returns the columns and the values of an object, which are valid until the next call.
// The error is the message of a [RowError].
func (p *jsonParser) parse(object []byte) ([]Column, []Value, error) {
	p.values, p.unescaped = p.values[:0], p.unescaped[:0]
	columns, isSame := p.columns, true
	wrong := error(nil)

	p.scanner.Reset(object)
	for p.scanner.Enter(); p.scanner.Next(); {
		i := len(p.values)
		name := p.scanner.Name()
		if isSame && (i >= len(columns) || columns[i].Name != string(name)) {
			columns, isSame = append([]Column(nil), columns[:min(i, len(columns))]...), false
		}
		if !isSame {
			columns = append(columns, Column{Name: string(name)})
		}

		column := columns[i].Name
		raw := p.scanner.Value()
		if raw == nil {
			break
		}

		value, err := p.value(raw)
		if err != nil && wrong == nil {
			wrong = fmt.Errorf("column %q has %w", column, err)
		}

		p.values = append(p.values, value)
	}

	if err := p.scanner.End(); err != nil {
		return nil, nil, describeSyntaxError(object, err)
	}

	if wrong != nil {
		return nil, nil, wrong
	}

	if !isSame || len(p.values) < len(p.columns) {
		columns = columns[:len(p.values):len(p.values)]
		if name, ok := findRepeated(columns); ok {
			return nil, nil, fmt.Errorf("it has %q twice", name)
		}
		p.columns, p.only = columns, selectColumns(columns, p.wanted)
	}

	for i, ok := range p.only {
		if !ok {
			p.values[i] = Value{}
		}
	}

	return p.columns, p.values, nil
}

// value returns the value of a JSON text.
func (p *jsonParser) value(raw []byte) (Value, error) {
	switch raw[0] {
	case 'n':
		return Value{}, nil
	case 't':
		return Value{Kind: KindBool, Bits: 1}, nil
	case 'f':
		return Value{Kind: KindBool}, nil
	case '{', '[':
		return Value{Kind: KindJSON, Text: p.unescapeAll(raw)}, nil
	case '"':
		return p.text(raw)
	}

	return Value{Kind: KindNumber, Text: raw}, nil
}

// unescapeAll returns an object or array with its characters in place of their escapes.
func (p *jsonParser) unescapeAll(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}

	start := len(p.unescaped)
	p.unescaped = appendUnescaped(p.unescaped, raw)

	return p.unescaped[start:]
}

// errSurrogate is the error of a string that no text can hold.
var errSurrogate = errors.New("half of a surrogate pair, which no text can hold")

// text returns the value of a JSON string.
func (p *jsonParser) text(raw []byte) (Value, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return Value{Kind: KindText, Text: raw[1 : len(raw)-1]}, nil
	}

	start := len(p.unescaped)

	var err error
	if p.unescaped, err = jsontext.AppendUnquote(p.unescaped, raw); err != nil {
		return Value{}, errSurrogate // the scanner has read it: there is no other fault
	}

	return Value{Kind: KindText, Text: p.unescaped[start:]}, nil
}

// findRepeated returns the name of a column that is there twice.
func findRepeated(columns []Column) (string, bool) {
	seen := make(map[string]bool, len(columns))
	for _, c := range columns {
		if seen[c.Name] {
			return c.Name, true
		}
		seen[c.Name] = true
	}

	return "", false
}

// describeSyntaxError returns the error of a text that is not one JSON object, in words for its
// author.
func describeSyntaxError(text []byte, err error) error {
	syntax, ok := errors.AsType[*jsonscan.SyntaxError](err)
	if !ok {
		return errors.New("it is not JSON")
	}

	switch syntax.Fault {
	case jsonscan.Cut:
		return fmt.Errorf("it ends in the middle of its JSON, after %d bytes", syntax.Offset)
	case jsonscan.Trailing:
		return fmt.Errorf("it has text after its JSON object, at byte %d", syntax.Offset+1)
	case jsonscan.NotUTF8:
		return fmt.Errorf("it is not UTF-8, at byte %d", syntax.Offset+1)
	case jsonscan.NotObject:
		return errors.New("it is not a JSON object")
	}

	message := fmt.Sprintf("it is not JSON, at byte %d", syntax.Offset+1)
	if rest := bytes.TrimSpace(text[min(syntax.Offset, len(text)):]); len(rest) > 0 {
		message += fmt.Sprintf(", near %q", rest[:min(len(rest), 20)])
	}

	return errors.New(message)
}
