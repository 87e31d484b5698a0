package content_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/collector/content"
	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A client reads answers while the run works, and the rest of them when it is complete.
func Example() {
	dir, err := os.MkdirTemp("", "promptmill-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	out := output.Prefix(filepath.Join(dir, "run"))

	j, err := journal.Create(out.Journal(), fixture.Manifest(2))
	if err != nil {
		log.Fatal(err)
	}
	defer j.Close()

	appendAnswer(j, 0)

	offset := printFrom(content.Config{Output: out, Done: 1}, 0)

	appendAnswer(j, 1)
	if err := j.Rewrite(context.Background(), out, output.Format{}); err != nil {
		log.Fatal(err)
	}
	if err := j.Remove(); err != nil {
		log.Fatal(err)
	}

	printFrom(content.Config{Output: out}, offset)

	// Output:
	// complete: false, lines: 1
	// c-0: {"answer":0}
	// complete: true, lines: 2
	// c-1: {"answer":1}
}

// printFrom prints the text of a run from an offset on, and returns where it ends.
func printFrom(cfg content.Config, offset int64) int64 {
	c, err := content.Open(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	fmt.Printf("complete: %t, lines: %d\n", c.Complete(), c.Lines())

	var text bytes.Buffer
	if err := c.CopyRange(context.Background(), &text, offset, c.Size()-offset); err != nil {
		log.Fatal(err)
	}

	for line := range bytes.Lines(text.Bytes()) {
		var answer struct {
			CustomID string `json:"custom_id"`
			Response struct {
				Body json.RawMessage `json:"body"`
			} `json:"response"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			log.Fatal(err)
		}

		fmt.Printf("%s: %s\n", answer.CustomID, answer.Response.Body)
	}

	return c.Size()
}

// appendAnswer appends the answer to a request to a journal.
func appendAnswer(j *journal.Journal, index uint32) {
	line := proto.AppendResult(nil, proto.Result{
		Run:      "r",
		Index:    index,
		CustomID: fixture.CustomID(index),
		Status:   200,
		Worker:   "w",
		Attempts: 1,
		Body:     fmt.Appendf(nil, `{"answer":%d}`, index),
	})

	info, err := proto.ParseLine(new(jsonscan.Scanner), line)
	if err != nil {
		log.Fatal(err)
	}

	var f journal.Frame
	f.Add(index, line, info)

	if err := j.Append(&f); err != nil {
		log.Fatal(err)
	}
}
