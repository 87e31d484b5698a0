package producer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// RowColumns returns the columns of the rows of a validated run's requests: those of all files,
// in the order in which they first occur. Columns of JSON are found in the rows, which are read
// for it. The kind of a column whose values differ in kind is [table.KindJSON], and of one
// without values [table.KindText].
func RowColumns(ctx context.Context, source Source, m proto.Manifest) ([]table.Column, error) {
	if m.Settings.Rows == nil {
		return customIDColumns, nil
	}

	source = SourceOf(m.Input, source.Files, source.Opener)
	var set columnSet

	for i := range source.Files {
		t, err := source.OpenTable(ctx, i, m.Settings.Rows.Table)
		if err != nil {
			return nil, err
		}

		format, columns := t.Format(), t.Columns()
		t.Close()

		if format == proto.FormatJSON || format == proto.FormatJSONL {
			return scanColumns(ctx, source, m)
		}

		set.addColumns(columns)
	}

	return set.list(), nil
}

// scanColumns is RowColumns for rows that each have columns of their own.
func scanColumns(ctx context.Context, source Source, m proto.Manifest) ([]table.Column, error) {
	r, err := NewRowReader(ctx, source, m)
	if err != nil {
		return nil, err
	}
	defer r.Close()

	var set columnSet
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return set.list(), nil
		}
		if err != nil {
			return nil, err
		}

		if row.Err != nil {
			continue
		}

		set.addColumns(row.Columns)

		for i, value := range row.Values {
			set.addValue(i, value)
		}

		if row.Index%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// columnSet gathers the columns of several files or rows.
type columnSet struct {
	columns []foundColumn
	places  map[string]int
	// latest are the places of the columns that were added last.
	latest []int
	// count is the number of times that columns were added.
	count int
}

// foundColumn is a column, as far as its values were seen.
type foundColumn struct {
	table.Column

	// count is the number of times that the column was added.
	count int
	// isMixed reports that values have different kinds.
	isMixed bool
	// hasLarge reports that one of the integers cannot be a floating-point number.
	hasLarge bool
}

// addColumns adds columns.
func (s *columnSet) addColumns(columns []table.Column) {
	if s.places == nil {
		s.places = map[string]int{}
	}

	s.count++

	for i, c := range columns {
		if i < len(s.latest) && s.columns[s.latest[i]].Name == c.Name {
			s.columns[s.latest[i]].merge(c)
			continue
		}

		place, ok := s.places[c.Name]
		if !ok {
			place = len(s.columns)
			s.places[c.Name] = place
			s.columns = append(s.columns, foundColumn{Column: c})
		}

		s.columns[place].merge(c)
		s.latest = append(s.latest[:i], place)
	}
}

// merge adds the same column of another file.
func (f *foundColumn) merge(c table.Column) {
	f.count++

	switch {
	case c.Kind == f.Kind && sameParquetType(c.Parquet, f.Parquet):
	case c.Kind == table.KindNull:
		f.Parquet = nil
	case f.Kind == table.KindNull:
		f.Column = table.Column{Name: c.Name, Kind: c.Kind}
	case c.Kind == f.Kind:
		f.Parquet = nil
	default:
		f.isMixed = true
	}
}

// sameParquetType reports whether both columns have the same type of Parquet, or none.
func sameParquetType(a, b *table.ParquetColumn) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.SameType(b)
}

// addValue adds a value of the i-th of the columns that were added last.
func (s *columnSet) addValue(i int, v table.Value) {
	f := &s.columns[s.latest[i]]

	kind := v.Kind
	if kind == table.KindNumber {
		var isLarge bool
		kind, isLarge = kindOfNumber(v.Text)
		f.hasLarge = f.hasLarge || isLarge
	}

	isNumber := func(k table.Kind) bool {
		return k == table.KindInt || k == table.KindFloat || k == table.KindNumber
	}
	switch {
	case kind == table.KindNull || kind == f.Kind || v.Parquet != nil:
	case f.Kind == table.KindNull:
		f.Kind = kind
	case isNumber(kind) && isNumber(f.Kind):
		f.Kind = max(kind, f.Kind) // KindInt, KindFloat, KindNumber
		f.Parquet = nil
	default:
		f.isMixed = true
	}
}

// maxExact is the largest integer up to which each has a floating-point number.
const maxExact = 1 << 53

// maxDigits is the number of decimal digits that a floating-point number keeps.
const maxDigits = 17

// kindOfNumber returns the kind that keeps the value of a JSON number, and whether it is an
// integer that KindFloat does not keep.
func kindOfNumber(digits []byte) (kind table.Kind, isLarge bool) {
	if n, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
		return table.KindInt, n > maxExact || n < -maxExact
	}

	significant := 0
	mantissa, _, _ := bytes.Cut(bytes.ToLower(digits), []byte("e"))
	for _, c := range bytes.TrimLeft(mantissa, "-0.") {
		if c != '.' {
			significant++
		}
	}

	if _, err := strconv.ParseFloat(string(digits), 64); err != nil || significant > maxDigits {
		return table.KindNumber, true
	}

	return table.KindFloat, false
}

// list returns the columns.
func (s *columnSet) list() []table.Column {
	columns := make([]table.Column, 0, len(s.columns))
	for _, f := range s.columns {
		c := f.Column
		if c.Parquet != nil && c.Parquet.IsRequired() && f.count < s.count { // some rows do not have it
			c.Parquet = nil
		}

		switch {
		case f.isMixed:
			c = table.Column{Name: c.Name, Kind: table.KindJSON}
		case c.Kind == table.KindNull:
			c.Kind = table.KindText
		case c.Kind == table.KindFloat && f.hasLarge:
			c.Kind, c.Parquet = table.KindNumber, nil
		}

		columns = append(columns, c)
	}

	return columns
}
