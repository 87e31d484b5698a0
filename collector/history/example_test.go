package history_test

import (
	"fmt"
	"os"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/metadata"
)

func Example() {
	state, err := os.MkdirTemp("", "history")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(state)

	run := &metadata.Run{TestID: "20261128-120000-a1b2", Model: "qwen3-4b"}
	run.Test.NumRequests = 5000
	if err := history.Append(state, history.Of("out.meta.json", run)); err != nil {
		fmt.Println(err)
		return
	}

	entries, err := history.Load(state)
	if err != nil {
		fmt.Println(err)
		return
	}

	for _, e := range entries {
		fmt.Println(e.TestID, e.Model, e.NumRequests)
	}

	// Output:
	// 20261128-120000-a1b2 qwen3-4b 5000
}
