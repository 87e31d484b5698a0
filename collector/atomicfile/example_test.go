package atomicfile_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/collector/atomicfile"
)

func ExampleCreate() {
	dir, err := os.MkdirTemp("", "atomicfile")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "report.md")

	file, err := atomicfile.Create(path, 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}

	_, writeErr := fmt.Fprintln(file, "# Report")
	_, err = os.Stat(path)
	fmt.Println("before the commit it is missing:", os.IsNotExist(err))

	// Commit removes the file if it was not written whole.
	if err := file.Commit(writeErr); err != nil {
		fmt.Println(err)
		return
	}

	text, err := os.ReadFile(path)
	fmt.Printf("%s%v\n", text, err)

	// Output:
	// before the commit it is missing: true
	// # Report
	// <nil>
}
