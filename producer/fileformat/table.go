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

// detectTable recognises CSV and TSV: a row of names, and rows with as many columns.
func detectTable(text []byte, whole bool) (Detection, bool) {
	for _, delimiter := range []rune{'\t', ',', ';'} {
		rows := readRows(text, delimiter, whole)
		if len(rows) < 2 || !isHeader(rows[0]) || len(rows[0]) == 1 && delimiter != ',' {
			continue
		}

		d := Detection{
			Format:    CSV,
			Columns:   rows[0],
			Delimiter: delimiter,
			Prompt:    findColumn(rows[0], promptColumns),
			ID:        findColumn(rows[0], idColumns),
		}
		if delimiter == '\t' {
			d.Format = TSV
		}

		if len(d.Columns) == 1 && d.Prompt < 0 { // lines of text
			continue
		}

		if d.Prompt < 0 {
			d.Prompt = longestColumn(rows[1:])
		}

		return d, true
	}

	return Detection{}, false
}

// readRows returns the first rows of a table, nil if they have different numbers of columns.
func readRows(text []byte, delimiter rune, whole bool) (rows [][]string) {
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma, r.LazyQuotes = delimiter, true

	for len(rows) < sampleRows {
		row, err := r.Read()
		atEnd := r.InputOffset() == int64(len(text))
		if atEnd && !whole { // the row may be cut off
			break
		}

		if err != nil {
			if !atEnd {
				return nil
			}
			break
		}

		rows = append(rows, row)
	}

	return rows
}

// isHeader reports whether a row has names of columns: short, different, without spaces around
// them.
func isHeader(row []string) bool {
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

// longestColumn returns the index of the column with the most text.
func longestColumn(rows [][]string) int {
	sizes := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, value := range row {
			sizes[i] += len(value)
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
