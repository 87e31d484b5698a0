package sample

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"slices"
)

// lineStore keeps lines in a temporary file, which has no name any more where the system permits that: then a process
// that is killed leaves nothing behind.
type lineStore struct {
	folder string
	file   *os.File
	to     *bufio.Writer
	// size is the number of bytes that were added.
	size int64
	buf  []byte
}

// garbage is the least part of the file, in bytes, for which it is written again. It must also be half of the file.
const garbage = 64 << 20

// newLineStore makes the file in a folder; empty: in that of the system.
func newLineStore(folder string) (*lineStore, error) {
	s := &lineStore{folder: folder}

	var err error
	if s.file, err = os.CreateTemp(folder, ".promptmill-sample-*"); err != nil {
		return nil, fmt.Errorf("keep the sample: %w", err)
	}

	os.Remove(s.file.Name()) // close does it where an open file must keep its name
	s.to = bufio.NewWriterSize(s.file, 1<<20)

	return s, nil
}

// close closes and removes the file.
func (s *lineStore) close() {
	s.file.Close()
	os.Remove(s.file.Name())
}

// add adds a line with its expected answer, and returns their place.
func (s *lineStore) add(line, answer []byte) (at int64, err error) {
	at = s.size

	for _, text := range [][]byte{line, answer} {
		n, err := s.to.Write(text)
		s.size += int64(n)
		if err != nil {
			return 0, fmt.Errorf("keep the sample: %w", err)
		}
	}

	return at, nil
}

// read returns the line and the expected answer of a candidate. They are valid until the next call.
func (s *lineStore) read(c candidate) (line, answer []byte, err error) {
	if err := s.to.Flush(); err != nil {
		return nil, nil, fmt.Errorf("keep the sample: %w", err)
	}

	s.buf = slices.Grow(s.buf[:0], int(c.bytes()))[:c.bytes()]
	if _, err := s.file.ReadAt(s.buf, c.at); err != nil {
		return nil, nil, fmt.Errorf("read the sample again: %w", err)
	}

	return s.buf[:c.line], s.buf[c.line:], nil
}

// compact moves the candidates into another file and changes their places, if that frees much room.
func (s *lineStore) compact(live []candidate) error {
	var kept int64
	for _, c := range live {
		kept += c.bytes()
	}

	if s.size-kept < max(garbage, kept) {
		return nil
	}

	moved, err := newLineStore(s.folder)
	if err != nil {
		return err
	}

	slices.SortFunc(live, func(a, b candidate) int { return cmp.Compare(a.at, b.at) }) // the order on the disk

	for i, c := range live {
		line, answer, err := s.read(c)
		if err == nil {
			live[i].at, err = moved.add(line, answer)
		}
		if err != nil {
			moved.close()
			return err
		}
	}

	s.close()
	*s = *moved

	return nil
}
