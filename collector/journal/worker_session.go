package journal

import (
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// WorkerSession is a worker from one of its starts to its end, as its announcements
// described it. A nil field is unknown. A WorkerSession is never changed, but replaced by a
// newer one.
type WorkerSession struct {
	// ID is the id of the worker's process; empty: it has none.
	ID      string `json:"id,omitempty"`
	Name    string `json:"name"`
	Host    string `json:"host"`
	Version string `json:"version"`
	// Platform is the flavour and the version of the worker's model server.
	Platform string   `json:"platform"`
	Models   []string `json:"models"`
	// ContextLength is in tokens, by model.
	ContextLength map[string]int `json:"context_length,omitempty"`
	// GPUMemoryUtilization is from 0 to 1.
	GPUMemoryUtilization *float64  `json:"gpu_memory_utilization"`
	Since                time.Time `json:"since"`
	LoadSeconds          *float64  `json:"load_seconds"`
	// ModelLoad has the parts of LoadSeconds; nil: unknown.
	ModelLoad   *proto.ModelLoad   `json:"model_load,omitempty"`
	MemoryBytes proto.ServerMemory `json:"memory_bytes"`
	// Slots are the model server's slots; nil unless it reports them.
	Slots *metadata.Slots `json:"slots,omitempty"`
	// Engines are the copies of the model that the model server has; 0: unknown.
	Engines int `json:"engines,omitempty"`
	// SeveralServers reports that the worker's URL leads to more than one model server.
	SeveralServers bool           `json:"several_servers,omitempty"`
	GPUs           []metadata.GPU `json:"gpus"`
	// Meters are the latest readings of the cards' energy meters, in joules, in the order of
	// GPUs. A nil reading has not been seen yet.
	Meters []*float64 `json:"meters,omitempty"`
	// Usage is the resources that the worker reports to have spent on the run; nil: none so
	// far.
	Usage *proto.RunUsage `json:"usage"`
	// EarlierUsage is the usage before the worker's counters began again.
	EarlierUsage *proto.RunUsage `json:"earlier_usage,omitempty"`
	// OverlapJoules are the joules in both that count for other workers, which see the same
	// cards.
	OverlapJoules float64 `json:"overlap_joules,omitempty"`
	// ServerLatency has the latencies that the model server had measured last, and LatencyBefore those
	// before the worker took part in the run; nil: unknown.
	ServerLatency *proto.ServerLatency `json:"server_latency,omitempty"`
	LatencyBefore *proto.ServerLatency `json:"latency_before,omitempty"`
	// FirstSeen and LastSeen are the times at which the bus got the first and the last
	// announcement that was read.
	FirstSeen time.Time `json:"first_seen,omitzero"`
	LastSeen  time.Time `json:"last_seen,omitzero"`
	// Departure is the last report of a worker that was asked to leave; nil: it was not asked.
	Departure *proto.Departure `json:"departure,omitempty"`
	// Vanished is set for a worker that is not announced any more, and has left no last report.
	Vanished *Vanished `json:"vanished,omitempty"`
}

// Vanished describes the work that a worker had when it vanished.
type Vanished struct {
	// At is the time at which the bus got its last announcement.
	At time.Time `json:"at"`
	// InFlight are the requests of the run that it had at its model server then.
	InFlight int64 `json:"in_flight"`
}

// Key identifies a session among all others of a run.
func (s WorkerSession) Key() string {
	if s.ID != "" {
		return s.ID
	}
	return s.Name + " " + s.Since.UTC().Format(time.RFC3339Nano)
}

// TotalUsage returns the usage of the whole session; nil: unknown.
func (s WorkerSession) TotalUsage() *proto.RunUsage {
	total := AddUsage(s.Usage, s.EarlierUsage)
	if s.OverlapJoules == 0 || total == nil || total.EnergyJoules == nil {
		return total
	}
	own := *total
	own.EnergyJoules = new(max(0, *total.EnergyJoules-s.OverlapJoules))
	return &own
}

// AddUsage returns the sum of two usages, either of which may be nil. If one has used an
// unknown amount of energy, so have both.
func AddUsage(a, b *proto.RunUsage) *proto.RunUsage {
	switch {
	case a == nil || *a == proto.RunUsage{}:
		return b
	case b == nil || *b == proto.RunUsage{}:
		return a
	}

	sum := proto.RunUsage{
		Requests:          a.Requests + b.Requests,
		Redeliveries:      a.Redeliveries + b.Redeliveries,
		Rerun:             a.Rerun + b.Rerun,
		DiscardedAttempts: a.DiscardedAttempts + b.DiscardedAttempts,
		DiscardedTokens:   a.DiscardedTokens + b.DiscardedTokens,
		DiscardedSeconds:  a.DiscardedSeconds + b.DiscardedSeconds,
	}
	if a.EnergyJoules != nil && b.EnergyJoules != nil {
		sum.EnergyJoules = new(*a.EnergyJoules + *b.EnergyJoules)
	}

	return &sum
}
