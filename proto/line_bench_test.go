package proto

import (
	"fmt"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"strings"
	"testing"
	"time"
)

// chatLine is the line of a request, 1.6 KB, with a chat answer in the form of vLLM.
func chatLine(run string, index uint32) []byte {
	body := fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion","created":1767322800,"model":"m","choices":[{"index":0,`+
		`"message":{"role":"assistant","content":%s,"refusal":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],`+
		`"usage":{"prompt_tokens":120,"total_tokens":420,"completion_tokens":300,"prompt_tokens_details":null},"kv_transfer_params":null}`,
		jsonscan.Quote(strings.Repeat("An answer of some length.\n", 37)))

	return AppendResult(nil, Result{
		Run: run, Index: index, CustomID: []byte(`"request-12346"`), Status: 200, Body: []byte(body),
		Worker: "gpu1", Attempts: 1, Queued: 40 * time.Millisecond, Latency: 2 * time.Second,
	})
}

func BenchmarkParseLine(b *testing.B) {
	line := chatLine("20260102-030405-abcd", 12345)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()

	var s jsonscan.Scanner
	for b.Loop() {
		if _, err := ParseLine(&s, line); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBatchLine is the same with all checks of a message of one line.
func BenchmarkBatchLine(b *testing.B) {
	const run, index = "20260102-030405-abcd", 12345
	line := chatLine(run, index)
	msg := EncodeResults(run, "0-1", []uint32{index}, line)
	bounds := Bounds{Run: run, Requests: 20_000}
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()

	var s jsonscan.Scanner
	for b.Loop() {
		batch, err := bounds.ParseBatch(msg.Subject, msg.Header)
		if err != nil {
			b.Fatal(err)
		}

		if _, err := batch.ParseLine(&s, 0, line); err != nil {
			b.Fatal(err)
		}
	}
}
