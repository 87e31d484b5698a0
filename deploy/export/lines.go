package export

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonl"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// lineSource returns the output lines of a run in the order of its requests, each valid until the next
// call, and [io.EOF] at the end.
type lineSource interface {
	next() (outputLine, error)
	close()
}

// lineFile reads one file of output lines.
type lineFile struct {
	path  string
	file  io.Closer
	lines *jsonl.Reader
	scan  jsonscan.Scanner
	// line is the latest line and text its text; ok reports that there is one.
	line outputLine
	text []byte
	ok   bool
}

// openLineFile opens a file. It is nil if there is none.
func openLineFile(path string) (*lineFile, error) {
	file, err := jsonl.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	return &lineFile{
		path:  path,
		file:  file,
		lines: jsonl.NewReader(file),
	}, nil
}

// advance reads the next line. At the end ok is false.
func (f *lineFile) advance() (err error) {
	f.text, err = f.lines.Next()
	if f.ok = err == nil; errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s, line %d: %w", files.Short(f.path), f.lines.Line()+1, err)
	}

	f.line, err = parseLine(&f.scan, f.text)
	if err != nil {
		return fmt.Errorf("read %s, line %d: %w", files.Short(f.path), f.lines.Line(), err)
	}

	return nil
}

// errNoIndex is the error of an output line that does not say which request it answers.
var errNoIndex = errors.New("the line does not say which request it answers; was the output written with --plain?")

// parseLine reads an output line.
func parseLine(s *jsonscan.Scanner, text []byte) (l outputLine, err error) {
	if l.Line, l.body, l.failure, err = proto.ParseLineBody(s, text); err != nil {
		return l, err
	}

	if l.Index < 0 {
		return l, errNoIndex
	}

	return l, nil
}

// mergedLines are the lines of files that each have theirs in order.
type mergedLines struct {
	files []*lineFile
	// latest is the file of the latest line. Nil: there is none.
	latest *lineFile
}

// openLineFiles opens the files of an output.
func openLineFiles(out output.Prefix) (*mergedLines, error) {
	m := &mergedLines{}
	for _, path := range []string{out.Results(), out.Errors()} {
		f, err := openLineFile(path)
		if f != nil {
			m.files = append(m.files, f)
			err = f.advance()
		}
		if err != nil {
			m.close()
			return nil, err
		}
	}

	return m, nil
}

// next implements lineSource.
func (m *mergedLines) next() (outputLine, error) {
	if m.latest != nil {
		if err := m.latest.advance(); err != nil {
			return outputLine{}, err
		}
	}

	m.latest = nil
	for _, f := range m.files {
		if f.ok && (m.latest == nil || f.line.Index < m.latest.line.Index) {
			m.latest = f
		}
	}

	if m.latest == nil {
		return outputLine{}, io.EOF
	}

	return m.latest.line, nil
}

// close implements lineSource.
func (m *mergedLines) close() {
	for _, f := range m.files {
		f.file.Close()
	}
}
