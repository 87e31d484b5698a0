package sample

import (
	"context"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// null is the expected answer of a request that has none.
const null = "null"

// fieldFinder finds the expected answers of requests.
type fieldFinder struct {
	scan jsonscan.Scanner
	// names are the columns of the rows so far, or the fields of the first line.
	names []string
	text  []byte
}

// appendExpected appends the expected answer of a request as a JSON string, and reports whether it is known; null if
// it is not. name is the name of a column or a field.
func (f *fieldFinder) appendExpected(dst []byte, name string, o producer.Original) ([]byte, bool) {
	if o.Text == nil {
		return f.appendCell(dst, name, o.Row)
	}

	if f.names == nil {
		f.names = f.listFields(o.Text)
	}

	value := f.find(o.Text, name)
	switch {
	case value == nil || value[0] == 'n':
		return append(dst, null...), false
	case value[0] == '"':
		value = jsonscan.Text(value)
	}

	return append(dst, jsonscan.Quote(string(value))...), true
}

// appendCell is appendExpected for a row.
func (f *fieldFinder) appendCell(dst []byte, name string, row table.Row) ([]byte, bool) {
	for i, c := range row.Columns {
		if c.Name == name && !row.Values[i].IsNull() {
			f.text = row.Values[i].AppendText(f.text[:0])
			return append(dst, jsonscan.Quote(string(f.text))...), true
		}
	}

	f.addColumns(row.Columns)

	return append(dst, null...), false
}

// addColumns adds the columns of a row that is without the expected answer, unless there are many.
func (f *fieldFinder) addColumns(columns []table.Column) {
	const most = 100
	for _, c := range columns[:min(len(columns), most)] {
		if len(f.names) < most && !slices.Contains(f.names, c.Name) {
			f.names = append(f.names, c.Name)
		}
	}
}

// find returns the value of a field of a JSON object, as it stands there; nil if there is none. A member with the
// whole name counts before one in an object, and of two the last one, as for most readers of JSON.
func (f *fieldFinder) find(text []byte, name string) []byte {
	f.scan.Reset(text)
	value := f.findMember(name)
	if f.scan.End() != nil { // not possible for a request
		return nil
	}

	return value
}

// findMember is find for the object that comes next.
func (f *fieldFinder) findMember(name string) (value []byte) {
	var inside []byte

	for f.scan.Enter(); f.scan.Next(); {
		member := string(f.scan.Name())
		rest, isOnTheWay := strings.CutPrefix(name, member+".")

		switch {
		case member == name:
			value = f.scan.Value()
		case isOnTheWay && f.scan.Kind() == '{':
			if found := f.findMember(rest); found != nil {
				inside = found
			}
		}
	}

	if value != nil {
		return value
	}

	return inside
}

// listFields returns the names of the fields of a JSON object, as find takes them, without those in lists.
func (f *fieldFinder) listFields(text []byte) []string {
	const most = 100
	names := []string{}

	var list func(prefix string)
	list = func(prefix string) {
		for f.scan.Enter(); f.scan.Next(); {
			name := prefix + string(f.scan.Name())
			switch {
			case len(names) == most:
			case f.scan.Kind() == '{' && strings.Count(name, ".") < 3:
				list(name + ".")
			default:
				names = append(names, name)
			}
		}
	}

	f.scan.Reset(text)
	list("")

	return names
}

// checkColumn returns a [MissingError] if none of the tables has the column with the expected answers. The columns of
// JSON are known only once its rows were read.
func checkColumn(ctx context.Context, cfg Config) error {
	if cfg.Expect == "" || cfg.Settings.Rows == nil {
		return nil
	}

	var f fieldFinder
	for i := range cfg.Source.Files {
		t, err := cfg.Source.OpenTable(ctx, i, cfg.Settings.Rows.Table)
		if err != nil {
			return err
		}

		format, columns := t.Format(), t.Columns()
		t.Close()

		if format == proto.FormatJSON || format == proto.FormatJSONL || len(columns) == 0 ||
			slices.ContainsFunc(columns, func(c table.Column) bool { return c.Name == cfg.Expect }) {
			return nil
		}

		f.addColumns(columns)
	}

	return &MissingError{
		Name:  cfg.Expect,
		Names: f.names,
		IsRow: true,
	}
}
