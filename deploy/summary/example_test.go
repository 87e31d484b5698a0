package summary_test

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/summary"
)

func ExampleErr() {
	meta := &metadata.Run{}
	meta.Test.NumRequests = 100
	meta.Test.ErrorFile = new("answers.errors.jsonl.zst")
	meta.Results.SuccessCount, meta.Results.FailureCount = 97, 3

	err := summary.Err(meta, "out.errors.jsonl.zst", nil, "the same command with --retry")
	fmt.Println(err)
	fmt.Println("hint:", exit.Hint(err))
	fmt.Println("exit code", exit.Code(err))

	// Output:
	// 3 of 100 requests failed
	// hint: the same command with --retry runs them again; zstd -dc out.errors.jsonl.zst shows each
	// exit code 3
}
