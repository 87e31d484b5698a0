package table

import (
	"encoding/binary"
	"errors"
)

// The library allocates what the counts of a footer say before it reads the elements, and its
// decoder recurses as deep as the bytes do. A few hostile bytes could take all memory, or the
// stack. So the structs of a file are measured here first: every length is compared with the
// bytes that are there.

// The types of the compact protocol of Thrift.
const (
	thriftStop   = 0
	thriftTrue   = 1
	thriftFalse  = 2
	thriftInt8   = 3
	thriftInt16  = 4
	thriftInt32  = 5
	thriftInt64  = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
	thriftUUID   = 13
)

// maxThriftDepth is the deepest nesting of a struct that is read. The format's own structs need 8.
const maxThriftDepth = 32

var (
	// errThriftShort is the error of a struct that does not end in the bytes that are there.
	errThriftShort = errors.New("the struct does not end")
	// errThriftInvalid is the error of bytes that are no struct.
	errThriftInvalid = errors.New("the struct is invalid")
)

// measureThriftStruct returns the length of the struct at the start of b.
func measureThriftStruct(b []byte) (int, error) {
	m := thriftMeasure{b: b}
	err := m.skipStruct(0)
	return m.at, err
}

// thriftMeasure is a place in a struct.
type thriftMeasure struct {
	b  []byte
	at int
}

func (m *thriftMeasure) skipStruct(depth int) error {
	if depth > maxThriftDepth {
		return errThriftInvalid
	}

	for {
		head, err := m.readByte()
		if err != nil {
			return err
		}

		if head == thriftStop {
			return nil
		}

		if head>>4 == 0 { // the field's number follows
			if _, err := m.readVarint(); err != nil {
				return err
			}
		}

		if kind := head & 0xf; kind != thriftTrue && kind != thriftFalse {
			if err := m.skipValue(kind, depth); err != nil {
				return err
			}
		}
	}
}

func (m *thriftMeasure) skipValue(kind byte, depth int) error {
	switch kind {
	case thriftTrue, thriftFalse, thriftInt8:
		return m.skipBytes(1)
	case thriftInt16, thriftInt32, thriftInt64:
		_, err := m.readVarint()
		return err
	case thriftDouble:
		return m.skipBytes(8)
	case thriftUUID:
		return m.skipBytes(16)
	case thriftBinary:
		n, err := m.readVarint()
		if err != nil {
			return err
		}
		return m.skipBytes(n)
	case thriftList, thriftSet:
		return m.skipList(depth)
	case thriftMap:
		return m.skipMap(depth)
	case thriftStruct:
		return m.skipStruct(depth + 1)
	}

	return errThriftInvalid
}

func (m *thriftMeasure) skipList(depth int) error {
	head, err := m.readByte()
	if err != nil {
		return err
	}

	n := uint64(head >> 4)
	if n == 15 {
		if n, err = m.readVarint(); err != nil {
			return err
		}
	}

	if n > uint64(len(m.b)-m.at) { // an element has a byte at least
		return errThriftShort
	}

	for range n {
		if depth > maxThriftDepth {
			return errThriftInvalid
		}
		if err := m.skipValue(head&0xf, depth+1); err != nil {
			return err
		}
	}

	return nil
}

func (m *thriftMeasure) skipMap(depth int) error {
	n, err := m.readVarint()
	if err != nil || n == 0 {
		return err
	}

	kinds, err := m.readByte()
	if err != nil {
		return err
	}

	if n > uint64(len(m.b)-m.at) {
		return errThriftShort
	}

	for range n {
		if depth > maxThriftDepth {
			return errThriftInvalid
		}

		if err := m.skipValue(kinds>>4, depth+1); err != nil {
			return err
		}

		if err := m.skipValue(kinds&0xf, depth+1); err != nil {
			return err
		}
	}

	return nil
}

func (m *thriftMeasure) skipBytes(n uint64) error {
	if n > uint64(len(m.b)-m.at) {
		return errThriftShort
	}

	m.at += int(n)

	return nil
}

func (m *thriftMeasure) readByte() (byte, error) {
	if m.at == len(m.b) {
		return 0, errThriftShort
	}

	m.at++

	return m.b[m.at-1], nil
}

func (m *thriftMeasure) readVarint() (uint64, error) {
	v, n := binary.Uvarint(m.b[m.at:])
	switch {
	case n == 0:
		return 0, errThriftShort
	case n < 0:
		return 0, errThriftInvalid
	}

	m.at += n

	return v, nil
}
