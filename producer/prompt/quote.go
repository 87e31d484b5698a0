package prompt

import (
	"encoding/binary"
	"unicode/utf8"
)

// appendEscaped appends a text as the inside of a JSON string. Only quotes, backslashes and control
// characters have escapes. It returns false for text that is not UTF-8.
func appendEscaped(dst, text []byte) ([]byte, bool) {
	dst, ascii := appendChecked(dst, text)
	return dst, ascii || utf8.Valid(text)
}

// appendChecked is appendEscaped for text that is UTF-8. It reports whether all of it is ASCII.
func appendChecked(dst, text []byte) (escaped []byte, ascii bool) {
	ascii = true
	from, i := 0, 0
	for {
		// Eight bytes at a time, as far as none of them has an escape.
		for ; i+8 <= len(text); i += 8 {
			word := binary.LittleEndian.Uint64(text[i:])
			if word&high != 0 {
				ascii = false
			}

			if needsEscape(word) {
				break
			}
		}

		end := min(i+8, len(text))
		for ; i < end; i++ {
			c := text[i]
			if c >= utf8.RuneSelf {
				ascii = false
			}

			if c >= ' ' && c != '"' && c != '\\' {
				continue
			}

			dst = append(dst, text[from:i]...)
			dst = appendEscape(dst, c)
			from = i + 1
		}

		if i == len(text) {
			return append(dst, text[from:]...), ascii
		}
	}
}

// Masks of eight bytes.
const (
	low  = 0x0101010101010101
	high = 0x8080808080808080
)

// needsEscape reports whether one of eight bytes has an escape. It may report it for a byte
// above ASCII, too.
func needsEscape(word uint64) bool {
	quote := word ^ low*'"'
	slash := word ^ low*'\\'
	return ((word-low*' ')|(quote-low)|(slash-low))&^word&high != 0
}

// appendEscape appends the escape of a character.
func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}

	const digits = "0123456789abcdef"

	return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&0xf])
}
