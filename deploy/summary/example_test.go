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

	err := summary.Err(meta)
	fmt.Println(err)
	fmt.Println("exit code", exit.Code(err))

	// Output:
	// 3 of 100 requests failed
	// exit code 3
}
