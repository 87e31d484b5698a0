package progress_test

import (
	"fmt"

	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
)

func ExampleMissingModels() {
	run := proto.Manifest{Input: proto.Input{Models: map[string]int{"qwen3-4b": 900, "gemma-3": 100}}}
	workers := []proto.WorkerInfo{
		{Name: "gpu1", Ready: true, Models: []string{"qwen3-4b"}},
		{Name: "gpu2", Ready: false, Models: []string{"gemma-3"}},
	}

	missing, served := progress.MissingModels(run, workers)
	fmt.Println("missing:", missing)
	fmt.Println("served:", served)

	// Output:
	// missing: [gemma-3]
	// served: [qwen3-4b]
}
