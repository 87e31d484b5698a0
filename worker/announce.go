package worker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// How often the model server is asked what it serves, while it answers and while it
// does not.
const (
	askEvery   = 10 * time.Second
	askMissing = time.Second
)

// watchServer keeps the list of models and whether the server answers, until ctx ends.
func (w *Worker) watchServer(ctx context.Context) {
	for ctx.Err() == nil {
		t := time.NewTicker(askMissing)
		for passed := time.Duration(0); passed < askEvery && !w.stats.Down.Load() && ctx.Err() == nil; passed += askMissing {
			select {
			case <-t.C:
			case <-ctx.Done():
			}
		}
		t.Stop()
		wasDown := w.stats.Down.Load()
		w.ask(ctx)
		if wasDown && w.stats.Down.Load() {
			sleep(ctx, askMissing)
		}
	}
}

// ask asks the model server what it serves.
func (w *Worker) ask(ctx context.Context) {
	models, err := w.cfg.Server.Models(ctx)
	if ctx.Err() != nil {
		return
	}
	log := w.cfg.Log.With().Str("server", w.cfg.Server.URL()).Logger()
	if errors.Is(err, ErrUnreachable) {
		if w.stats.Down.CompareAndSwap(false, true) {
			log.Warn().Err(err).Msg("waiting for the model server")
		}
		return
	}
	switch before := w.serving.Load(); {
	case err != nil: // a server that answers without a list may still serve: as before
		log.Debug().Err(err).Msg("the model server does not say what it serves")
	case len(models) == 0:
		w.serving.Store(nil)
	case before == nil || !slices.Equal(*before, models):
		w.serving.Store(&models)
	}
	if w.stats.Down.CompareAndSwap(true, false) {
		log.Warn().Msg("the model server answers")
	}
	w.wake()
}

// models are the models that the server serves. any is true if it does not tell.
func (w *Worker) models() (models []string, any bool) {
	if list := w.serving.Load(); list != nil {
		return *list, false
	}
	return nil, true
}

// announce tells the bus of the worker until ctx ends, and then takes that back.
func (w *Worker) announce(ctx context.Context, p *proto.Presence) {
	tick := time.NewTicker(proto.PresenceTTL / 5)
	defer tick.Stop()
	since, then, done := time.Now().UTC(), time.Now(), w.stats.Done.Load()
	perSecond := 0.0
	for {
		models, _ := w.models()
		info := proto.WorkerInfo{
			Name: w.cfg.Name, Host: w.cfg.Host, Version: w.cfg.Version, Server: w.cfg.Server.URL(), Ready: !w.stats.Down.Load(),
			Models: models, Concurrency: w.cfg.Limiter.Limit(), InFlight: w.stats.InFlight.Load(),
			Done: w.stats.Done.Load(), PerSecond: perSecond, LatencySeconds: w.latency.mean().Seconds(), Since: since, GPU: w.cfg.GPU,
		}
		_, err := withTimeout(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.Worker(ctx, info) })
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Debug().Err(err).Msg("announce the worker")
		}
		select {
		case <-ctx.Done():
			// Not for long: it would be gone by itself.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := p.WorkerGone(last, w.cfg.Name); err != nil {
				w.cfg.Log.Debug().Err(err).Msg("take back the announcement")
			}
			return
		case now := <-tick.C:
			total := w.stats.Done.Load()
			fresh := float64(total-done) / now.Sub(then).Seconds()
			if perSecond == 0 || fresh == 0 {
				perSecond = fresh
			}
			perSecond += (fresh - perSecond) / 3
			then, done = now, total
		}
	}
}
