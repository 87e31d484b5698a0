package export

import (
	"bytes"
	"math"
	"strconv"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/openai"
)

// answerParser makes the cells of a row out of an output line.
type answerParser struct {
	columns answerColumns
	scan    jsonscan.Scanner
	// values are the values of the latest line.
	values []table.Value
}

// outputLine is an output line, as far as it was read.
type outputLine struct {
	proto.Line

	body, failure []byte
}

// parse returns the values of the columns for a line, valid until the next call.
func (p *answerParser) parse(line outputLine) ([]table.Value, error) {
	fields := len(p.columns.fields)
	if p.values == nil {
		p.values = make([]table.Value, len(p.columns.all))
	}
	clear(p.values)
	rest := p.values[1+fields:]

	if line.LatencyMS >= 0 && line.Attempts > 0 { // a refused request was not sent
		rest[4] = intValue(line.LatencyMS)
	}

	if !line.OK {
		rest[1] = textValue(describeFailure(line))
		if line.ErrorCode != proto.CodeSchemaMismatch {
			return p.values, nil
		}
	}

	// An answer that does not match the schema has its cell, and its fields are null.
	o, err := openai.ReadOutput(&p.scan, line.body)
	if err != nil {
		return nil, err
	}

	p.values[0] = answerValue(o)
	if o.Finish != "" {
		rest[0] = textValue([]byte(o.Finish))
	}

	if o.Usage.Prompt > 0 || o.Usage.Completion > 0 {
		rest[2], rest[3] = intValue(o.Usage.Prompt), intValue(o.Usage.Completion)
	}

	if fields > 0 && line.OK {
		p.readFields(o.Text)
	}

	return p.values, nil
}

// answerValue returns the value of an answer.
func answerValue(o openai.Output) table.Value {
	switch answer := o.Answer(); {
	case len(answer) == 0 && o.Data != nil:
		return table.Value{Kind: table.KindJSON, Text: o.Data}
	case answer != nil:
		return textValue(answer)
	}

	return table.Value{}
}

// describeFailure returns the reason why a request failed.
func describeFailure(line outputLine) []byte {
	text := line.ErrorCode

	message := line.failure
	if len(message) == 0 || string(message) == "null" {
		message = line.body
	}

	if m := proto.ErrorText(message); m != "" {
		text += ": " + m
	}

	return []byte(text)
}

// readFields reads the fields of the schema out of the text of an answer. An answer that is no object
// has none.
func (p *answerParser) readFields(text []byte) {
	s := &p.scan
	s.Reset(text)
	values := p.values[1 : 1+len(p.columns.fields)]

	if s.Kind() != '{' {
		return
	}

	for s.Enter(); s.Next(); {
		for i, f := range p.columns.fields {
			if f.Name == string(s.Name()) {
				values[i] = valueOf(f.Kind, s.Value())
				break
			}
		}
	}

	if s.End() != nil {
		clear(values)
	}
}

// valueOf returns a JSON value as a value of a column of a kind, null if it has another kind. A number keeps its
// digits.
func valueOf(kind table.Kind, raw []byte) table.Value {
	if len(raw) == 0 || raw[0] == 'n' {
		return table.Value{}
	}

	first := raw[0]
	switch {
	case kind == table.KindJSON:
		return table.Value{Kind: table.KindJSON, Text: raw}
	case kind == table.KindText && first == '"':
		if text, err := jsonscan.Unquote(raw); err == nil { // half of a surrogate pair is no text
			return textValue(text)
		}
	case kind == table.KindBool && first == 't':
		return table.Value{Kind: table.KindBool, Bits: 1}
	case kind == table.KindBool && first == 'f':
		return table.Value{Kind: table.KindBool}
	case kind == table.KindFloat && isNumber(raw) || kind == table.KindInt && isInteger(raw):
		return table.Value{Kind: table.KindNumber, Text: raw}
	}

	return table.Value{}
}

// isNumber reports whether a JSON value is a number.
func isNumber(raw []byte) bool { return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' }

// isInteger reports whether a JSON value is an integer, such as 1, 1.0 and 1e2.
func isInteger(raw []byte) bool {
	if !isNumber(raw) {
		return false
	}

	if !bytes.ContainsAny(raw, ".eE") {
		return true
	}

	f, _ := strconv.ParseFloat(string(raw), 64) // beyond its range it is infinite

	return f == math.Trunc(f)
}

// textValue returns the value of a text.
func textValue(text []byte) table.Value { return table.Value{Kind: table.KindText, Text: text} }

// intValue returns the value of an integer.
func intValue(n int64) table.Value { return table.Value{Kind: table.KindInt, Bits: uint64(n)} }
