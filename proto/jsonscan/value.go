package jsonscan

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is the deepest nesting of a body. [Scanner] reads 10,000 levels, as
// encoding/json does, and a body must also be read as a part of a line.
const MaxDepth = 9000

// TooDeep reports whether a JSON value is nested deeper than [MaxDepth].
func TooDeep(value []byte) bool {
	if len(value) < 2*MaxDepth || bytes.Count(value, []byte{'['})+bytes.Count(value, []byte{'{'}) <= MaxDepth {
		return false
	}

	depth := 0
	for i := 0; i < len(value); i++ {
		switch value[i] {
		case '{', '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case '}', ']':
			depth--
		case '"':
			i += max(0, stringEnd(value[i+1:]))
		}
	}

	return false
}

// Unquote returns the text of a JSON string. Without escapes it is a part of raw. It fails
// for one with half a surrogate pair, which no text can hold.
func Unquote(raw []byte) ([]byte, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return nil, errors.New("not a JSON string")
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	return jsontext.AppendUnquote(nil, raw)
}

// Text is the text of a JSON string, with U+FFFD for half of a surrogate pair, and nil
// for any other value. Without escapes it is a part of raw.
func Text(raw []byte) []byte {
	if len(raw) < 2 || raw[0] != '"' {
		return nil
	}

	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}

	text, _ := jsontext.AppendUnquote(nil, raw) // the scanner has read it: there is no other fault

	return text
}

// SameText reports whether two JSON strings have the same text, whatever their escapes.
func SameText(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err := Unquote(a)
	y, errY := Unquote(b)
	return err == nil && errY == nil && bytes.Equal(x, y)
}

// Quote returns s as a JSON string. Bytes that are not UTF-8 become U+FFFD, since
// JSON cannot hold them.
func Quote(s string) []byte {
	raw, _ := jsontext.AppendQuote(nil, s) // its only error is invalid UTF-8, replaced already
	return raw
}

// stringEnd is the length of a JSON string from after its first quote to its last one,
// or -1.
func stringEnd(text []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1
		}

		i += n + 1
		slashes := 0
		for slashes < i-1 && text[i-2-slashes] == '\\' {
			slashes++
		}

		if slashes%2 == 0 {
			return i
		}
	}
}

// Word returns the text of a JSON value that should be a short string. Numbers, true and false
// stand for themselves; null, objects and arrays are empty.
func Word(raw []byte) []byte {
	if len(raw) == 0 || raw[0] == 'n' || raw[0] == '{' || raw[0] == '[' {
		return nil
	}

	if raw[0] == '"' {
		return Text(raw)
	}

	return raw
}

// maxExact is the end of the integers that a float64 holds exactly.
const maxExact = 1 << 53

// Count reads a JSON value that should be a count, 0 if it is none. Writers in JavaScript and Lua
// have 12.0 or 1.2e1 for 12.
func Count(raw []byte) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || f != math.Trunc(f) || f < 0 || f > maxExact {
			return 0
		}
		n = int64(f)
	}

	return max(0, n)
}

// Canonical returns a JSON value in the one form that all its spellings have: without white space, members in the order
// of their names (RFC 8785). Integers keep all their digits. Errors are of the syntax; a name that an object has twice
// is one.
func Canonical(value []byte) ([]byte, error) {
	v := jsontext.Value(bytes.Clone(value))
	if err := v.Canonicalize(jsontext.CanonicalizeRawInts(false)); err != nil {
		return nil, err
	}
	return v, nil
}
