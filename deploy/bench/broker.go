package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// runBroker is a NATS server with its store in a folder: DIR. promptmill serve has one
// inside, but serve also collects, and only a separate process shows its cost.
func runBroker(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("broker: want DIR")
	}

	s, err := server.NewServer(&server.Options{
		Host:         "127.0.0.1",
		Port:         server.RANDOM_PORT,
		NoSigs:       true,
		NoLog:        true,
		JetStream:    true,
		StoreDir:     args[0],
		SyncInterval: time.Second,
		MaxPayload:   16 << 20,
		MaxPending:   256 << 20,
	})
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}

	go s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()

	if !s.ReadyForConnections(time.Minute) {
		return errors.New("broker: not ready after a minute")
	}

	fmt.Fprintf(os.Stderr, "broker on %s\n", s.ClientURL())
	<-ctx.Done()

	return nil
}
