package table_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/producer/table"
)

// The contents of a file decide its format: here semicolons stand between the fields, and the first
// column has no name.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	path := filepath.Join(dir, "tickets")
	text := ";name;text\n0;Ann;\"It is \"\"broken\"\";\nagain\"\n1;Bo;\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	file, err := inputfile.Local{}.Stat(ctx, path)
	if err != nil {
		fmt.Println(err)
		return
	}

	r, err := table.Open(ctx, table.Config{Opener: inputfile.Local{}, File: file})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()

	fmt.Println("format:", r.Format())

	for {
		row, err := r.Next()
		if err != nil {
			fmt.Println(err)
			return
		}

		fmt.Printf("row %d, line %d:", row.Number, row.Line)
		for i, value := range row.Values {
			fmt.Printf(" %s=%s", row.Columns[i].Name, value.AppendJSON(nil))
		}
		fmt.Println()
	}
	// Output:
	// format: csv
	// row 1, line 2: column_1="0" name="Ann" text="It is \"broken\";\nagain"
	// row 2, line 4: column_1="1" name="Bo" text=null
	// EOF
}
