package output

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// ErrModified is returned for an output that is not as its run has written it.
var ErrModified = errors.New("not as it was written")

// CheckFiles compares the files of a complete output with the checksums in its metadata. It
// returns an error that wraps [ErrModified] and names the first file that is gone, was
// changed or is another run's.
func (p Prefix) CheckFiles(meta *metadata.Run) error {
	if err := checkFile(p.Results(), meta.Test.OutputSHA256); err != nil {
		return err
	}

	if meta.Results.FailureCount > 0 {
		return checkFile(p.Errors(), meta.Test.ErrorSHA256)
	}

	if _, err := os.Stat(p.Errors()); err == nil {
		return fmt.Errorf("%s is there, though no request failed: %w", p.Errors(), ErrModified)
	}

	return nil
}

// ReadMeta reads the metadata of a run of this version of promptmill, which has a manifest. The
// error wraps [proto.ErrFormat] if another program or version wrote the file.
func (p Prefix) ReadMeta() (*metadata.Run, error) {
	meta, err := metadata.Read(p.Meta())
	if err != nil {
		return nil, fmt.Errorf("read metadata: %w", err)
	}

	if meta.Manifest == nil {
		return nil, fmt.Errorf("read metadata %s: %w: another program wrote it", p.Meta(), proto.ErrFormat)
	}

	if err := proto.CheckSchema(meta.Manifest.Schema); err != nil {
		return nil, fmt.Errorf("read metadata %s: %w", p.Meta(), err)
	}

	return meta, nil
}

// checkFile compares a file with the SHA-256 that it had.
func checkFile(path, want string) error {
	got, _, err := HashFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is gone: %w", path, ErrModified)
	case err != nil:
		return err
	case got != want:
		return fmt.Errorf("%s is %w: its SHA-256 began with %.12s, and begins with %.12s now",
			path, ErrModified, want, got)
	}

	return nil
}

// HashFile returns the SHA-256 of a file, in hexadecimal, and the file's size in bytes.
func HashFile(path string) (sum string, size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer file.Close()

	hash := sha256.New()
	if size, err = io.Copy(hash, file); err != nil {
		return "", 0, fmt.Errorf("read %s: %w", path, err)
	}

	return hex.EncodeToString(hash.Sum(nil)), size, nil
}
