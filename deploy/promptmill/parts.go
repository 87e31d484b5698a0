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

// parts are the parts of a run that work in this process.
type parts struct {
	producer  *producer.Producer
	collector *collector.Collector
	workers   []*worker.Worker // none if other processes have them
	models    []string         // that the run needs
	watchers  []func(context.Context) error
	log       zerolog.Logger
}

// errCompleted ends the other parts of a run when its collector has written the output.
var errCompleted = errors.New("completed")

// run runs all parts until the collector has written the output.
func (p *parts) run(ctx context.Context) error {
	// The workers end first, then the collector, so that what is answered in the last moment is
	// still in the file.
	group, working := errgroup.WithContext(ctx)
	collecting, stopCollecting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopCollecting(nil)

	for _, watch := range p.watchers {
		group.Go(func() error { return watch(working) })
	}

	group.Go(func() error { return p.producer.Run(working) })

	var workers sync.WaitGroup
	usable := &usableWorkers{workers: slices.Clone(p.workers)}
	for _, w := range p.workers {
		workers.Add(1)
		group.Go(func() error {
			err := w.Run(working)
			workers.Done()
			if refused, ok := errors.AsType[*worker.RefusedError](err); ok {
				return p.continueWithout(working, usable, w, refused)
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
		if err := p.collector.Run(collecting); err != nil {
			return err
		}
		whole = true
		return errCompleted
	})

	if err := group.Wait(); !whole {
		return err
	}

	return nil // whatever became of the other parts
}

// continueWithout lets the run continue without a worker whose server refuses all requests, as long
// as the others may have all models of the run.
func (p *parts) continueWithout(
	ctx context.Context, usable *usableWorkers, w *worker.Worker, refused *worker.RefusedError,
) error {
	usable.remove(w)

	for warned := false; ; warned = true {
		if !usable.mayServe(p.models) {
			return refused
		}

		if !warned {
			p.log.Warn().Err(refused).Msg("a model server refuses all requests; the run goes on without it")
		}

		if bus.Sleep(ctx, time.Second) != nil {
			return nil
		}
	}
}

// usableWorkers are the workers whose servers do not refuse all requests.
type usableWorkers struct {
	mu      sync.Mutex
	workers []*worker.Worker
}

// remove removes a worker.
func (u *usableWorkers) remove(w *worker.Worker) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.workers = slices.DeleteFunc(u.workers, func(other *worker.Worker) bool { return other == w })
}

// mayServe reports whether each of some models may be served. A server that has not listed its
// models yet may serve any.
func (u *usableWorkers) mayServe(models []string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()

	for _, model := range models {
		may := func(w *worker.Worker) bool {
			info, _ := w.Info()
			return model == "" || proto.Serves(info.ModelNames(), model) // refused lines have none
		}
		if !slices.ContainsFunc(u.workers, may) {
			return false
		}
	}

	return len(u.workers) > 0
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
