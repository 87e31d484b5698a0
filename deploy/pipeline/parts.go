package pipeline

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
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker"
)

// Parts are the parts of a run that work in this process, for a program that makes them itself.
type Parts struct {
	// Producer publishes the run. Required.
	Producer *producer.Producer
	// Collector gathers its results. Required.
	Collector *collector.Collector
	// Workers run its requests. Defaults to none: other processes have them.
	Workers []*worker.Worker
	// Models are the models that the run needs. Required with Workers.
	Models []string
	// Watchers run beside the parts until their context ends. An error ends the run.
	Watchers []func(context.Context) error
	// Log gets warnings. The zero value discards them.
	Log zerolog.Logger
}

// errCompleted ends the other parts of a run when its collector has written the output.
var errCompleted = errors.New("completed")

// Run runs all parts until the collector has written the output. When ctx ends, the workers
// stop first and the collector last, so that answers of the last moment are still in the
// output; an errgroup alone would stop them together.
func (p *Parts) Run(ctx context.Context) error {
	group, working := errgroup.WithContext(ctx)
	collecting, stopCollecting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopCollecting(nil)

	for _, watch := range p.Watchers {
		group.Go(func() error { return watch(working) })
	}

	group.Go(func() error { return p.Producer.Run(working) })

	var workers sync.WaitGroup
	usable := &usableWorkers{workers: slices.Clone(p.Workers)}
	for _, w := range p.Workers {
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
		if err := p.Collector.Run(collecting); err != nil {
			return err
		}
		whole = true
		return errCompleted
	})

	if err := group.Wait(); !whole {
		return err
	}

	return nil // even if other parts failed
}

// continueWithout lets the run continue without a worker whose server refuses all requests, as long
// as the others may have all models of the run.
func (p *Parts) continueWithout(
	ctx context.Context, usable *usableWorkers, w *worker.Worker, refused *worker.RefusedError,
) error {
	usable.remove(w)

	for warned := false; ; warned = true {
		if !usable.mayServe(p.Models) {
			return refused
		}

		if !warned {
			p.Log.Warn().Err(refused).Msg("a model server refuses all requests; the run continues without it")
		}

		if bus.Sleep(ctx, time.Second) != nil {
			return nil //nolint:nilerr // the run ends
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

// Input is the input of a run for its collector. It implements [collector.Input].
type Input struct {
	// Run is the run. Required.
	Run proto.Manifest
	// Files returns the input files, when they are needed, or an error when ctx ends. Required.
	Files func(context.Context) ([]string, error)
	// Opener opens the files. Defaults to files of this machine.
	Opener inputfile.Opener
}

// Requests implements collector.Input.
func (in Input) Requests(ctx context.Context, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error] {
	files, err := in.Files(ctx)
	if err != nil {
		return func(yield func(proto.Request, error) bool) { yield(proto.Request{}, err) }
	}
	return producer.Requests(ctx, producer.SourceOf(in.Run.Input, files, in.Opener), in.Run, wanted)
}
