package usershell

import (
	"io"
	"strings"
)

// maxLine is how much of a line is kept, in bytes.
const maxLine = 4 << 10

// Lines splits what a command prints into lines. It is not safe for concurrent use: os/exec writes from one goroutine
// if standard output and standard error are one writer.
type Lines struct {
	// Print gets each line that is not empty, without white space at its end. At most its first 4 KiB are kept. It may
	// be nil.
	Print func(line string)

	part []byte // of a line that has not ended
	last string
}

var _ io.Writer = (*Lines)(nil)

// Write implements [io.Writer].
func (w *Lines) Write(p []byte) (int, error) {
	for _, b := range p {
		switch {
		case b == '\n':
			w.Flush()
		case len(w.part) < maxLine:
			w.part = append(w.part, b)
		}
	}

	return len(p), nil
}

// Flush ends the last line.
func (w *Lines) Flush() {
	line := strings.TrimRight(strings.ToValidUTF8(string(w.part), "?"), "\r\t ")
	w.part = w.part[:0]
	if line == "" {
		return
	}

	w.last = line
	if w.Print != nil {
		w.Print(line)
	}
}

// Last returns the last line that is not empty.
func (w *Lines) Last() string { return w.last }
