package content

import (
	"errors"
	"fmt"
	"io"
	"os"
)

var (
	// errNoSize reports a file that is not as a collector writes it.
	errNoSize = errors.New("it is no zstd file that states the size of its text")

	// errShort reports a text that is not as long as its file says.
	errShort = errors.New("the text has another size than the file says")

	// errCutOff reports a file that ends too early.
	errCutOff = errors.New("the file is cut off")
)

// corruption returns the error for a complete output that cannot be read at an offset of its
// text.
func corruption(path string, offset int64, err error) error {
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("read output: %w", err) // of the disk
	}

	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errCutOff
	}

	return &CorruptionError{path, offset, err}
}
