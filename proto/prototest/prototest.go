// Package prototest has helpers for promptmill's tests: a bus for each, a check for goroutines that
// outlive them, and compressed files.
package prototest

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Server starts a NATS server with JetStream inside the test's process and returns
// it with a client. Both end with the test.
func Server(t testing.TB) (*server.Server, jetstream.JetStream) {
	t.Helper()

	s, err := server.NewServer(&server.Options{
		DontListen:   true, // tests run side by side and need no ports
		NoSigs:       true,
		NoLog:        true,
		JetStream:    true,
		StoreDir:     t.TempDir(),
		MaxPayload:   16 << 20,
		SyncInterval: time.Second,
	})
	if err != nil {
		t.Fatalf("make the server: %v", err)
	}

	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})

	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not get ready")
	}

	// A test that ends must not try to reach its server again.
	nc, err := nats.Connect("", nats.InProcessServer(s), nats.NoReconnect())
	if err != nil {
		t.Fatalf("connect: %v", err)
	}

	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() { // before the server's, so that no goroutine outlives the test
		nc.Close()
		<-closed
	})

	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("open JetStream: %v", err)
	}

	return s, js
}

// Poll calls ok every 5 ms until it returns true, and fails the test if it does not in time. what
// describes the awaited event.
func Poll(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()

	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still waiting for %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
