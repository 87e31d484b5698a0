package report_test

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/report"
)

func ExampleBuild() {
	run, err := metadata.Read("../metadata/testdata/rich.meta.json")
	if err != nil {
		fmt.Println(err)
		return
	}

	r := report.Build(run, report.Options{Estimates: []int{200_000}})
	fmt.Println(r.Title)

	for _, c := range r.Conclusions[:1] {
		fmt.Printf("%s: %s\n", c.Rule, c.Text)
	}

	for _, s := range r.Sections[:3] {
		fmt.Println("section:", s.Title)
	}

	// Output:
	// Qwen/Qwen3-8B: 2,445 requests
	// success: 7 of 2,445 requests failed (0.3%), most often of context_length (5).
	// section: Summary
	// section: Over time
	// section: Benchmark result
}
