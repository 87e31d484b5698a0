package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// The part of the log that the error of a server that did not start quotes.
const (
	maxTailLines = 20
	maxTailBytes = 4 << 10
)

// logFile is the server's log, open for one start.
//
// Its lines are read from the file as it grows, not through a pipe: a pipe would pass each line
// through this process for as long as the server lives, would stall the server when this
// process stalls, and would lose the log of the server after this process has died.
type logFile struct {
	*os.File

	// mu guards the fields below, and the file against being cut while it is read.
	mu    sync.Mutex
	begin int64 // offset of this start
	read  int64 // offset up to which readNewLines has read
}

// openLog opens the log and writes a line with time and command.
func openLog(path, command string, limit int64) (*logFile, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > limit {
		if err := os.Rename(path, asideName(path)); err != nil {
			return nil, fmt.Errorf("rename the full log of the model server: %w", err)
		}
	}

	// For the user alone: the command may hold a key, and servers log prompts.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of the model server: %w", err)
	}

	head := fmt.Sprintf("promptmill: %s: %s\n", time.Now().Format(time.RFC3339), strings.ReplaceAll(command, "\n", " "))
	if !endsWithNewline(file) { // the last start was killed as it wrote
		head = "\n" + head
	}

	file.WriteString(head) // a full disk does not keep the server from running

	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open the log of the model server: %w", err)
	}

	return &logFile{File: file, begin: info.Size(), read: info.Size()}, nil
}

// asideName is the name of the part of a log that is put aside.
func asideName(path string) string { return path + ".1" }

// putAside moves the last bytes of a log that is larger than a limit, as many as the limit, into the file aside, and
// empties the log. The server goes on writing at its new end; a line that it writes just then is lost. A full disk
// loses the old bytes, too: it is worse than a short log.
func (l *logFile) putAside(limit int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()

	info, err := l.Stat()
	if err != nil || info.Size() <= limit {
		return err
	}

	last := io.NewSectionReader(l.File, info.Size()-limit, limit)
	aside, err := os.OpenFile(asideName(l.Name()), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = io.Copy(aside, last)
		err = errors.Join(err, aside.Close())
	}

	l.begin, l.read = 0, 0

	return errors.Join(err, l.Truncate(0))
}

// endsWithNewline reports whether the log is empty or ends with a whole line.
func endsWithNewline(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return true
	}
	last := []byte{'\n'}
	file.ReadAt(last, info.Size()-1)
	return last[0] == '\n'
}

// maxRead is the most that readNewLines reads at once: a server that writes much is not to look as if it loaded for as
// long as that takes to read.
const maxRead = 1 << 20

// readNewLines calls line with each whole line that was written since the last call, up to maxRead bytes. The states
// of a progress bar, which end with a carriage return, count as lines. A line longer than 64
// KiB comes in parts.
func (l *logFile) readNewLines(line func([]byte)) {
	buf := make([]byte, 64<<10)
	for range maxRead / len(buf) {
		lines := l.readWholeLines(buf)
		if len(lines) == 0 {
			return
		}

		for part := range bytes.FieldsFuncSeq(lines, func(r rune) bool { return r == '\r' || r == '\n' }) {
			line(part)
		}
	}
}

// readWholeLines reads the next lines into a buffer, or as much of one as it holds.
func (l *logFile) readWholeLines(buf []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()

	n, _ := l.ReadAt(buf, l.read)
	end := bytes.LastIndexAny(buf[:n], "\r\n") + 1
	if end == 0 && n == len(buf) {
		end = n
	}

	l.read += int64(end)

	return buf[:end]
}

// tailLines returns the last lines of this start, fit for a terminal.
func (l *logFile) tailLines() string {
	l.mu.Lock()
	defer l.mu.Unlock()

	info, err := l.Stat()
	if err != nil {
		return ""
	}

	from := max(l.begin, info.Size()-maxTailBytes)
	buf := make([]byte, max(0, info.Size()-from))
	n, _ := l.ReadAt(buf, from)
	text := strings.TrimRight(strings.ToValidUTF8(string(buf[:n]), ""), "\r\n")
	lines := strings.Split(text, "\n")
	if from > l.begin && len(lines) > 1 {
		lines = lines[1:] // cut
	}

	lines = lines[max(0, len(lines)-maxTailLines):]
	for i, line := range lines { // of a progress bar only the state that a terminal would show
		line = strings.TrimRight(line, "\r")
		lines[i] = line[strings.LastIndexByte(line, '\r')+1:]
	}

	return strings.Join(lines, "\n")
}
