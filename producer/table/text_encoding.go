package table

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// replacement is U+FFFD, which decoders write for bytes that their encoding does not have.
var replacement = []byte("\ufffd")

// encodedReplacements are the bytes of U+FFFD itself in the encodings that have it, by their names.
var encodedReplacements = map[string]string{
	"utf-16le": "\xfd\xff",
	"utf-16be": "\xff\xfd",
	"gb18030":  "\x84\x31\xa4\x37",
}

// findEncoding returns the encoding of a name; nil for UTF-8 and if there is no name.
func findEncoding(name string) (encoding.Encoding, error) {
	if name == "" {
		return nil, nil
	}

	e, err := htmlindex.Get(name)
	if err != nil || e == encoding.Replacement {
		return nil, fmt.Errorf("unknown encoding %q; use a name such as windows-1252, utf-16le or shift_jis", name)
	}

	if canonical, _ := htmlindex.Name(e); canonical == "utf-8" {
		return nil, nil
	}

	return e, nil
}

// encodingOf returns the encoding of a text, nil for UTF-8, and the size of its byte-order
// mark. The mark decides, as in the WHATWG's standard, and the given encoding if there is none.
func encodingOf(start []byte, given encoding.Encoding) (encoding.Encoding, int) {
	switch {
	case bytes.HasPrefix(start, byteOrderMark):
		return nil, len(byteOrderMark)
	case bytes.HasPrefix(start, []byte("\xff\xfe\x00\x00")): // UTF-32
		return nil, 0
	case bytes.HasPrefix(start, []byte("\xff\xfe")):
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), 2
	case bytes.HasPrefix(start, []byte("\xfe\xff")):
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), 2
	}

	return given, 0
}

// newTextDecoder returns a decoder to UTF-8. Bytes that the encoding does not have become text
// that [textFile.check] refuses: U+FFFD or, if the encoding has U+FFFD itself, a byte that is
// not UTF-8.
func newTextDecoder(e encoding.Encoding) transform.Transformer {
	name, _ := htmlindex.Name(e)
	own, ok := encodedReplacements[name]
	if !ok {
		return e.NewDecoder()
	}

	return &strictDecoder{Transformer: e.NewDecoder(), own: []byte(own)}
}

// strictDecoder is a decoder that writes the byte damaged for bytes that the encoding does not have.
type strictDecoder struct {
	// Transformer is a decoder that keeps no state between characters, and writes U+FFFD.
	transform.Transformer

	// own is U+FFFD itself in the encoding.
	own []byte
}

// damaged stands for bytes that an encoding does not have. It is not UTF-8.
const damaged = 0xff

// Transform implements [transform.Transformer].
func (d *strictDecoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	nDst, nSrc, err = d.Transformer.Transform(dst, src, atEOF)
	if !bytes.Contains(dst[:nDst], replacement) {
		return nDst, nSrc, err
	}

	nDst, nSrc = 0, 0
	for nSrc < len(src) {
		var character [utf8.UTFMax]byte

		size, consumed, err := d.decodeCharacter(character[:], src[nSrc:], atEOF)
		switch {
		case err != nil:
			return nDst, nSrc, err
		case size > len(dst)-nDst:
			return nDst, nSrc, transform.ErrShortDst
		}

		text := character[:size]
		if bytes.Equal(text, replacement) && !bytes.Equal(src[nSrc:nSrc+consumed], d.own) {
			text = []byte{damaged}
		}

		nDst += copy(dst[nDst:], text)
		nSrc += consumed
	}

	return nDst, nSrc, nil
}

// decodeCharacter decodes the first character of src, or a few that are not U+FFFD.
func (d *strictDecoder) decodeCharacter(dst, src []byte, atEOF bool) (size, consumed int, err error) {
	for n := 1; n <= len(src); n++ {
		for room := len(replacement); room <= len(dst); room++ { // for nothing behind U+FFFD
			size, consumed, _ = d.Transformer.Transform(dst[:room], src[:n], atEOF && n == len(src))
			if consumed > 0 {
				return size, consumed, nil
			}
		}
	}

	return 0, 0, transform.ErrShortSrc
}

// check returns the error of a part of the text that is not sound.
func (t *textFile) check(text []byte) error {
	isUTF8 := utf8.Valid(text)
	switch {
	case t.encoding == nil && isUTF8:
		return nil
	case t.encoding == nil:
		return errors.New("it is not UTF-8")
	case isUTF8 && !(t.isReplacing && bytes.Contains(text, replacement)):
		return nil
	}

	name := t.cfg.Table.Encoding
	if name == "" {
		name = "UTF-16, as its byte-order mark says"
	}

	return fmt.Errorf("it has bytes that are not %s", name)
}

// checkDecoded is [textFile.check] for a parser that refuses invalid UTF-8 itself.
func (t *textFile) checkDecoded(text []byte) error {
	if t.encoding == nil {
		return nil
	}
	return t.check(text)
}

// replaces reports whether the decoder of an encoding writes U+FFFD for bytes that the encoding
// does not have.
func replaces(e encoding.Encoding) bool {
	name, err := htmlindex.Name(e)
	return err == nil && encodedReplacements[name] == ""
}
