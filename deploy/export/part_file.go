package export

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
)

// partFile is a file of a table that is being written. Its SHA-256 is computed on the way.
type partFile struct {
	path string
	// rows is the number of rows that it gets.
	rows int
	file File
	// sum is the SHA-256 of the text, in hexadecimal, when the file is written.
	sum string

	hash hash.Hash
	buf  *bufio.Writer
}

// newPartFile begins a file.
func newPartFile(cfg Config, path string, rows int) (*partFile, error) {
	file, err := cfg.Create(path)
	if err != nil {
		return nil, err
	}

	hash := sha256.New()

	return &partFile{
		path: path,
		rows: rows,
		file: file,
		hash: hash,
		buf:  bufio.NewWriterSize(io.MultiWriter(file, hash), 256<<10),
	}, nil
}

// Write implements io.Writer.
func (p *partFile) Write(text []byte) (int, error) { return p.buf.Write(text) }

// finish writes the rest of the text if err, the error of writing the rows, is nil. It returns err or its own error.
func (p *partFile) finish(err error) error {
	if err == nil {
		err = p.buf.Flush()
	}

	p.sum = hex.EncodeToString(p.hash.Sum(nil))
	p.hash, p.buf = nil, nil // many files wait until all are whole

	return err
}
