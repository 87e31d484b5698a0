package worker

import (
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/gpu"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// describe returns the worker's description and state, for its announcement.
func (w *Worker) describe() proto.WorkerInfo {
	server, _ := w.Info()
	problem, _ := w.Waiting()
	if refused, _ := w.Refused(); problem == "" && refused != "" {
		problem = "the model server answers no request: " + refused
	}

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
		GPUMemoryUtilization: nonZero(server.GPUMemoryUtilization),
		LoadSeconds:          nonZero(server.LoadSeconds),
		MemoryBytes: proto.ServerMemory{
			Weights: nonZero(server.WeightBytes),
			KVCache: nonZero(server.CacheBytes),
		},
		Slots:          server.Slots,
		Engines:        server.Engines,
		Concurrency:    w.cfg.Limiter.Limit(),
		InFlight:       w.stats.InFlight.Load(),
		Waiting:        w.server.load.waiting.Load(),
		Shards:         new(w.jobs.inHand.total.Load()),
		Done:           w.stats.Done.Load(),
		LatencySeconds: w.fetch.latency.mean().Seconds(),
	}

	if w.cfg.Process != nil {
		addProcess(&info, w.cfg.Process.Status())
	}

	info.Departure = w.costs.report()
	info.GPU = gpuInfo(w.Cards())
	info.ServerLatency = w.server.load.measured.snapshot()
	info.Runs = w.jobs.usage.snapshot(info.GPU, info.InFlight == 0 && *info.Shards == 0)

	return info
}

// addProcess adds the measurements of the supervised process. They are better than the server's
// own report.
func addProcess(info *proto.WorkerInfo, s supervise.Status) {
	if s.LoadTime > 0 {
		info.LoadSeconds = nonZero(s.LoadTime.Seconds())
		info.ModelLoad = newModelLoad(s.Load)
	}

	for _, measured := range []struct {
		into  **int64
		bytes int64
	}{
		{&info.MemoryBytes.Weights, s.Memory.Weights},
		{&info.MemoryBytes.KVCache, s.Memory.KVCache},
		{&info.MemoryBytes.Graphs, s.Memory.Graphs},
	} {
		if measured.bytes > 0 {
			*measured.into = nonZero(measured.bytes)
		}
	}
}

// newModelLoad returns the parts of a load time; nil if all are unknown.
func newModelLoad(l supervise.Load) *proto.ModelLoad {
	if l == (supervise.Load{}) {
		return nil
	}

	seconds := func(d *time.Duration) *float64 {
		if d == nil {
			return nil
		}
		return new(d.Seconds())
	}

	return &proto.ModelLoad{
		DownloadSeconds: seconds(l.Download),
		WeightsSeconds:  seconds(l.Weights),
		CompileSeconds:  seconds(l.Compile),
		GraphsSeconds:   seconds(l.Graphs),
		WarmUpSeconds:   seconds(l.WarmUp),
	}
}

// gpuInfo returns the announcement of the host's GPUs.
func gpuInfo(cards []gpu.Card) (list []proto.GPU) {
	for _, c := range cards {
		list = append(list, proto.GPU{
			Index:              c.Index,
			Name:               c.Name,
			UUID:               c.UUID,
			MemoryBytes:        c.MemoryBytes,
			MemoryUsedBytes:    nonZero(c.MemoryUsedBytes),
			PowerWatts:         c.PowerWatts,
			UtilizationPercent: c.UtilizationPercent,
			TemperatureC:       c.TemperatureC,
			EnergyJoules:       c.Joules,
		})
	}

	return list
}

// contextLengths returns the context lengths that the server reports, by model.
func contextLengths(models []modelserver.Model) map[string]int {
	lengths := map[string]int{}
	for _, m := range models {
		if m.ContextLength > 0 {
			lengths[m.ID] = m.ContextLength
		}
	}
	return lengths
}

// nonZero returns a pointer to a value, or nil for the zero value, which means unknown.
func nonZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
