package producer

import (
	"errors"
	"fmt"
	"io"

	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// FormatError is the error of an input file that is not JSON lines: all of it is something
// else, such as CSV.
type FormatError struct {
	// File is the path of the file, as given.
	File string
	// Compression is "gzip" or "zstd" if the file is compressed, and empty if it is not. The format
	// describes the unpacked text.
	Compression string
	fileformat.Detection
}

// Error implements error.
func (e *FormatError) Error() string {
	of := ""
	if e.Run != "" {
		of = " of run " + e.Run
	}

	if e.Transposed {
		return e.File + " is one JSON document with all rows of a table; promptmill reads an object of each row"
	}

	switch e.Format {
	case fileformat.Gzip, fileformat.Zstd:
		return fmt.Sprintf("%s is compressed twice: %s in %s", e.File, e.Format, e.Compression)
	case fileformat.Results:
		return fmt.Sprintf("%s has answers%s, not requests", e.File, of)
	case fileformat.Failures:
		return fmt.Sprintf("%s has the failed requests%s, as output lines without their bodies", e.File, of)
	case fileformat.Metadata:
		return fmt.Sprintf("%s is the metadata%s, and has no requests", e.File, of)
	}

	return fmt.Sprintf("%s looks like %s, not JSONL with one request a line", e.File, e.Format)
}

// checkFormat returns a [FormatError] if the file that was just opened has another format than JSON
// lines. Where its beginning leaves that open, it is read until a request shows up.
func (r *Reader) checkFormat(path string) error {
	found := fileformat.Detect(r.lines.Peek())
	if found.Format == fileformat.JSONL {
		return nil
	}

	if !found.Certain {
		if ok, err := r.hasRequest(); ok || err != nil {
			return err
		}
	}

	compression, err := inputfile.Compression(r.ctx, r.source.opener(), r.source.file(r.at.File))
	if err != nil {
		return err
	}

	return &FormatError{
		File:        path,
		Compression: compression,
		Detection:   found,
	}
}

// maxSearched is the number of bytes of a file in which a request is looked for.
const maxSearched = 1 << 30

// hasRequest reports whether one of the first [MaxBad] lines of the current file is an object that
// looks like a request, good or not.
func (r *Reader) hasRequest() (bool, error) {
	file, err := inputfile.OpenText(r.ctx, r.source.opener(), r.source.file(r.at.File), 0)
	if err != nil {
		return false, err
	}
	defer file.Close()

	lines := jsonl.NewReader(io.LimitReader(file, maxSearched))
	for range MaxBad {
		line, err := lines.Next()
		switch {
		case errors.Is(err, jsonl.ErrLineTooLong):
			continue
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		case r.parser.looksLikeRequest(line):
			return true, nil
		}
	}

	return false, nil
}
