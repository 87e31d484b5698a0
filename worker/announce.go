package worker

import (
	"context"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// models are the models that the server serves. any is true if it does not tell.
func (w *Worker) models() (models []string, any bool) {
	info, known := w.Info()
	if !known || len(info.Models) == 0 && info.Flavour != "Ollama" {
		return nil, true
	}
	for _, m := range info.Models {
		models = append(models, m.ID)
	}
	return models, false
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
			Name: w.cfg.Name, Host: w.cfg.Host, Version: w.cfg.Version, Server: w.cfg.Server.URL(), Ready: !w.Down(),
			Models: models, Concurrency: w.cfg.Limiter.Limit(), InFlight: w.stats.InFlight.Load(),
			Done: w.stats.Done.Load(), PerSecond: perSecond, LatencySeconds: w.latency.mean().Seconds(), Since: since,
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
