package worker

import (
	"context"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// announce tells the bus of the worker until ctx ends, and then takes that back. It does
// so every few seconds, and soon after the last request it has is done, since a
// collector may wait to hear what the run has cost.
func (w *Worker) announce(ctx context.Context, heartbeats *bus.Heartbeats) {
	tick := time.NewTicker(proto.PresenceTTL / 5)
	defer tick.Stop()

	since, then, done := time.Now().UTC(), time.Now(), w.stats.Done.Load()
	perSecond := 0.0
	for {
		info := w.workerInfo()
		info.Since, info.PerSecond = since, perSecond

		err := callWithTimeout(ctx, func(ctx context.Context) error { return heartbeats.Send(ctx, info) })
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Debug().Err(err).Msg("announce the worker")
		}

		told := time.Now()
		select {
		case <-w.held.drained:
			bus.Sleep(ctx, time.Second-time.Since(told)) // it could be so after each request of a slow run
			continue
		case <-ctx.Done():
			// Not for long: it would be gone by itself.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := heartbeats.Remove(last, w.id); err != nil {
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

// workerInfo is what the bus is told of the worker now.
func (w *Worker) workerInfo() proto.WorkerInfo {
	server, _ := w.Info()
	problem, _ := w.Waiting()
	info := proto.WorkerInfo{
		ID:                   w.id,
		Name:                 w.cfg.Name,
		Host:                 w.cfg.Host,
		Version:              w.cfg.Version,
		Server:               w.cfg.Server.URL(),
		SeveralServers:       w.cfg.Server.Replicated(),
		Ready:                !w.Down(),
		Problem:              proto.Printable(problem),
		Flavour:              server.Flavour,
		ServerVersion:        server.Version,
		Models:               w.fetch.servedModels(),
		DefaultModel:         server.DefaultModel(),
		ContextLength:        contextLengths(server.Models),
		GPUMemoryUtilization: pointerTo(server.GPUMemoryUtilization),
		LoadSeconds:          pointerTo(server.LoadSeconds),
		MemoryBytes:          proto.ServerMemory{Weights: pointerTo(server.WeightBytes), KVCache: pointerTo(server.CacheBytes)},
		Slots:                server.Slots,
		Concurrency:          w.cfg.Limiter.Limit(),
		InFlight:             w.stats.InFlight.Load(),
		Waiting:              w.server.load.waiting.Load(),
		Shards:               new(w.jobs.inHand.total.Load()),
		Done:                 w.stats.Done.Load(),
		LatencySeconds:       w.latency.mean().Seconds(),
	}
	if p := w.cfg.Process; p != nil { // what it saw itself is the better
		s := p.Status()
		if s.LoadTime > 0 {
			info.LoadSeconds = pointerTo(s.LoadTime.Seconds())
		}

		for _, told := range []struct {
			into  **int64
			bytes int64
		}{
			{&info.MemoryBytes.Weights, s.Memory.Weights},
			{&info.MemoryBytes.KVCache, s.Memory.KVCache},
			{&info.MemoryBytes.Graphs, s.Memory.Graphs},
		} {
			if told.bytes > 0 {
				*told.into = pointerTo(told.bytes)
			}
		}
	}

	if w.cfg.Cards != nil {
		for _, c := range w.cfg.Cards() {
			info.GPU = append(info.GPU, proto.GPU{
				Index:              c.Index,
				Name:               c.Name,
				UUID:               c.UUID,
				MemoryBytes:        c.MemoryBytes,
				MemoryUsedBytes:    pointerTo(c.MemoryUsedBytes),
				PowerWatts:         c.PowerWatts,
				UtilizationPercent: c.UtilizationPercent,
				TemperatureC:       c.TemperatureC,
				EnergyJoules:       c.Joules,
			})
		}
	}

	info.Runs = w.usage.snapshot(info.GPU)

	return info
}

// contextLengths are those that the server tells.
func contextLengths(models []modelserver.Model) map[string]int {
	lengths := map[string]int{}
	for _, m := range models {
		if m.ContextLength > 0 {
			lengths[m.ID] = m.ContextLength
		}
	}
	return lengths
}

// pointerTo is a value that is not zero, or null.
func pointerTo[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
