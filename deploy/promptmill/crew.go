package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker"
)

// crew are the parts of a run that work in this process.
type crew struct {
	producer  *producer.Producer
	collector *collector.Collector
	workers   []*worker.Worker // none if others do that
	models    []string         // that the run needs
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

	staying := &staying{workers: slices.Clone(c.workers)}
	for _, w := range c.workers {
		workers.Add(1)
		group.Go(func() error {
			err := w.Run(working)
			workers.Done()
			if refused, ok := errors.AsType[*worker.RefusedError](err); ok {
				return c.goWithout(working, staying, w, refused)
			}
			return err
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

// goWithout goes on without a worker whose server refuses all requests, for as long as the
// others may have all models of the run.
func (c crew) goWithout(ctx context.Context, staying *staying, w *worker.Worker, refused *worker.RefusedError) error {
	staying.remove(w)
	for said := false; ; said = true {
		if !staying.serve(c.models) {
			return refused
		}

		if !said {
			c.log.Warn().Err(refused).Msg("a model server refuses all requests; the run goes on without it")
		}

		if bus.Sleep(ctx, time.Second) != nil {
			return nil
		}
	}
}

// staying are the workers whose servers do not refuse all requests.
type staying struct {
	mu      sync.Mutex
	workers []*worker.Worker
}

func (s *staying) remove(w *worker.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = slices.DeleteFunc(s.workers, func(other *worker.Worker) bool { return other == w })
}

// serve reports whether each of some models may be served. A server that has not said yet what
// it serves may serve any.
func (s *staying) serve(models []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, model := range models {
		may := func(w *worker.Worker) bool {
			info, _ := w.Info()
			return model == "" || proto.Serves(info.ModelNames(), model) // lines that are refused have none
		}
		if !slices.ContainsFunc(s.workers, may) {
			return false
		}
	}

	return len(s.workers) > 0
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
