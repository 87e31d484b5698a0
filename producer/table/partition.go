package table

import (
	"bytes"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// partitionFolder matches the name of a folder of Hive's layout: a column, and its value in all
// files below.
var partitionFolder = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]*)=(.*)$`)

// nullPartition is the name of a folder whose value is null.
const nullPartition = "__HIVE_DEFAULT_PARTITION__"

// partition is a column that the path of a file gives to all its rows.
type partition struct {
	column Column
	value  Value
}

// partitionsOf returns the columns in the names of the folders of a path or a URL.
func partitionsOf(path string) []partition {
	if strings.Contains(path, "://") {
		path, _, _ = strings.Cut(path, "?")
	}

	folders := strings.Split(filepath.ToSlash(path), "/")
	folders = folders[:len(folders)-1]

	var partitions []partition
	for _, folder := range folders {
		parts := partitionFolder.FindStringSubmatch(folder)
		if parts == nil {
			continue
		}

		p := partition{column: Column{Name: parts[1], Kind: KindText}}
		if parts[2] != nullPartition {
			text, err := url.PathUnescape(parts[2])
			if err != nil {
				text = parts[2]
			}

			p.value = Value{
				Kind: KindText,
				Text: []byte(text),
			}
		}

		partitions = append(partitions, p)
	}

	return partitions
}

// SamePartitions reports whether the folders of two paths give the same columns to the rows of a file.
func SamePartitions(a, b string) bool {
	return slices.EqualFunc(partitionsOf(a), partitionsOf(b), func(a, b partition) bool {
		return a.column.Name == b.column.Name && a.value.Kind == b.value.Kind && bytes.Equal(a.value.Text, b.value.Text)
	})
}

// partitionReader adds the columns of a path to the rows of a file.
type partitionReader struct {
	Reader

	partitions []partition
	columns    []Column
	// rowColumns and values belong to the latest row; latest are its columns without those of
	// the path.
	rowColumns, latest []Column
	values             []Value
}

// withPartitions returns a reader of the rows with the columns in the file's path.
func withPartitions(r Reader, path string) (Reader, error) {
	partitions := partitionsOf(path)
	if len(partitions) == 0 {
		return r, nil
	}

	for i, part := range partitions {
		isSame := func(other partition) bool { return other.column.Name == part.column.Name }
		if slices.ContainsFunc(partitions[:i], isSame) {
			return nil, &FileError{
				File:    path,
				Message: fmt.Sprintf("its path has two folders %s=...; a column has one value", part.column.Name),
			}
		}
	}

	p := &partitionReader{
		Reader:     r,
		partitions: partitions,
	}

	p.columns = p.appendColumns(nil, r.Columns())

	return p, nil
}

// Columns implements Reader.
func (p *partitionReader) Columns() []Column { return p.columns }

// Next implements Reader.
func (p *partitionReader) Next() (Row, error) {
	row, err := p.Reader.Next()
	if err != nil {
		return row, err
	}

	if !slices.Equal(p.latest, row.Columns) {
		p.latest = append(p.latest[:0:0], row.Columns...)
		p.rowColumns = p.appendColumns(nil, row.Columns)
	}

	p.values = append(p.values[:0], row.Values...)
	for _, part := range p.partitions {
		if hasColumn(row.Columns, part.column.Name) {
			continue
		}

		if !utf8.Valid(part.value.Text) {
			return Row{}, &RowError{
				Number:  row.Number,
				Line:    row.Line,
				Message: fmt.Sprintf("the value of the column %q in its path is not UTF-8", part.column.Name),
			}
		}

		p.values = append(p.values, part.value)
	}

	row.Columns, row.Values = p.rowColumns, p.values

	return row, nil
}

// appendColumns appends columns of a file, and those of the path that the file does not have.
func (p *partitionReader) appendColumns(dst, columns []Column) []Column {
	dst = append(dst, columns...)
	for _, part := range p.partitions {
		if !hasColumn(columns, part.column.Name) {
			dst = append(dst, part.column)
		}
	}
	return dst
}

// hasColumn reports whether there is a column of a name.
func hasColumn(columns []Column, name string) bool {
	return slices.ContainsFunc(columns, func(c Column) bool { return c.Name == name })
}
