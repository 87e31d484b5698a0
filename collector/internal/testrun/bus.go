package testrun

import (
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// StartBus starts a NATS server with JetStream in this process, for an example.
func StartBus() (js jetstream.JetStream, stop func()) {
	dir, err := os.MkdirTemp("", "promptmill-example-")
	if err != nil {
		log.Fatal(err)
	}

	s, err := server.NewServer(&server.Options{
		DontListen: true,
		NoSigs:     true,
		JetStream:  true,
		StoreDir:   dir,
	})
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
