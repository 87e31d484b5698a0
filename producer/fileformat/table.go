package fileformat

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
)

// promptColumns and idColumns are usual names of the columns with prompts and with custom_ids, the
// best first.
var (
	promptColumns = []string{
		"prompt", "question", "instruction", "instructions", "input", "query", "message", "content", "text",
		"user", "sentence", "document", "review", "body",
	}
	idColumns = []string{"custom_id", "id", "key", "uid"}
)

// sampleRows is the most rows of a table that are read.
const sampleRows = 20

// delimiters are the characters between the columns of tables that are recognised, the surest
// first.
var delimiters = []rune{'\t', ',', ';', '|'}

// detectTable recognises CSV and TSV: a row of names, and rows most of which have as many columns.
func detectTable(text []byte, whole bool) (Detection, bool) {
	var best sample
	for _, delimiter := range delimiters {
		s := readSample(text, delimiter, whole)
		if s.isTable(whole) && s.isBetter(best) {
			best = s
		}
	}

	if len(best.rows) == 0 {
		return Detection{}, false
	}

	header := best.rows[0]
	d := Detection{
		Format:    CSV,
		Columns:   header,
		Delimiter: best.delimiter,
		Prompt:    findColumn(header, promptColumns),
		ID:        findColumn(header, idColumns),
	}
	if best.delimiter == '\t' {
		d.Format = TSV
	}

	if d.Prompt < 0 {
		d.Prompt = longestColumn(header, best.rows[1:])
	}

	return d, true
}

// FindDelimiter returns the delimiter of CSV, by the beginning of its text: that with which the
// most rows have as many fields as the first one, and several. It is a comma if the rows have
// one field.
func FindDelimiter(text []byte, whole bool) rune {
	best := sample{delimiter: ','}
	for _, delimiter := range delimiters {
		s := readSample(text, delimiter, whole)
		if len(s.rows) > 0 && len(s.rows[0]) > 1 && s.isBetter(best) {
			best = s
		}
	}

	return best.delimiter
}

// sample has the first rows of a table.
type sample struct {
	delimiter rune
	rows      [][]string
	// alike counts the rows with as many fields as the first one, itself among them.
	alike int
}

// readSample reads the first rows of a table.
func readSample(text []byte, delimiter rune, whole bool) sample {
	s := sample{delimiter: delimiter}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = delimiter, true, -1

	for len(s.rows) < sampleRows {
		row, err := r.Read()
		if err != nil || !whole && len(s.rows) > 0 && r.InputOffset() == int64(len(text)) { // it may be cut off
			break
		}

		s.rows = append(s.rows, row)
		if len(row) == len(s.rows[0]) {
			s.alike++
		}
	}

	return s
}

// isTable reports whether the rows are those of a table: the first has names of columns, and
// most others have as many fields. A column alone, or a header alone, needs a name that is
// usual.
func (s sample) isTable(whole bool) bool {
	if len(s.rows) == 0 || !isHeader(s.rows[0]) || 2*(s.alike-1) < len(s.rows)-1 {
		return false
	}

	header := s.rows[0]
	switch {
	case len(header) == 1:
		return s.delimiter == ',' && len(s.rows) > 1 && s.alike == len(s.rows) && findColumn(header, promptColumns) >= 0
	case len(s.rows) == 1:
		return whole && findColumn(header, slices.Concat(promptColumns, idColumns)) >= 0
	}

	return true
}

// isBetter reports whether more of the rows are alike than with another delimiter, or as many,
// and they have more fields.
func (s sample) isBetter(than sample) bool {
	if len(than.rows) == 0 {
		return true
	}

	here, there := s.alike*len(than.rows), than.alike*len(s.rows)
	if len(than.rows[0]) == 1 || len(s.rows[0]) == 1 {
		return len(s.rows[0]) > len(than.rows[0])
	}

	return here > there || here == there && len(s.rows[0]) > len(than.rows[0])
}

// isHeader reports whether a row has names of columns: short, different, without spaces around
// them. The first ones may be empty, as those of an index of pandas are.
func isHeader(row []string) bool {
	for len(row) > 1 && row[0] == "" {
		row = row[1:]
	}

	for i, name := range row {
		if name == "" || len(name) > 64 || name != strings.TrimSpace(name) || strings.ContainsAny(name, "\r\n{}[]") ||
			slices.Contains(row[:i], name) {
			return false
		}
	}

	return true
}

// findColumn returns the index of the first of some names among the columns, -1 if there is none.
func findColumn(columns, names []string) int {
	for _, name := range names {
		if i := slices.IndexFunc(columns, func(c string) bool { return strings.EqualFold(c, name) }); i >= 0 {
			return i
		}
	}

	return -1
}

// FindPrompt returns the name that prompts usually have, or the only one that is no name of ids; ""
// if it is unknown.
func FindPrompt(names []string) string {
	if i := findColumn(names, promptColumns); i >= 0 {
		return names[i]
	}

	others := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return findColumn([]string{name}, idColumns) >= 0
	})
	if len(others) == 1 {
		return others[0]
	}

	return ""
}

// longestColumn returns the index of the column with the most text, of those that have names.
func longestColumn(header []string, rows [][]string) int {
	sizes := make([]int, len(header))
	for _, row := range rows {
		for i, value := range row[:min(len(row), len(header))] {
			sizes[i] += len(value)
		}
	}

	for i, name := range header {
		if name == "" {
			sizes[i] = -1
		}
	}

	return slices.Index(sizes, slices.Max(sizes))
}

// requestMembers are names of members with which a request in YAML may begin.
var requestMembers = []string{"custom_id", "id", "model", "prompt", "messages", "input", "method", "url", "body"}

// isYAML reports whether a text is YAML: it begins a document, or a list of mappings, or it is a
// mapping with the members of a request.
func isYAML(text []byte) bool {
	isMapping := false
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \r\n")
		if len(line) == 0 || line[0] == '#' || line[0] == '%' {
			continue
		}

		if isMapping && (line[0] == ' ' || line[0] == '-') { // the value of the member before
			continue
		}

		if string(line) == "---" {
			return true
		}

		item, isItem := bytes.CutPrefix(line, []byte("- "))
		name, _, isMember := bytes.Cut(item, []byte(":"))
		if isItem {
			return isMember && len(name) > 0 && bytes.IndexByte(bytes.TrimSpace(name), ' ') < 0
		}

		isName := slices.Contains(requestMembers, string(name)) || isMapping && bytes.IndexByte(name, ' ') < 0
		if !isMember || !isName {
			return false
		}

		isMapping = true
	}

	return isMapping
}
