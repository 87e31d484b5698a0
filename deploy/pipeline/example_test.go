package pipeline_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/worker/sim"
)

// A file of requests goes through a model server, here a simulated one.
func Example() {
	server := httptest.NewServer(sim.New(sim.Config{Models: []string{"gemma-3-4b-it"}}))
	defer server.Close()

	dir, err := os.MkdirTemp("", "pipeline-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	res, err := pipeline.Run(context.Background(), pipeline.Config{
		Inputs:    []string{"../examples/tickets.jsonl"},
		Output:    filepath.Join(dir, "tickets"),
		ServerURL: server.URL,
		State:     filepath.Join(dir, "state"),
	})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Printf("%d answered, %d failed, in %s\n", res.Answered, res.Failed, filepath.Base(res.Output.Results()))
	// Output: 200 answered, 0 failed, in tickets.jsonl.zst
}

// The same call for a complete output runs nothing, and returns what the run has brought.
func ExampleRun_again() {
	server := httptest.NewServer(sim.New(sim.Config{Models: []string{"gemma-3-4b-it"}}))
	defer server.Close()

	dir, err := os.MkdirTemp("", "pipeline-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	cfg := pipeline.Config{
		Inputs:    []string{"../examples/tickets.jsonl"},
		Output:    filepath.Join(dir, "tickets"),
		ServerURL: server.URL,
		State:     filepath.Join(dir, "state"),
	}
	for range 2 {
		res, err := pipeline.Run(context.Background(), cfg)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.Answered, res.WasComplete)
	}
	// Output:
	// 200 false
	// 200 true
}
