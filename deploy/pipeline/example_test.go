package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
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

// The same call for a complete output runs nothing, and returns the result of the run.
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

// A program can make the parts of a run itself: here with one worker, on an embedded bus.
func ExampleParts() {
	if err := runParts(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: 200 requests have their line
}

func runParts(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "pipeline-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	// The bus.
	server, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Listen: natsserver.Loopback})
	if err != nil {
		return err
	}
	defer server.Stop()

	js, limits := server.JS, server.Limits
	if err := bus.CreateBuckets(ctx, js, limits); err != nil {
		return err
	}

	// The run: validated, with its journal, and then on the bus.
	inputs := []string{"../examples/tickets.jsonl"}
	run := proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       "tickets",
		State:     proto.StateInProgress,
		CreatedAt: time.Now().UTC(),
		Settings:  proto.Settings{ShardSize: 32, ShardBytes: pipeline.DefaultShardBytes},
	}
	if run.Input, _, err = producer.Validate(ctx, producer.Source{Files: inputs}, run.Settings, nil); err != nil {
		return err
	}

	out := output.Prefix(filepath.Join(dir, "answers"))
	j, err := journal.Create(out.Journal(), run)
	if err != nil {
		return err
	}
	defer j.Close()

	b, err := bus.Open(ctx, js)
	if err != nil {
		return err
	}

	if err := errors.Join(j.Claim(out), bus.EnsureStreams(ctx, js, run, limits), b.Runs.Create(ctx, run)); err != nil {
		return err
	}

	// The parts.
	models := httptest.NewServer(sim.New(sim.Config{Models: []string{"gemma-3-4b-it"}}))
	defer models.Close()

	model, err := modelserver.New(models.URL, "")
	if err != nil {
		return err
	}
	defer model.Close()

	w, err := worker.New(worker.Config{JS: js, Server: model, Limiter: limit.New(limit.Config{})})
	if err != nil {
		return err
	}

	c, err := collector.New(collector.Config{
		JS:      js,
		Journal: j,
		Output:  out,
		Limits:  limits,
		Input:   pipeline.Input{Run: run, Files: func(context.Context) ([]string, error) { return inputs, nil }},
	})
	if err != nil {
		return err
	}

	p, err := producer.New(producer.Config{JS: js, Run: run.Run})
	if err != nil {
		return err
	}

	parts := pipeline.Parts{
		Producer:  p,
		Collector: c,
		Workers:   []*worker.Worker{w},
		Models:    run.Models(),
	}
	if err := parts.Run(ctx); err != nil {
		return err
	}

	fmt.Println(c.Progress().Durable, "requests have their line")

	return nil
}
