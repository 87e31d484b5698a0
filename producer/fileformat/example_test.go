package fileformat_test

import (
	"fmt"

	"github.com/promptmill/promptmill/producer/fileformat"
)

func ExampleDetect() {
	found := fileformat.Detect([]byte("id,question\n1,What is a mill?\n2,What is a prompt?\n"), true)
	fmt.Printf("%s with the columns %q; the prompts are in %q\n", found.Format, found.Columns,
		found.Columns[found.Prompt])
	// Output:
	// CSV with the columns ["id" "question"]; the prompts are in "question"
}
