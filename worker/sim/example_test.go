package sim_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/promptmill/promptmill/worker/sim"
)

// A simulated Ollama answers on a URL.
func ExampleServer() {
	server := httptest.NewServer(sim.New(sim.Config{
		Flavour: sim.Ollama,
		Models:  []string{"llama3.2:latest"},
		Tokens:  4,
		Seed:    1,
	}))
	defer server.Close()

	res, err := http.Post(server.URL+"/v1/completions", "application/json",
		strings.NewReader(`{"model":"llama3.2","prompt":"Hello","max_tokens":2}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()

	body, err := io.ReadAll(res.Body)
	fmt.Println(res.StatusCode, strings.Contains(string(body), `"finish_reason":"length"`), err)
	// Output: 200 true <nil>
}

// An engine takes its time for a request: here none, since it has no latency.
func ExampleEngine() {
	engine := sim.NewEngine(sim.EngineConfig{Slots: 8})
	err := engine.Run(context.Background(), 100, 20)

	load := engine.Load()
	fmt.Println(load.PromptTokens, load.Tokens, err)
	// Output: 100 20 <nil>
}

// Faults have names and probabilities.
func ExampleParseFaults() {
	faults, err := sim.ParseFaults("429=0.05,reset=0.01")
	fmt.Println(faults["429"], faults["reset"], err)

	_, err = sim.ParseFaults("fire=0.5")
	fmt.Println(err != nil)
	// Output:
	// 0.05 0.01 <nil>
	// true
}

// A gate lets a number of requests in at once.
func ExampleGate() {
	var gate sim.Gate
	gate.Limit(0, 0, 1)
	fmt.Println(gate.Enter(), gate.Enter())
	gate.Leave()
	fmt.Println(gate.Enter())
	// Output:
	// true false
	// true
}
