package verify_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/verify"
)

// One of two requests has its line, in plain text here instead of zstd.
func ExampleRun() {
	dir, err := os.MkdirTemp("", "promptmill-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	input, out := filepath.Join(dir, "in.jsonl"), output.Prefix(filepath.Join(dir, "out"))
	os.WriteFile(input, []byte(`{"custom_id":"a","prompt":"1"}
{"custom_id":"b","prompt":"2"}
`), 0o600)

	os.WriteFile(out.Results(), []byte(`{"id":"x","custom_id":"a","response":{"status_code":200,"request_id":"r","body":{}},"error":null}
`), 0o600)

	result, err := verify.Run(context.Background(), verify.Config{Inputs: []string{input}, Output: out})
	if err != nil {
		fmt.Println(err)
		return
	}

	result.Print(os.Stdout)
	fmt.Println("error:", result.Err())
	// Output:
	// 2 requests: 1 answered, 0 failed, 1 without a line, 0 lines too many, 0 lines of no request
	//   no line for "b"
	// error: the output is not complete: 1 request has no line
}
