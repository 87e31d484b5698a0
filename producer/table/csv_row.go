package table

import (
	"bytes"
	"errors"
)

// csvField is a field in the text of a row.
type csvField struct {
	// start and end are offsets in the text, without the quotes.
	start, end int
	// escaped reports that there are doubled quotes in the field.
	escaped bool
}

// csvParser splits the rows of CSV into fields, as RFC 4180 has them. Unlike encoding/csv it
// keeps the line breaks in fields as they are, reads a row without a copy, and has different
// errors for a quote that never ends and a quote in the wrong place: behind the latter, the
// next line is a row again.
type csvParser struct {
	// delimiter stands between the fields.
	delimiter []byte
	// fields are the fields of the row that was parsed last.
	fields []csvField
	// lineEnd is the offset of the next line feed, or of the end of the text, if it is not behind.
	lineEnd int
}

// The errors of a row of CSV, as its message says them.
var (
	errBareQuote = errors.New("a quote stands inside a field; a field with quotes in it begins and ends with a " +
		"quote, and has each quote doubled")
	errBehindQuote = errors.New("text stands behind the quote that ends a field; a quote in a field must be doubled")
	errOpenQuote   = errors.New("a field begins with a quote and does not end with one; end it, or double each quote " +
		"that belongs to the text")
	errBareReturn = errors.New("a carriage return stands in a field without quotes, and no line feed behind it")
)

// errNotComplete reports that the row does not end in the text.
var errNotComplete = errors.New("the row is not complete")

// parse finds the fields of the row at the beginning of text, and returns the size of the row
// with its line end. whole reports that no text follows: else the error may be errNotComplete.
func (p *csvParser) parse(text []byte, whole bool) (size int, err error) {
	p.fields, p.lineEnd = p.fields[:0], -1

	for at := 0; ; at += len(p.delimiter) {
		var field csvField
		if at < len(text) && text[at] == '"' {
			field, at, err = findQuotedField(text, at, whole)
		} else {
			field, at, err = p.findBareField(text, at, whole)
		}
		if err != nil {
			return p.skipLine(text, at, whole, err)
		}

		p.fields = append(p.fields, field)

		rest := text[at:]
		switch {
		case bytes.HasPrefix(rest, p.delimiter):
			continue
		case len(rest) > 0 && rest[0] == '\n':
			return at + 1, nil
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return at + 2, nil
		case whole && (len(rest) == 0 || len(rest) == 1 && rest[0] == '\r'):
			return len(text), nil
		case !whole && len(rest) < max(2, len(p.delimiter)):
			return 0, errNotComplete
		}

		return p.skipLine(text, at, whole, errBehindQuote) // a field without quotes ends at one of these
	}
}

// findQuotedField returns the field whose first quote is at an offset, and the offset behind
// its last one.
func findQuotedField(text []byte, at int, whole bool) (csvField, int, error) {
	field := csvField{start: at + 1}

	for next := field.start; ; {
		n := bytes.IndexByte(text[next:], '"')
		if n < 0 && !whole {
			return field, 0, errNotComplete
		}

		if n < 0 {
			return field, len(text), errOpenQuote
		}

		field.end = next + n
		next = field.end + 1
		switch {
		case next < len(text) && text[next] == '"':
			field.escaped = true
			next++
		case next == len(text) && !whole:
			return field, 0, errNotComplete
		default:
			return field, next, nil
		}
	}
}

// findBareField returns the field without quotes at an offset, and the offset of its end.
func (p *csvParser) findBareField(text []byte, at int, whole bool) (csvField, int, error) {
	if p.lineEnd < at {
		n := bytes.IndexByte(text[at:], '\n')
		if n < 0 && !whole {
			return csvField{}, 0, errNotComplete
		}

		p.lineEnd = len(text)
		if n >= 0 {
			p.lineEnd = at + n
		}
	}

	field := text[at:p.lineEnd]
	if n := bytes.Index(field, p.delimiter); n >= 0 {
		field = field[:n]
	} else {
		field = bytes.TrimSuffix(field, []byte("\r"))
	}

	if n := bytes.IndexByte(field, '"'); n >= 0 {
		return csvField{}, at + n, errBareQuote
	}

	if n := bytes.IndexByte(field, '\r'); n >= 0 {
		return csvField{}, at + n, errBareReturn
	}

	end := at + len(field)

	return csvField{start: at, end: end}, end, nil
}

// skipLine returns the size of a row with an error: to the end of the line with the error.
func (p *csvParser) skipLine(text []byte, at int, whole bool, err error) (int, error) {
	if errors.Is(err, errNotComplete) || errors.Is(err, errOpenQuote) {
		return len(text), err
	}

	n := bytes.IndexByte(text[at:], '\n')
	switch {
	case n >= 0:
		return at + n + 1, err
	case whole:
		return len(text), err
	}

	return 0, errNotComplete
}

// value returns the value of a field: null if it is empty. unescaped is the buffer for a field with
// doubled quotes, and is returned with the field appended.
func (f csvField) value(text, unescaped []byte) (Value, []byte) {
	field := text[f.start:f.end]
	switch {
	case len(field) == 0:
		return Value{}, unescaped
	case !f.escaped:
		return Value{Kind: KindText, Text: field}, unescaped
	}

	start := len(unescaped)
	for {
		n := bytes.IndexByte(field, '"')
		if n < 0 {
			break
		}
		unescaped = append(unescaped, field[:n+1]...)
		field = field[n+2:] // behind the second quote
	}

	unescaped = append(unescaped, field...)

	return Value{Kind: KindText, Text: unescaped[start:]}, unescaped
}
