package bus_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A run is put on a bus, paused, and seen to be.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	js, stop := connectToServer()
	defer stop()

	if err := bus.CreateBuckets(ctx, js, bus.Limits{}); err != nil {
		log.Fatal(err)
	}

	b, err := bus.Open(ctx, js)
	if err != nil {
		log.Fatal(err)
	}

	m := proto.Manifest{
		Schema: proto.ManifestSchema,
		Run:    "example",
		State:  proto.StateInProgress,
		Input:  proto.Input{Requests: 1, Models: map[string]int{"m": 1}},
	}

	if err := bus.EnsureStreams(ctx, js, m, bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 1 << 20}); err != nil {
		log.Fatal(err)
	}

	if err := b.Runs.Create(ctx, m); err != nil {
		log.Fatal(err)
	}

	for m, err := range b.Runs.Watch(ctx, m.Run) {
		if err != nil {
			log.Fatal(err)
		}

		if fmt.Println(m.Run, "is", m.State); m.State == proto.StatePaused {
			break
		}

		if err := b.Runs.Pause(ctx, m.Run); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// example is in_progress
	// example is paused
}

// connectToServer starts a NATS server in this process and connects to it.
func connectToServer() (js jetstream.JetStream, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}

	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}

	s.Start()

	if !s.ReadyForConnections(20 * time.Second) {
		log.Fatal("the server is not ready")
	}

	nc, err := nats.Connect("", nats.InProcessServer(s), nats.NoReconnect())
	if err != nil {
		log.Fatal(err)
	}

	if js, err = jetstream.New(nc); err != nil {
		log.Fatal(err)
	}

	return js, func() {
		nc.Close()
		s.Shutdown()
		s.WaitForShutdown()
		os.RemoveAll(dir)
	}
}
