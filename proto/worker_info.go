package proto

import (
	"strings"
	"time"
)

// PresenceTTL is how long an announcement stands. It is renewed every PresenceTTL/5.
const PresenceTTL = 15 * time.Second

// WorkerInfo is a worker's announcement, under the key worker.ID.
type WorkerInfo struct {
	// ID is of the process, new with each start ([NewWorkerID]). One of another program
	// that has none is known by its name.
	ID      string `json:"id,omitempty"`
	Name    string `json:"name"` // what people call it; several may have one name
	Host    string `json:"host"`
	Version string `json:"version"`
	Server  string `json:"server"` // URL of its model server
	// SeveralServers says that the URL leads to more than one server, as behind a load balancer.
	// What one of them says of its memory, its slots and its queue is left out.
	SeveralServers bool `json:"several_servers,omitempty"`
	// Flavour is the model server's kind, such as "vLLM", and ServerVersion its version;
	// empty: unknown.
	Flavour       string `json:"flavour"`
	ServerVersion string `json:"server_version"`
	Ready         bool   `json:"ready"`             // its model server answers
	Problem       string `json:"problem,omitempty"` // why it does not, in words
	// Models are those that the model server lists, under all their names; [Serves] says
	// what they stand for. Null: it does not tell, any are tried.
	Models []string `json:"models"`
	// DefaultModel is the model of requests that name none: the only one that the server
	// has, however many names it has; empty: it has several, or does not tell.
	DefaultModel string `json:"default_model,omitempty"`
	// ContextLength is how many tokens a request and its answer may have, by model; only
	// of those of which the model server tells.
	ContextLength map[string]int `json:"context_length,omitempty"`
	// GPUMemoryUtilization is the part of each GPU's memory, 0 to 1, that the model server
	// was started to take, which vLLM tells; null: unknown.
	GPUMemoryUtilization *float64 `json:"gpu_memory_utilization"`
	// LoadSeconds is how long the model server took to load its model; null: unknown.
	LoadSeconds *float64     `json:"load_seconds"`
	MemoryBytes ServerMemory `json:"memory_bytes"`
	// Slots are the requests that the model server runs at once, while others wait; 0: it does
	// not tell.
	Slots       int    `json:"slots,omitempty"`
	Concurrency int    `json:"concurrency"` // requests in flight at most, as it is now
	InFlight    int64  `json:"in_flight"`
	Waiting     *int64 `json:"waiting"` // requests in the model server's queue; null: it does not tell
	// Shards are those that it has, of all runs, until their results are stored and they are
	// acknowledged or handed back; null: it does not tell.
	Shards    *int64  `json:"shards,omitempty"`
	Done      int64   `json:"done"` // requests since it began
	PerSecond float64 `json:"requests_per_second"`
	// LatencySeconds is how long the model server takes for a request, of late.
	LatencySeconds float64   `json:"latency_seconds"`
	Since          time.Time `json:"since"` // when it began
	GPU            []GPU     `json:"gpu"`   // null: unknown
	// Runs are what it has spent on each run since it began. One that has ended may be
	// left out, and begins at nothing should it go on; one that is gone from the bus has
	// to be, since its id may be used again.
	Runs map[string]RunUsage `json:"runs,omitempty"`

	// ReceivedAt is when the bus got the announcement.
	ReceivedAt time.Time `json:"-"`
}

// ServerMemory is what a model server has the GPUs' memory for, in bytes. What is null is
// unknown.
type ServerMemory struct {
	Weights *int64 `json:"weights"`
	KVCache *int64 `json:"kv_cache"`
	Graphs  *int64 `json:"graphs"` // CUDA graphs
}

// RunUsage is what a worker has spent on a run.
type RunUsage struct {
	// Requests are those that the model server had and that ended at this worker,
	// answered or failed.
	Requests int64 `json:"requests"`
	// EnergyJoules is what its GPUs took for these requests, 0 for none; null: unknown.
	EnergyJoules *float64 `json:"energy_joules"`
	// Redeliveries are the shards that came to it after another, or it itself, had had
	// them before.
	Redeliveries int64 `json:"redeliveries,omitempty"`
}

// GPU is a graphics card of a worker's host. What is null is unknown, and so is a
// MemoryBytes of 0.
type GPU struct {
	Index              int      `json:"index"` // the driver's number of the card
	Name               string   `json:"name"`
	UUID               string   `json:"uuid,omitempty"` // the same for all workers that see the card; empty: unknown
	MemoryBytes        int64    `json:"memory_bytes"`
	MemoryUsedBytes    *int64   `json:"memory_used_bytes"`
	PowerWatts         *float64 `json:"power_watts"`
	UtilizationPercent *float64 `json:"utilization_percent"`
	TemperatureC       *float64 `json:"temperature_c"`
	EnergyJoules       *float64 `json:"energy_joules"` // since the worker began
}

// CollectorInfo is the announcement of who collects a run, under the key
// collector.RUN. It keeps a second collector away.
type CollectorInfo struct {
	Host   string `json:"host"`
	Output string `json:"output"` // path of the output on that host, without its suffixes
}

// String names the collector's output for people.
func (c CollectorInfo) String() string { return c.Host + ":" + c.Output }

// WorkerKey returns the key of [PresenceBucket] under which a worker announces itself.
func WorkerKey(id string) string {
	return "worker." + strings.Map(func(r rune) rune {
		if isTokenRune(r) {
			return r
		}
		return '-'
	}, id)
}
