package export_test

import (
	"fmt"

	"github.com/promptmill/promptmill/deploy/export"
)

// A table in several files has their number in each name, so that a file shows to which table it belongs.
func ExamplePaths() {
	for _, path := range export.Paths("out.jsonl.gz", 3) {
		fmt.Println(path)
	}

	table, shards := export.ParsePath("out-00001-of-00003.jsonl.gz")
	fmt.Println(table, shards)

	// Output:
	// out-00000-of-00003.jsonl.gz
	// out-00001-of-00003.jsonl.gz
	// out-00002-of-00003.jsonl.gz
	// out.jsonl.gz 3
}

// The ending of a path decides whether it is a table. Output lines of a run are none.
func ExampleEnding() {
	for _, path := range []string{"out.parquet", "dir/out.csv", "out.jsonl.zst", ".csv"} {
		fmt.Printf("%s %q\n", path, export.Ending(path))
	}

	// Output:
	// out.parquet ".parquet"
	// dir/out.csv ".csv"
	// out.jsonl.zst ""
	// .csv ""
}
