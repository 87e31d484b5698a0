package export

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// The columns of answers. Those of the fields of a schema follow the first.
const (
	columnAnswer       = "answer"
	columnFinish       = "finish_reason"
	columnError        = "error"
	columnInputTokens  = "input_tokens"
	columnOutputTokens = "output_tokens"
	columnLatency      = "latency_ms"
)

// answerColumns are the columns that a table has besides those of the input.
type answerColumns struct {
	// fields are the properties of the schema of the answers.
	fields []table.Column
	// all are all columns, under their names in the table.
	all []table.Column
}

// newAnswerColumns returns the columns for the answers of a run to rows with some columns.
func newAnswerColumns(s proto.Settings, input []table.Column) (answerColumns, error) {
	fields, err := readFields(s.Schema)
	if err != nil {
		return answerColumns{}, fmt.Errorf("read the schema of the run: %w", err)
	}

	answer := table.Column{Name: columnAnswer, Kind: table.KindText}
	if s.Endpoint == "/v1/embeddings" {
		answer.Kind = table.KindJSON
	}

	rest := []table.Column{
		{Name: columnFinish, Kind: table.KindText},
		{Name: columnError, Kind: table.KindText},
		{Name: columnInputTokens, Kind: table.KindInt},
		{Name: columnOutputTokens, Kind: table.KindInt},
		{Name: columnLatency, Kind: table.KindInt},
	}

	a := answerColumns{fields: fields, all: []table.Column{answer}}
	for i, f := range fields {
		taken := slices.Concat(a.all, rest)
		for isTaken(taken, f.Name) {
			f.Name = columnAnswer + "." + f.Name
			taken = slices.Concat(a.all, rest, fields[i+1:]) // a new name differs from all others
		}
		a.all = append(a.all, f)
	}

	a.all = append(a.all, rest...)

	suffix := ""
	for n := 2; slices.ContainsFunc(a.all, func(c table.Column) bool { return isTaken(input, c.Name+suffix) }); n++ {
		suffix = "_" + strconv.Itoa(n)
	}

	for i := range a.all {
		a.all[i].Name += suffix
	}

	return a, nil
}

// isTaken reports whether a column has a name. Databases do not distinguish upper and lower case in names.
func isTaken(columns []table.Column, name string) bool {
	return slices.ContainsFunc(columns, func(c table.Column) bool { return strings.EqualFold(c.Name, name) })
}

// readFields returns the properties of a JSON Schema as columns, in their order.
func readFields(schema []byte) (fields []table.Column, err error) {
	if len(schema) == 0 {
		return nil, nil
	}

	var s jsonscan.Scanner
	s.Reset(schema)

	if s.Kind() != '{' { // true and false are schemas, too
		return nil, nil
	}

	for s.Enter(); s.Next(); {
		if string(s.Name()) != "properties" || s.Kind() != '{' {
			continue
		}

		for s.Enter(); s.Next(); {
			field := table.Column{Name: string(s.Name()), Kind: kindOfSchema(s.Value())}
			isSame := func(f table.Column) bool { return f.Name == field.Name }
			fields = append(slices.DeleteFunc(fields, isSame), field) // as in all JSON, the last one holds
		}
	}

	return fields, s.End()
}

// kindOfSchema returns the kind of the values that a schema allows. A schema that allows several, or
// does not name a type, has the kind JSON.
func kindOfSchema(schema []byte) table.Kind {
	var s jsonscan.Scanner
	s.Reset(schema)

	if s.Kind() != '{' {
		return table.KindJSON
	}

	kind := table.KindJSON
	for s.Enter(); s.Next(); {
		if string(s.Name()) == "type" {
			kind = kindOfType(s.Value())
		}
	}

	if s.End() != nil {
		return table.KindJSON
	}

	return kind
}

// kindOfType returns the kind of a type of JSON Schema: its name, or a list of names. null does not
// count.
func kindOfType(value []byte) table.Kind {
	if !bytes.HasPrefix(value, []byte("[")) {
		return kindOfName(jsonscan.Text(value))
	}

	var (
		s     jsonscan.Scanner
		kinds []table.Kind
	)
	s.Reset(value)
	for s.EnterArray(); s.NextElement(); {
		if name := jsonscan.Text(s.Value()); string(name) != "null" {
			kinds = append(kinds, kindOfName(name))
		}
	}

	if len(kinds) != 1 || s.End() != nil {
		return table.KindJSON
	}

	return kinds[0]
}

// kindOfName returns the kind of a type of JSON Schema.
func kindOfName(name []byte) table.Kind {
	switch string(name) {
	case "string":
		return table.KindText
	case "integer":
		return table.KindInt
	case "number":
		return table.KindFloat
	case "boolean":
		return table.KindBool
	}

	return table.KindJSON
}
