package proto

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// PresenceBucket is the key-value bucket in which workers and collectors announce
// themselves. Its values end by themselves after [PresenceTTL].
const PresenceBucket = "promptmill_presence"

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
	Runs map[string]RunShare `json:"runs,omitempty"`

	// Heard is when the bus got the announcement.
	Heard time.Time `json:"-"`
}

// ServerMemory is what a model server has the GPUs' memory for, in bytes. What is null is
// unknown.
type ServerMemory struct {
	Weights *int64 `json:"weights"`
	KVCache *int64 `json:"kv_cache"`
	Graphs  *int64 `json:"graphs"` // CUDA graphs
}

// RunShare is what a worker has spent on a run.
type RunShare struct {
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

// Presence is the bucket of announcements.
type Presence struct {
	js      jetstream.JetStream
	leftOut atomic.Int64
}

// OpenPresence opens the bucket of announcements. Who may not make it waits until
// somebody else has.
func OpenPresence(ctx context.Context, js jetstream.JetStream) (*Presence, error) {
	if err := findBucket(ctx, js, PresenceBucket); err != nil {
		return nil, err
	}
	return &Presence{js: js}, nil
}

// Worker announces a worker.
func (p *Presence) Worker(ctx context.Context, w WorkerInfo) error {
	return p.put(ctx, w.key(), w)
}

// WorkerGone takes the announcement of a worker back, by its id or, if it has none, its
// name.
func (p *Presence) WorkerGone(ctx context.Context, id string) error {
	return deleteEntry(ctx, p.js, PresenceBucket, "worker."+keyOf(id))
}

// Workers are the workers that have announced themselves lately, by name. Announcements
// that cannot be are left out ([Presence.LeftOut]).
func (p *Presence) Workers(ctx context.Context) ([]WorkerInfo, error) {
	entries, _, err := entriesAfter(ctx, p.js, PresenceBucket, "worker.*", 0)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	var workers []WorkerInfo
	leftOut := 0
	for _, e := range entries {
		if e.deleted {
			continue
		}
		w, err := ReadWorker(e.key, e.value)
		if err != nil {
			leftOut++
			continue
		}
		w.Heard = e.at
		workers = append(workers, w)
	}
	p.leftOut.Store(int64(leftOut))
	slices.SortFunc(workers, func(a, b WorkerInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return dropDead(workers), nil
}

// LeftOut is how many announcements of workers could not be read, or not be true, when
// they were listed last.
func (p *Presence) LeftOut() int { return int(p.leftOut.Load()) }

// Collector announces who collects a run. It fails with [ErrCollected] if somebody
// else does.
func (p *Presence) Collector(ctx context.Context, run string, c CollectorInfo) error {
	key := "collector." + run
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	for begin := time.Now(); ; {
		now, has, revision, err := p.collectorOf(ctx, run)
		switch {
		case err != nil:
			return err
		case has && now != c:
			return fmt.Errorf("%w: into %s", ErrCollected, now)
		case revision > 0: // ours, or one that nobody can read
			err = updateEntry(ctx, p.js, PresenceBucket, key, data, revision)
		default:
			err = createEntry(ctx, p.js, PresenceBucket, key, data)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, jetstream.ErrKeyExists) && !wrongLastSequence(err):
			return fmt.Errorf("announce the collector of run %s: %w", run, err)
		case time.Since(begin) > copyLag || sleep(ctx, lookAgain) != nil:
			return fmt.Errorf("%w, since this moment", ErrCollected)
		}
		// Somebody else's, which is there in a moment; or ours, and the copy of the bucket that
		// answered is behind.
	}
}

// copyLag is how long a copy of a bucket may be behind the others.
const copyLag = 5 * time.Second

// CollectorGone takes the announcement of a run's collector back.
func (p *Presence) CollectorGone(ctx context.Context, run string) error {
	return deleteEntry(ctx, p.js, PresenceBucket, "collector."+run)
}

// CollectorOf is who collects a run, if anybody does.
func (p *Presence) CollectorOf(ctx context.Context, run string) (CollectorInfo, bool, error) {
	c, ok, _, err := p.collectorOf(ctx, run)
	return c, ok, err
}

func (p *Presence) collectorOf(ctx context.Context, run string) (c CollectorInfo, ok bool, revision uint64, err error) {
	value, revision, err := lastEntry(ctx, p.js, PresenceBucket, "collector."+run)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return c, false, 0, nil
	}
	if errors.Is(err, ErrFormat) {
		return c, false, revision, nil // it keeps nobody from collecting
	}
	if err != nil {
		return c, false, 0, fmt.Errorf("look for the collector of run %s: %w", run, err)
	}
	if c, err = ReadCollector(value); err != nil {
		return CollectorInfo{}, false, revision, nil
	}
	return c, true, revision, nil
}

func (p *Presence) put(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := putEntry(ctx, p.js, PresenceBucket, key, data); err != nil {
		return fmt.Errorf("announce %s: %w", key, err)
	}
	return nil
}

// keyOf makes a token of a name.
func keyOf(name string) string {
	return strings.Map(func(r rune) rune {
		if isTokenRune(r) {
			return r
		}
		return '-'
	}, name)
}
