package table

import (
	"errors"
	"fmt"
	"slices"
)

// nameColumns returns the columns of a header. A name that is empty, as pandas writes that of its
// index and spreadsheets write those of empty columns, is replaced by the place of the column.
func nameColumns(header []string) ([]Column, error) {
	columns := make([]Column, 0, len(header))
	places := make(map[string]int, len(header))

	for i, name := range header {
		if name == "" {
			continue
		}

		if first, ok := places[name]; ok {
			return nil, fmt.Errorf("the header has the column %q twice, as columns %d and %d; rename one of them",
				name, first, i+1)
		}

		places[name] = i + 1
	}

	if len(places) == 0 {
		return nil, errors.New("the header has no names; write one into the first row, or give --columns")
	}

	for i, name := range header {
		isUnnamed := name == ""
		for n := 1; name == ""; n++ {
			candidate := fmt.Sprintf("column_%d", i+1)
			if n > 1 {
				candidate = fmt.Sprintf("%s_%d", candidate, n)
			}

			if _, ok := places[candidate]; !ok {
				name = candidate
				places[candidate] = i + 1
			}
		}

		columns = append(columns, Column{
			Name:    name,
			Unnamed: isUnnamed,
			Kind:    KindText,
		})
	}

	return columns, nil
}

// Header returns the header of CSV with these columns. A column without a name has none in the
// header either, unless a reader of the header would then give it another one.
func Header(columns []Column) []string {
	header := make([]string, 0, len(columns))
	for _, c := range columns {
		if c.Unnamed {
			header = append(header, "")
		} else {
			header = append(header, c.Name)
		}
	}

	again, err := nameColumns(header)
	if err == nil && slices.EqualFunc(again, columns, func(a, b Column) bool { return a.Name == b.Name }) {
		return header
	}

	for i, c := range columns {
		header[i] = c.Name
	}

	return header
}
