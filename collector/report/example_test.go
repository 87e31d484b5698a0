package report_test

import (
	"fmt"
	"strings"

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

	what, why, _ := strings.Cut(r.Answer, "; ")
	fmt.Println(what)
	fmt.Println(why)

	for _, s := range r.Sections[:3] {
		fmt.Println("section:", s.Title)
	}

	// Output:
	// Qwen/Qwen3-8B: 2,445 requests
	// 2,438 of 2,445 requests were answered
	// 7 failed, mostly with context_length (5): This model's maximum context length is 32768 tokens.
	// section: Summary
	// section: Failures
	// section: Wasted work
}
