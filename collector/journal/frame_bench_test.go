package journal

import (
	"bytes"
	"testing"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// BenchmarkFrame measures the collector's work on a line from the bus, without the journal:
// read it, count it, and describe it in a frame's header.
func BenchmarkFrame(b *testing.B) {
	line := proto.AppendResult(nil, proto.Result{
		Run:      "r",
		CustomID: []byte(`"c-1"`),
		Status:   200,
		Worker:   "w",
		Attempts: 1,
		Latency:  1234567890,
		Body: []byte(`{"choices":[{"message":{"content":"` + string(bytes.Repeat([]byte("word "), 200)) +
			`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":812,"completion_tokens":301,"total_tokens":1113}}`),
	})

	var scan jsonscan.Scanner
	b.SetBytes(int64(len(line)))

	f := &Frame{}
	for i := range b.N {
		info, err := proto.ParseLine(&scan, line)
		if err != nil {
			b.Fatal(err)
		}

		info.LatencyMS, info.CompletionTokens = int64(i%3000), int64(i%700)
		f.Add(uint32(i), line, info)

		if f.IsFull() {
			indexes, _ := f.sortLines()
			if _, err := appendHeader(nil, f.header(indexes)); err != nil {
				b.Fatal(err)
			}
			f = &Frame{}
		}
	}
}
