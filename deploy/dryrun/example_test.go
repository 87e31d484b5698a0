package dryrun_test

import (
	"fmt"
	"os"

	"github.com/promptmill/promptmill/deploy/dryrun"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

func ExamplePreview_Print() {
	p := &dryrun.Preview{Files: []string{"tickets.csv"}, Rows: 1}
	p.Add(producer.Item{
		Request: proto.Request{
			CustomID: []byte(`"request-1"`),
			URL:      "/v1/completions",
			Body:     []byte(`{"model":"m","prompt":"Classify: it is late"}`),
		},
		Model: "m",
		File:  "tickets.csv",
		Line:  1,
	})

	p.Finish()

	err := p.Print(os.Stdout, dryrun.PrintOptions{Unit: "row", ShortName: func(path string) string { return path }})
	if err != nil {
		fmt.Println(err)
	}

	// Output:
	// request-1, row 1 of tickets.csv, 20 characters:
	// POST /v1/completions
	// {
	//   "model": "m",
	//   "prompt": "Classify: it is late"
	// }
	//
	// input     tickets.csv
	// requests  1 request of 1 row
	// models    m (1)
	// prompts   20 to 20 characters, 20 on average, 20 in all
	//   20-49  1  ########################################
}
