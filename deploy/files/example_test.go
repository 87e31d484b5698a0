package files_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/deploy/files"
)

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "files")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "status.json")
	err = files.Write(path, 0o600, func(w io.Writer) error {
		fmt.Fprintln(w, "half of it")
		return errors.New("the disk is full")
	})
	fmt.Println("failed:", err != nil)
	fmt.Println("there is a file:", files.Exists(path))

	// Output:
	// failed: true
	// there is a file: false
}
