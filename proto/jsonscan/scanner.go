package jsonscan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Scanner walks the members of a JSON object, and of the objects and arrays in it that the caller
// enters, in one pass. It checks syntax and UTF-8 on the way, and returns values as parts
// of the input, never copies. Every part of promptmill reads JSON with it: bodies must pass
// through byte for byte, so nothing is ever decoded and encoded again. It accepts all that RFC
// 8259 accepts: also an escape of half a surrogate pair (8.2), which an answer cut in an emoji
// has.
//
//	s.Reset(line)
//	for s.Enter(); s.Next(); {
//		switch string(s.Name()) {
//		case "body":
//			body = s.Value()
//		}
//	}
//	err := s.End()
//
// The first error ends all loops and is returned by End. Members that are not asked
// for are skipped. Not safe for concurrent use.
type Scanner struct {
	data []byte
	buf  bytes.Buffer
	dec  jsontext.Decoder
	name []byte
	// start is the offset of the current member's name.
	start int
	// open reports that the current member's value has not been read yet.
	open bool
	// mixed reports that data has escapes and bytes that are not ASCII.
	mixed bool
	err   error
}

// Reset starts over with data, which must not change until the walk is over.
func (s *Scanner) Reset(data []byte) {
	s.data, s.name, s.open, s.err = data, nil, false, nil
	// jsontext checks raw bytes and escapes together. Of text in ASCII there are escapes
	// alone; where there are both, End checks the bytes.
	ascii := isASCII(data)
	s.mixed = !ascii && bytes.Contains(data, []byte(`\u`))
	s.buf = *bytes.NewBuffer(data)

	// jsontext reads a bytes.Buffer in place. Duplicate names pass, since they pass
	// through every model server too; the members that promptmill reads are checked
	// by their readers.
	s.dec.Reset(&s.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(ascii || s.mixed))
}

// Enter steps into the value that comes next, which must be an object, and returns
// the offset of its brace.
func (s *Scanner) Enter() int { return s.enterValue('{', NotObject) }

// EnterArray steps into the value that comes next, which must be an array, and returns
// the offset of its bracket. [Scanner.NextElement] walks it.
func (s *Scanner) EnterArray() int { return s.enterValue('[', NotArray) }

func (s *Scanner) enterValue(kind jsontext.Kind, otherwise Fault) int {
	s.open = false
	if s.err != nil {
		return 0
	}

	tok, err := s.dec.ReadToken()
	if err != nil {
		s.setError(err)
		return 0
	}

	if tok.Kind() != kind {
		s.err = &SyntaxError{Fault: otherwise}
	}

	return s.Offset() - 1
}

// Next moves to the next member of the object entered last. At the object's end it
// leaves the object and returns false.
func (s *Scanner) Next() bool {
	if s.open {
		s.Value()
	}

	if s.err != nil {
		return false
	}

	if s.dec.PeekKind() == '}' {
		_, err := s.dec.ReadToken()
		s.setError(err)
		return false
	}

	raw, err := s.dec.ReadValue()
	if err != nil {
		s.setError(err)
		return false
	}

	s.start = s.Offset() - len(raw)
	s.open = true

	if bytes.IndexByte(raw, '\\') < 0 {
		s.name = raw[1 : len(raw)-1]
		return true
	}

	s.name = Text(raw)

	return true
}

// NextElement moves to the next element of the array entered last, which is read as a
// member's value is. At the array's end it leaves the array and returns false.
func (s *Scanner) NextElement() bool {
	if s.open {
		s.Value()
	}

	if s.err != nil {
		return false
	}

	switch s.dec.PeekKind() {
	case ']', '}', 0: // the end, or nothing that could be an element
		_, err := s.dec.ReadToken()
		s.setError(err)
		return false
	}

	s.open = true

	return true
}

// Name is the unquoted name of the current member, valid until the next call.
func (s *Scanner) Name() []byte { return s.name }

// Value is the current member's or element's value as it stands in the input, nil after an error.
func (s *Scanner) Value() []byte {
	s.open = false
	if s.err != nil {
		return nil
	}

	raw, err := s.dec.ReadValue()
	if err != nil {
		s.setError(err)
		return nil
	}

	end := s.Offset()

	return s.data[end-len(raw) : end]
}

// Kind is the kind of the value that comes next: '{', '[', '"', '0', 't', 'f', 'n',
// or 0 if there is none.
func (s *Scanner) Kind() byte { return byte(s.dec.PeekKind()) }

// Member is the current member, name and value, as it stands in the input. It is
// complete once the value was read.
func (s *Scanner) Member() []byte { return s.data[s.start:s.Offset()] }

// Offset is the number of bytes read so far.
func (s *Scanner) Offset() int { return int(s.dec.InputOffset()) }

// End returns the first error of the walk, also when something other than white
// space follows the value.
func (s *Scanner) End() error {
	if s.err != nil {
		return s.err
	}

	if s.mixed && !utf8.Valid(s.data) {
		return &SyntaxError{Fault: NotUTF8, Offset: invalidUTF8(s.data)}
	}

	if rest := bytes.TrimLeft(s.data[s.Offset():], " \t\r\n"); len(rest) > 0 {
		return &SyntaxError{Fault: Trailing, Offset: len(s.data) - len(rest)}
	}

	return nil
}

// isASCII reports whether there are only bytes below 0x80.
func isASCII(data []byte) bool {
	const high = 0x8080808080808080
	for ; len(data) >= 32; data = data[32:] {
		a, b := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[8:])
		c, d := binary.LittleEndian.Uint64(data[16:]), binary.LittleEndian.Uint64(data[24:])
		if (a|b|c|d)&high != 0 {
			return false
		}
	}

	for _, c := range data {
		if c >= 0x80 {
			return false
		}
	}

	return true
}

// invalidUTF8 is the offset of the first byte that is not UTF-8.
func invalidUTF8(data []byte) (offset int) {
	for r, n := utf8.DecodeRune(data); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRune(data[offset:]) {
		offset += n
	}
	return offset
}

// setError keeps the first error, in words for the author of the text.
func (s *Scanner) setError(err error) {
	if err == nil || s.err != nil {
		return
	}

	syntactic, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		s.err = &SyntaxError{Fault: Cut, Offset: len(s.data)}
	case !ok:
		s.err = fmt.Errorf("broken JSON: %w", err)
	case isInvalidUTF8(s.data, int(syntactic.ByteOffset)):
		s.err = &SyntaxError{Fault: NotUTF8, Offset: int(syntactic.ByteOffset)}
	default:
		s.err = &SyntaxError{
			Fault:  Broken,
			Offset: int(syntactic.ByteOffset),
			cause:  syntactic.Err,
		}
	}
}

// isInvalidUTF8 reports whether a byte that is not UTF-8 is at an offset.
func isInvalidUTF8(data []byte, offset int) bool {
	if offset >= len(data) {
		return false
	}
	r, n := utf8.DecodeRune(data[offset:])
	return r == utf8.RuneError && n == 1
}
