package main

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
)

// crew are the parts of a run that work in this process.
type crew struct {
	producer  *producer.Producer
	collector *collector.Collector
	workers   []*worker.Worker // none if others do that
	also      []func(context.Context) error
	log       zerolog.Logger
}

var errCompleted = errors.New("completed")

// run runs all parts until the collector has written the output.
func (c crew) run(ctx context.Context) error {
	// The worker ends first, then the collector, so that what is answered in the last
	// moment is still in the file.
	group, working := errgroup.WithContext(ctx)
	collecting, stopCollecting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopCollecting(nil)
	var workers sync.WaitGroup
	for _, run := range c.also {
		group.Go(func() error { return run(working) })
	}
	group.Go(func() error { return c.producer.Run(working) })
	var left atomic.Int64 // workers
	left.Store(int64(len(c.workers)))
	for _, w := range c.workers {
		workers.Add(1)
		group.Go(func() error {
			defer workers.Done()
			err := w.Run(working)
			refused, _ := errors.AsType[*worker.RefusedError](err)
			if others := left.Add(-1); refused == nil || others == 0 {
				return err
			}
			c.log.Warn().Err(refused).Msg("a model server refuses all requests; the run goes on without it")
			return nil
		})
	}
	group.Go(func() error {
		<-working.Done()
		workers.Wait()
		stopCollecting(context.Cause(working))
		return nil
	})
	whole := false
	group.Go(func() error {
		if err := c.collector.Run(collecting); err != nil {
			return err
		}
		whole = true
		return errCompleted // ends the other parts
	})
	if err := group.Wait(); !whole {
		return err
	}
	return nil // whatever became of the other parts
}

// runInput is the input of a run for its collector.
type runInput struct {
	run   proto.Manifest
	files func() ([]string, error)
}

// Requests implements collector.Input.
func (in runInput) Requests(wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	files, err := in.files()
	if err != nil {
		return func(yield func(proto.Request, error) bool) { yield(proto.Request{}, err) }
	}
	return producer.Requests(files, in.run, wanted)
}
