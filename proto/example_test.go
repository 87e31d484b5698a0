package proto_test

import (
	"fmt"
	"log"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// A worker writes the line of a result, and a collector reads it.
func ExampleAppendResult() {
	request := proto.Request{
		Index:    7,
		CustomID: []byte(`"greeting"`),
		URL:      "/v1/completions",
		Body:     []byte(`{"model":"m","prompt":"Say hello."}`),
	}

	line := proto.AppendResult(nil, proto.Result{
		Run:         "20260102-030405-abcd",
		Index:       request.Index,
		CustomID:    request.CustomID,
		RequestHash: request.Hash(),
		Status:      200,
		Body: []byte(
			`{"choices":[{"text":"Hello.","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`,
		),
		Worker:   "gpu1",
		Attempts: 1,
		Latency:  1200 * time.Millisecond,
	})

	var scan jsonscan.Scanner

	l, err := proto.ParseLine(&scan, line)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Printf("%s: %d, %s after %d ms, %d tokens\n", l.CustomID, l.Status, l.Finish, l.LatencyMS, l.CompletionTokens)
	fmt.Printf("%s", proto.StripExtras(line))
	// Output:
	// "greeting": 200, stop after 1200 ms, 2 tokens
	// {"id":"batch_req_20260102-030405-abcd_7","custom_id":"greeting","response":{"status_code":200,"request_id":"req_20260102-030405-abcd_7","body":{"choices":[{"text":"Hello.","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}},"error":null}
}

// A producer publishes a shard, and a worker reads it.
func ExampleEncodeShard() {
	msg := proto.EncodeShard("r", "meta/llama", proto.Shard{
		ID: proto.ShardID(0, 12),
		Requests: []proto.Request{
			{Index: 384, CustomID: []byte(`"a"`), URL: "/v1/completions", Body: []byte(`{"prompt":"1"}`)},
			{Index: 385, CustomID: []byte(`"b"`), URL: "/v1/completions", Body: []byte(`{"prompt":"2"}`)},
		},
	})

	fmt.Println(msg.Subject, msg.Header.Get(proto.HeaderIndexes))

	bounds := proto.Bounds{Run: "r", Requests: 1000}

	shard, err := bounds.ParseShard("meta/llama", msg.Subject, msg.Header, msg.Data)
	if err != nil {
		log.Fatal(err)
	}

	for _, r := range shard.Requests {
		fmt.Printf("%d %s %s\n", r.Index, r.CustomID, r.Body)
	}
	// Output:
	// pm.r.work.meta-llama-257812d0e1.0-12 384-385
	// 384 "a" {"prompt":"1"}
	// 385 "b" {"prompt":"2"}
}
