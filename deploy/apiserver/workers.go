package apiserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// workersTime is the longest time for a list of workers.
const workersTime = 5 * time.Second

// listWorkers returns the function that lists the workers on a bus. It returns [batch.ErrUnavailable] at once
// if the bus is not connected: its clients have no reason to wait for that.
func listWorkers(link *busconn.Connection) func(context.Context) ([]proto.WorkerInfo, error) {
	heartbeats := bus.New(link.JS).Heartbeats

	return func(ctx context.Context) ([]proto.WorkerInfo, error) {
		if link.Conn.Status() != nats.CONNECTED {
			return nil, fmt.Errorf("list workers: %w", batch.ErrUnavailable)
		}

		ctx, cancel := context.WithTimeout(ctx, workersTime)
		defer cancel()

		workers, err := heartbeats.Workers(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("list workers: %w", batch.ErrUnavailable)
		}

		return workers, err
	}
}
