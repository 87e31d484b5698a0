package fileformat

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf8"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Detect recognises the format of a file by its beginning, unpacked if the file is gzip or
// zstd. whole reports that start is all of the file. A longer beginning finds more: 256 KiB are
// enough for the format of any file whose first line is shorter.
func Detect(start []byte, whole bool) Detection {
	if d, ok := detectMagic(start); ok {
		return d
	}

	text := bytes.TrimLeft(bytes.TrimPrefix(start, []byte("\xef\xbb\xbf")), " \t\r\n")
	if len(text) == 0 {
		return Detection{}
	}

	switch text[0] {
	case '{':
		return detectObject(text, whole)
	case '[':
		return detectArray(text, whole)
	}

	switch {
	case hasObjectLine(text): // JSON lines, of which the first is wrong
		return Detection{}
	case isMarkup(text):
		return Detection{Format: Markup}
	case !isUTF8(text, whole):
		return Detection{Format: OtherText}
	}

	if isStrings(text, whole) {
		return Detection{Format: JSONStrings}
	}

	if d, ok := detectTable(text, whole); ok {
		return d
	}

	if isYAML(text) {
		return Detection{Format: YAML}
	}

	return Detection{Format: Text}
}

// hasObjectLine reports whether one of the lines is a JSON object.
func hasObjectLine(text []byte) bool {
	var s jsonscan.Scanner
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] != '{' {
			continue
		}

		s.Reset(line)
		for s.Enter(); s.Next(); {
		}

		if s.End() == nil {
			return true
		}
	}

	return false
}

// isStrings reports whether each line is a JSON string. A first string that is the usual name of a
// column is the header of a table. The last line may be cut off if the text is not whole.
func isStrings(text []byte, whole bool) bool {
	count := 0
	for line := range bytes.Lines(text) {
		if !whole && !bytes.HasSuffix(line, []byte("\n")) {
			break
		}

		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}

		var value string
		if json.Unmarshal(line, &value) != nil ||
			count == 0 && findColumn([]string{value}, slices.Concat(promptColumns, idColumns)) >= 0 {
			return false
		}

		count++
	}

	return count > 0
}

// isMarkup reports whether a text begins with a tag.
func isMarkup(text []byte) bool {
	if len(text) < 2 || text[0] != '<' {
		return false
	}
	c := text[1]
	return c == '!' || c == '?' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// isUTF8 reports whether a text is UTF-8. Its last character may be cut off if it is not whole.
func isUTF8(text []byte, whole bool) bool {
	if utf8.Valid(text) {
		return true
	}

	if whole {
		return false
	}

	for n := 1; n < utf8.UTFMax && n < len(text); n++ {
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) {
			return !utf8.FullRune(end) && utf8.Valid(text[:len(text)-n])
		}
	}

	return false
}
