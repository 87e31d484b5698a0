package jsonl_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"strings"

	"github.com/promptmill/promptmill/proto/jsonl"
)

func ExampleReader() {
	r := jsonl.NewReader(strings.NewReader("{\"a\":1}\r\n\n{\"a\":2}\n"))
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}

		fmt.Printf("line %d: %s\n", r.Line(), line)
	}
	// Output:
	// line 1: {"a":1}
	// line 3: {"a":2}
}
