package proto

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A chat answer as vLLM gives it, in a line of 1.6 KB.
func BenchmarkParseLine(b *testing.B) {
	body := fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion","created":1767322800,"model":"m","choices":[{"index":0,`+
		`"message":{"role":"assistant","content":%s,"refusal":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],`+
		`"usage":{"prompt_tokens":120,"total_tokens":420,"completion_tokens":300,"prompt_tokens_details":null},"kv_transfer_params":null}`,
		Quote(strings.Repeat("An answer of some length.\n", 37)))
	line := AppendResult(nil, Result{
		Run: "20260102-030405-abcd", Seq: 12345, CustomID: []byte(`"request-12346"`), Status: 200, Body: []byte(body),
		Worker: "gpu1", Attempts: 1, Queued: 40 * time.Millisecond, Latency: 2 * time.Second,
	})
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var s Scanner
	for b.Loop() {
		if _, err := ParseLine(&s, line); err != nil {
			b.Fatal(err)
		}
	}
}
