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
	file File
	hash hash.Hash
	buf  *bufio.Writer
}

// newPartFile begins a file.
func newPartFile(cfg Config, path string) (*partFile, error) {
	file, err := cfg.Create(path)
	if err != nil {
		return nil, err
	}

	hash := sha256.New()

	return &partFile{
		file: file,
		hash: hash,
		buf:  bufio.NewWriterSize(io.MultiWriter(file, hash), 256<<10),
	}, nil
}

// Write implements io.Writer.
func (p *partFile) Write(text []byte) (int, error) { return p.buf.Write(text) }

// Commit implements File.
func (p *partFile) Commit(err error) error { return p.file.Commit(err) }

// flush writes the rest of the text.
func (p *partFile) flush() error { return p.buf.Flush() }

// sum returns the SHA-256 of the text, in hexadecimal.
func (p *partFile) sum() string { return hex.EncodeToString(p.hash.Sum(nil)) }
