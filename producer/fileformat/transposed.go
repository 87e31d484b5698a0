package fileformat

import (
	"slices"
	"strconv"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// isTransposed reports whether a JSON object is a whole table in one of the forms that pandas
// writes unless it is asked for records: an object of each column or of each row, all with the
// same members, or the rows beside the names of the columns. The end of the text may be missing.
func isTransposed(text []byte) bool {
	var (
		s           jsonscan.Scanner
		names       []string
		first, last []string
		objects     int
	)
	s.Reset(text)

	for s.Enter(); s.Next(); {
		names = append(names, string(s.Name()))
		switch s.Kind() {
		case '{':
		case '[':
			continue
		default:
			return false
		}

		if objects++; objects > 2 && !slices.Equal(first, last) {
			return false
		}

		last = last[:0]
		for s.Enter(); s.Next(); {
			last = append(last, string(s.Name()))
		}

		if objects == 1 {
			first = slices.Clone(last)
		}
	}

	isCutOff := isCut(s.End())
	isSame := slices.Equal(first, last) || isCutOff && len(last) < len(first) && slices.Equal(first[:len(last)], last)

	switch objects {
	case 0: // orient="split"
		return slices.Contains(names, "columns") && slices.Contains(names, "data")
	case 1:
		if slices.Equal(names, []string{"schema", "data"}) { // orient="table"
			return true
		}
	}

	return objects == len(names) && isSame && len(first) > 0 && (objects > 1 || isNumbered(first))
}

// isNumbered reports whether names are those of the rows 0, 1 and so on.
func isNumbered(names []string) bool {
	for i, name := range names {
		if name != strconv.Itoa(i) {
			return false
		}
	}
	return true
}
