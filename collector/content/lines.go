package content

import (
	"bytes"
	"context"
	"io"
	"os"
)

// countLines returns the number of lines of a complete output, or -1 if it cannot be read.
func (c *Content) countLines() int64 {
	if n, ok := c.knownLines(); ok {
		return n
	}

	var n lineCounter
	if err := c.CopyRange(context.Background(), &n, 0, c.Size()); err != nil {
		return -1
	}

	return int64(n)
}

// knownLines returns the number of lines that the metadata has, if the metadata was written
// for these files: it has their size.
func (c *Content) knownLines() (n int64, ok bool) {
	meta, err := c.cfg.Output.ReadMeta()
	if err != nil {
		return 0, false
	}

	files := []string{c.cfg.Output.Results()}
	if meta.Results.FailureCount > 0 {
		files = append(files, c.cfg.Output.Errors())
	}

	own, err := c.file.Stat()
	if err != nil {
		return 0, false
	}

	size, found := int64(0), false
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return 0, false
		}

		size += info.Size()
		found = found || os.SameFile(info, own)
	}

	if !found || size != meta.Results.OutputBytes {
		return 0, false
	}

	if c.cfg.Kind == Failures {
		return int64(meta.Results.FailureCount), true
	}

	return int64(meta.Results.SuccessCount), true
}

// lineCounter counts the lines that are written to it.
type lineCounter int64

var _ io.Writer = (*lineCounter)(nil)

func (n *lineCounter) Write(p []byte) (int, error) {
	*n += lineCounter(bytes.Count(p, []byte{'\n'}))
	return len(p), nil
}
