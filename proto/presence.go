package proto

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// PresenceBucket is the key-value bucket in which workers and collectors announce
// themselves. Its values end by themselves after [PresenceTTL].
const PresenceBucket = "promptmill_presence"

// PresenceTTL is how long an announcement stands. It is renewed every PresenceTTL/5.
const PresenceTTL = 15 * time.Second

// WorkerInfo is a worker's announcement, under the key worker.NAME.
type WorkerInfo struct {
	Name        string   `json:"name"`
	Host        string   `json:"host"`
	Version     string   `json:"version"`
	Server      string   `json:"server"` // URL of its model server
	Ready       bool     `json:"ready"`  // its model server answers
	Models      []string `json:"models"` // null: the model server does not tell, any are tried
	Concurrency int      `json:"concurrency"`
	InFlight    int64    `json:"in_flight"`
	Done        int64    `json:"done"` // requests since it began
	PerSecond   float64  `json:"requests_per_second"`
	// LatencySeconds is how long the model server takes for a request, of late.
	LatencySeconds float64   `json:"latency_seconds"`
	Since          time.Time `json:"since"`
	GPU            []GPU     `json:"gpu"` // null: unknown
}

// GPU is a graphics card of a worker's host.
type GPU struct {
	Name        string `json:"name"`
	MemoryBytes int64  `json:"memory_bytes"`
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
type Presence struct{ kv jetstream.KeyValue }

// OpenPresence opens the bucket of announcements. Who may not make it waits until
// somebody else has.
func OpenPresence(ctx context.Context, js jetstream.JetStream) (*Presence, error) {
	kv, err := js.KeyValue(ctx, PresenceBucket)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", PresenceBucket, err)
	}
	return &Presence{kv: kv}, nil
}

// Worker announces a worker.
func (p *Presence) Worker(ctx context.Context, w WorkerInfo) error {
	return p.put(ctx, "worker."+keyOf(w.Name), w)
}

// WorkerGone takes a worker's announcement back.
func (p *Presence) WorkerGone(ctx context.Context, name string) error {
	return p.kv.Delete(ctx, "worker."+keyOf(name))
}

// Workers are the workers that have announced themselves lately, by name.
func (p *Presence) Workers(ctx context.Context) ([]WorkerInfo, error) {
	entries, err := snapshot(ctx, p.kv, "worker.*")
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	var workers []WorkerInfo
	for _, entry := range entries {
		var w WorkerInfo
		if err := json.Unmarshal(entry.Value(), &w); err != nil {
			return nil, fmt.Errorf("announcement %s: %w: %w", entry.Key(), ErrFormat, err)
		}
		workers = append(workers, w)
	}
	slices.SortFunc(workers, func(a, b WorkerInfo) int { return cmp.Compare(a.Name, b.Name) })
	return workers, nil
}

// Collector announces who collects a run. It fails with [ErrCollected] if somebody
// else does.
func (p *Presence) Collector(ctx context.Context, run string, c CollectorInfo) error {
	key := "collector." + run
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	now, has, revision, err := p.collectorOf(ctx, run)
	switch {
	case err != nil:
		return err
	case has && now != c:
		return fmt.Errorf("%w: into %s", ErrCollected, now)
	case has:
		_, err = p.kv.Update(ctx, key, data, revision)
	default:
		_, err = p.kv.Create(ctx, key, data)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || wrongLastSequence(err) {
		return fmt.Errorf("%w, since this moment", ErrCollected)
	}
	if err != nil {
		return fmt.Errorf("announce the collector of run %s: %w", run, err)
	}
	return nil
}

// CollectorGone takes the announcement of a run's collector back.
func (p *Presence) CollectorGone(ctx context.Context, run string) error {
	return p.kv.Delete(ctx, "collector."+run)
}

// CollectorOf is who collects a run, if anybody does.
func (p *Presence) CollectorOf(ctx context.Context, run string) (CollectorInfo, bool, error) {
	c, ok, _, err := p.collectorOf(ctx, run)
	return c, ok, err
}

func (p *Presence) collectorOf(ctx context.Context, run string) (c CollectorInfo, ok bool, revision uint64, err error) {
	entry, err := p.kv.Get(ctx, "collector."+run)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return c, false, 0, nil
	}
	if err != nil {
		return c, false, 0, fmt.Errorf("look for the collector of run %s: %w", run, err)
	}
	if err := json.Unmarshal(entry.Value(), &c); err != nil {
		return c, false, 0, fmt.Errorf("announcement of the collector of run %s: %w: %w", run, ErrFormat, err)
	}
	return c, true, entry.Revision(), nil
}

func (p *Presence) put(ctx context.Context, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if _, err := p.kv.Put(ctx, key, data); err != nil {
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
