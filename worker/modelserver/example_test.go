package modelserver_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// A probe recognizes the server, a post reaches it, and its gauges show how busy it is.
func ExampleServer() {
	vllm := httptest.NewServer(sim.New(sim.Config{Models: []string{"llama-8b"}, Slots: 64}))
	defer vllm.Close()

	server, err := modelserver.New(vllm.URL, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	ctx := context.Background()
	info, err := server.Probe(ctx)
	fmt.Println(info.Flavour, info.DefaultModel(), err)

	answer := server.Post(ctx, "/v1/completions", []byte(`{"model":"llama-8b","prompt":"Hello"}`))
	fmt.Println(answer.Status, answer.Err)

	load, err := server.Load(ctx)
	fmt.Println(load.Running, load.Waiting, err)

	// Output:
	// vLLM llama-8b <nil>
	// 200 <nil>
	// 0 0 <nil>
}

// Secrets in a URL are not shown.
func ExampleRedact() {
	fmt.Println(modelserver.Redact("https://me:secret@gpu.example/v1?api_key=abc"))
	// Output: https://gpu.example/v1?api_key=xxxxx
}
