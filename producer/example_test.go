package producer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// writeInput writes a file of requests, and returns its path.
func writeInput(lines string) string {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}

	path := filepath.Join(dir, "prompts.jsonl")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		log.Fatal(err)
	}

	return path
}

const input = `{"custom_id":"a","prompt":"Say hello."}
{"custom_id":"b","prompt":"Say goodbye."}
{"custom_id":"b","prompt":"Say it again."}
`

func ExampleValidate() {
	path := writeInput(input)
	defer os.RemoveAll(filepath.Dir(path))

	settings := proto.Settings{Model: "llama3"} // of lines that name no model

	in, report, err := producer.Validate(context.Background(), producer.Source{Files: []string{path}}, settings, nil)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(in.Requests, "requests,", in.Invalid, "invalid")
	for _, reason := range report.Reasons {
		first := reason.Examples[0]
		fmt.Printf("%d line %s: first line %d, %s\n",
			reason.Count, reason.Text(reason.Count), first.Line, first.CustomID)
	}
	// Output:
	// 3 requests, 1 invalid
	// 1 line has the custom_id of an earlier line: first line 3, b
}

func ExampleReader() {
	path := writeInput(input)
	defer os.RemoveAll(filepath.Dir(path))

	source := producer.Source{Files: []string{path}}
	r, err := producer.NewReader(context.Background(), source, proto.Settings{Model: "llama3"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}

		fmt.Printf("%d %s %s %s\n", item.Index, item.CustomID, item.URL, item.Body)
	}
	// Output:
	// 0 "a" /v1/completions {"model":"llama3","prompt":"Say hello."}
	// 1 "b" /v1/completions {"model":"llama3","prompt":"Say goodbye."}
	// 2 "b" /v1/completions {"model":"llama3","prompt":"Say it again."}
}
