package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// A program runs a worker of its own. Here the model server is a simulated one, and the bus has a
// run with two requests.
func ExampleWorker() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	js, stopBus := startBus()
	defer stopBus()

	publishRun(ctx, js, "demo")

	simulated := httptest.NewServer(sim.New(sim.Config{Models: []string{"small"}}))
	defer simulated.Close()

	model, err := modelserver.New(simulated.URL, "")
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	w, err := worker.New(worker.Config{JS: js, Server: model, Limiter: limit.New(limit.Config{})})
	if err != nil {
		log.Fatal(err)
	}

	working, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(working) }()

	for _, line := range readResults(ctx, js, "demo", 2) {
		fmt.Println(line)
	}

	stop()
	fmt.Println("the worker ended:", <-ended)

	// Output:
	// question-1: status 200
	// question-2: status 200
	// the worker ended: <nil>
}

// startBus starts a NATS server with JetStream in this process.
func startBus() (js jetstream.JetStream, stop func()) {
	dir, err := os.MkdirTemp("", "promptmill-example-")
	if err != nil {
		log.Fatal(err)
	}

	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}

	s.Start()
	s.ReadyForConnections(20 * time.Second)

	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		log.Fatal(err)
	}

	if js, err = jetstream.New(conn); err != nil {
		log.Fatal(err)
	}

	return js, func() {
		conn.Close()
		s.Shutdown()
		s.WaitForShutdown()
		os.RemoveAll(dir)
	}
}

// publishRun puts a run with one shard on the bus, as a producer does.
func publishRun(ctx context.Context, js jetstream.JetStream, run string) {
	requests := []proto.Request{
		{Index: 0, CustomID: []byte(`"question-1"`), Body: []byte(`{"model":"small","prompt":"1 + 1 ="}`)},
		{Index: 1, CustomID: []byte(`"question-2"`), Body: []byte(`{"model":"small","prompt":"2 + 2 ="}`)},
	}
	for i := range requests {
		requests[i].URL = "/v1/completions"
	}

	manifest := proto.Manifest{
		Schema: proto.ManifestSchema,
		Run:    run,
		State:  proto.StateInProgress,
		Input:  proto.Input{Requests: len(requests), Models: map[string]int{"small": len(requests)}},
	}

	limits := bus.Limits{WorkBytes: 16 << 20, ResultsBytes: 16 << 20}
	if err := bus.CreateBuckets(ctx, js, limits); err != nil {
		log.Fatal(err)
	}

	if err := bus.EnsureStreams(ctx, js, manifest, limits); err != nil {
		log.Fatal(err)
	}

	shard := proto.EncodeShard(run, "small", proto.Shard{ID: proto.ShardID(0, 0), Requests: requests})
	if _, err := js.PublishMsg(ctx, shard); err != nil {
		log.Fatal(err)
	}

	if err := bus.New(js).Runs.Create(ctx, manifest); err != nil {
		log.Fatal(err)
	}
}

// readResults reads n output lines of a run from its results stream.
func readResults(ctx context.Context, js jetstream.JetStream, run string, n int) (lines []string) {
	results, err := js.OrderedConsumer(ctx, proto.ResultsStream(run), jetstream.OrderedConsumerConfig{})
	if err != nil {
		log.Fatal(err)
	}

	for len(lines) < n {
		msg, err := results.Next(jetstream.FetchMaxWait(20 * time.Second))
		if err != nil {
			log.Fatal(err)
		}

		for text := range bytes.Lines(msg.Data()) {
			var line struct {
				CustomID string `json:"custom_id"`
				Response struct {
					StatusCode int `json:"status_code"`
				} `json:"response"`
			}
			if err := json.Unmarshal(text, &line); err != nil {
				log.Fatal(err)
			}

			lines = append(lines, fmt.Sprintf("%s: status %d", line.CustomID, line.Response.StatusCode))
		}
	}

	slices.Sort(lines)

	return lines
}
