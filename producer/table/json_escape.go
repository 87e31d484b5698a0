package table

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// appendUnescaped appends a JSON object or array with its characters in place of their escapes, as
// a model reads them best. Escapes that JSON needs, those of quotes, backslashes and control
// characters, and halves of surrogate pairs stay.
func appendUnescaped(dst, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\') // stands only in strings
		if i < 0 || i+1 >= len(raw) {
			return append(dst, raw...)
		}

		dst = append(dst, raw[:i]...)
		raw = raw[i:]

		size := 2
		switch c, n := unescape(raw); {
		case raw[1] == '/': // which some writers escape
			dst = append(dst, '/')
		case n > 0:
			dst, size = utf8.AppendRune(dst, c), n
		default:
			dst = append(dst, raw[:2]...)
		}

		raw = raw[size:]
	}
}

// unescape returns the character of the escape at the beginning of a text, and the size of the
// escape; 0 if it stays as it is.
func unescape(text []byte) (rune, int) {
	const size = len(`\u0000`)
	c, ok := parseEscape(text)
	switch {
	case !ok || c < ' ' || c == '"' || c == '\\':
		return 0, 0
	case !utf16.IsSurrogate(c):
		return c, size
	}

	low, ok := parseEscape(text[size:])
	if pair := utf16.DecodeRune(c, low); ok && pair != utf8.RuneError {
		return pair, 2 * size
	}

	return 0, 0
}

// parseEscape returns the number of the escape \uXXXX at the beginning of a text.
func parseEscape(text []byte) (rune, bool) {
	const size = len(`\u0000`)
	if len(text) < size || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}

	n, err := strconv.ParseUint(string(text[2:size]), 16, 16)

	return rune(n), err == nil
}
