package proto

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// PresenceTTL is the lifetime of an announcement. It is renewed every PresenceTTL/5.
const PresenceTTL = 15 * time.Second

// WorkerInfo is a worker's announcement, under the key worker.ID.
type WorkerInfo struct {
	// ID is the id of the process, new with each start ([NewWorkerID]). A worker of another program
	// without an id is known by its name.
	ID string `json:"id,omitempty"`
	// Name is the name for people; several workers may have the same.
	Name    string `json:"name"`
	Host    string `json:"host"`
	Version string `json:"version"`

	// Server is the URL of the worker's model server.
	Server string `json:"server"`
	// SeveralServers reports that the URL leads to more than one server, as behind a load balancer.
	// The memory, slots, engines and queue that one of them reports are left out.
	SeveralServers bool `json:"several_servers,omitempty"`
	// Flavour is the model server's kind, such as "vLLM"; empty: unknown.
	Flavour string `json:"flavour"`
	// ServerVersion is the model server's version; empty: unknown.
	ServerVersion string `json:"server_version"`
	// Ready reports that the model server answers.
	Ready bool `json:"ready"`
	// Problem is the reason, for people, why the model server does not answer. If the worker is ready
	// and has a problem, it sends requests to its server, which fails all of them.
	Problem string `json:"problem,omitempty"`
	// Models are the models that the model server lists, under all their names; [Serves] compares
	// them with a request's model. Null: there is no list, and the worker tries any model.
	Models []string `json:"models"`
	// DefaultModel is the model of requests that name none: the only one that the server has,
	// however many names it has; empty: it has several, or does not report them.
	DefaultModel string `json:"default_model,omitempty"`
	// ContextLength is the most tokens of a request and its answer together, by model. It has the
	// models whose length the model server reports.
	ContextLength map[string]int `json:"context_length,omitempty"`
	// GPUMemoryUtilization is the part of each GPU's memory, 0 to 1, that the model server
	// was started to take, which vLLM reports; null: unknown.
	GPUMemoryUtilization *float64 `json:"gpu_memory_utilization"`
	// LoadSeconds is the time in seconds that the model server took to load its model; null:
	// unknown.
	LoadSeconds *float64 `json:"load_seconds"`
	// ModelLoad has the parts of LoadSeconds; null: unknown.
	ModelLoad   *ModelLoad   `json:"model_load,omitempty"`
	MemoryBytes ServerMemory `json:"memory_bytes"`
	// Slots are the requests that the model server runs at once, while others wait; 0: unknown.
	Slots int `json:"slots,omitempty"`
	// Engines are the copies of the model that the model server has, which share its requests, as
	// with vLLM's data parallelism; 0: unknown.
	Engines int `json:"engines,omitempty"`

	// Concurrency is the current limit of requests in flight.
	Concurrency int   `json:"concurrency"`
	InFlight    int64 `json:"in_flight"`
	// Waiting are the requests in the model server's queue; null: unknown.
	Waiting *int64 `json:"waiting"`
	// Shards counts the shards of all runs that the worker has. It has a shard until the results
	// are stored and the shard is acknowledged or returned; null: the worker does not report them.
	Shards *int64 `json:"shards,omitempty"`
	// Done counts the requests since the worker began.
	Done      int64   `json:"done"`
	PerSecond float64 `json:"requests_per_second"`
	// LatencySeconds is the model server's time in seconds for a request, from the latest ones.
	LatencySeconds float64 `json:"latency_seconds"`
	// Since is the time at which the worker began.
	Since time.Time `json:"since"`
	// GPU are the cards of its host; null: unknown.
	GPU []GPU `json:"gpu"`
	// Runs has the usage of each run since the worker began. A run that has ended may be left out,
	// and starts from nothing if it continues. A run that is gone from the bus has to be left out,
	// since its id may be used again.
	Runs map[string]RunUsage `json:"runs,omitempty"`

	// SentAt is the time of the announcement by the clock of the worker's host; zero: the worker does
	// not report it.
	SentAt time.Time `json:"sent_at,omitzero"`
	// Samples are readings of the worker's load, one a second and one for the announcement, the
	// oldest first. Those of the last 15 s are repeated, since an announcement may be overwritten
	// before it is read, and while the bus does not take announcements, none is lost.
	Samples []LoadSample `json:"samples,omitempty"`
	// ServerLatency has the latencies that the model server measures; null: it reports none.
	ServerLatency *ServerLatency `json:"server_latency,omitempty"`

	// Departure is set once the worker was asked to leave; null: it was not.
	Departure *Departure `json:"departure,omitempty"`

	// ReceivedAt is the time at which the bus received the announcement.
	ReceivedAt time.Time `json:"-"`
}

// LoadSample is a reading of a worker's load.
type LoadSample struct {
	// At is the time by the clock of the worker's host.
	At time.Time `json:"at"`
	// InFlight is the most requests that were at the model server at once, of all runs, since the
	// reading before: a peak that lasts milliseconds is in it. Limit is the most that the worker
	// sends at that time.
	InFlight int64 `json:"in_flight"`
	Limit    int   `json:"limit"`
	// Runs has, in the same way, the requests of each run that had any. Peaks of two runs may be of
	// different moments.
	Runs map[string]int64 `json:"runs,omitempty"`
}

// ServerLatency has the latencies that a model server measures itself, over all its requests, also
// those of other clients, since the worker's first look at its metrics. What a server that was
// restarted had not shown before is lost. Null is unknown.
type ServerLatency struct {
	// TimeToFirstToken is the time from the arrival of a request to its first token.
	TimeToFirstToken *Histogram `json:"time_to_first_token,omitempty"`
	// TimePerOutputToken is the time of each further token. vLLM counts each, SGLang the mean of up
	// to 50, without the first 50 of an answer.
	TimePerOutputToken *Histogram `json:"time_per_output_token,omitempty"`
}

// Histogram counts durations by buckets.
type Histogram struct {
	// Bounds are the upper bounds of the buckets in seconds, ascending. A last bucket has what is above.
	Bounds []float64 `json:"bounds"`
	// Counts are the numbers of durations in the buckets, one more than there are bounds.
	Counts []int64 `json:"counts"`
	// Sum is the sum of the durations in seconds.
	Sum float64 `json:"sum"`
	// Source is the name of the server's metric; empty: unknown.
	Source string `json:"source,omitempty"`
}

// Key is the key of [PresenceBucket] that the announcement stands under.
func (w WorkerInfo) Key() string {
	if w.ID != "" {
		return WorkerKey(w.ID)
	}

	return WorkerKey(w.Name)
}

// WorkerKey returns the key of [PresenceBucket] under which a worker announces itself.
func WorkerKey(id string) string {
	return "worker." + strings.Map(func(r rune) rune {
		if isTokenRune(r) {
			return r
		}
		return '-'
	}, id)
}

// ServerMemory is a model server's use of the GPUs' memory, in bytes. Null is unknown.
type ServerMemory struct {
	Weights *int64 `json:"weights"`
	KVCache *int64 `json:"kv_cache"`
	// Graphs is the memory of CUDA graphs.
	Graphs *int64 `json:"graphs"`
}

// RunUsage counts a worker's work for one run.
type RunUsage struct {
	// Requests counts the requests that were sent to the model server and ended at this worker,
	// answered or failed.
	Requests int64 `json:"requests"`
	// EnergyJoules is the energy of the GPUs for these requests, 0 for none; null: unknown.
	EnergyJoules *float64 `json:"energy_joules"`
	// Redeliveries counts the shards that another worker, or this one, had before.
	Redeliveries int64 `json:"redeliveries,omitempty"`
	// Rerun counts the requests that were sent to the model server although a worker had sent them
	// before: it died, or lost the bus, before their results were stored. It is known from that
	// worker's notes, and so without what it sent in its last second.
	Rerun int64 `json:"rerun,omitempty"`
	// DiscardedAttempts counts the attempts of this worker whose answers were thrown away, also those
	// at requests that it returned unfinished, DiscardedTokens the tokens that they generated, as far
	// as their answers report them, and DiscardedSeconds the time that they took.
	DiscardedAttempts int64   `json:"discarded_attempts,omitempty"`
	DiscardedTokens   int64   `json:"discarded_tokens,omitempty"`
	DiscardedSeconds  float64 `json:"discarded_seconds,omitempty"`
}

// GPU is a graphics card of a worker's host. Null is unknown, and so is a MemoryBytes of 0.
type GPU struct {
	// Index is the driver's number of the card.
	Index int    `json:"index"`
	Name  string `json:"name"`
	// UUID is the same for all workers that see the card; empty: unknown.
	UUID               string   `json:"uuid,omitempty"`
	MemoryBytes        int64    `json:"memory_bytes"`
	MemoryUsedBytes    *int64   `json:"memory_used_bytes"`
	PowerWatts         *float64 `json:"power_watts"`
	UtilizationPercent *float64 `json:"utilization_percent"`
	TemperatureC       *float64 `json:"temperature_c"`
	// EnergyJoules is counted since the worker began.
	EnergyJoules *float64 `json:"energy_joules"`
}

// CollectorInfo names the collector that has the lease of a run, under the key collector.RUN. The
// lease keeps a second collector away.
type CollectorInfo struct {
	Host string `json:"host"`
	// Output is the path of the output on that host, without its suffixes.
	Output string `json:"output"`
}

// String names the collector's output for people.
func (c CollectorInfo) String() string { return c.Host + ":" + c.Output }

// CollectorLease is the value of a run's lease: the collector that has it, and its progress.
type CollectorLease struct {
	CollectorInfo
	// Progress is as of the latest renewal; null: the collector does not report it.
	Progress *CollectorProgress `json:"progress,omitempty"`
	// ReceivedAt is the time at which the bus received the latest renewal, if it was listed.
	ReceivedAt time.Time `json:"-"`
}

// CollectorProgress counts the requests of a run that its collector has results of. Results reach
// the synced output, and [Manifest.Counts], some seconds later.
type CollectorProgress struct {
	// Done counts the requests that were answered or failed.
	Done   int `json:"done"`
	Failed int `json:"failed"`
	// RequestsPerSecond is the rate over the last 30 s by the clock of the bus; null: unknown.
	RequestsPerSecond *float64 `json:"requests_per_second"`
	// Remaining is the time in seconds that the rest of the run takes, as an interval; null: unknown.
	Remaining *Interval `json:"remaining_seconds,omitempty"`
}

// Interval is an estimate: the value is between Low and High nine times in ten.
type Interval struct {
	Low      float64 `json:"low"`
	Expected float64 `json:"expected"`
	High     float64 `json:"high"`
}

// Bounds of an announcement.
const (
	// MaxWorkerName is the longest name of a worker in bytes. Names of hosts are shorter.
	MaxWorkerName = 256

	maxAnnouncement = 1 << 20
	maxText         = 4096    // bytes of a path, a URL or a sentence
	maxListed       = 10_000  // models, runs, cards
	maxInFlight     = 1 << 20 // requests
	maxRate         = 1e9     // requests a second
	maxSamples      = 600     // readings of ten minutes
	maxBuckets      = 200     // of a histogram
	maxDurations    = 1 << 42 // in a bucket: the tokens of a server in ten years
	maxJoules       = 1e15    // the energy of a thousand cards in thirty years
)

// ParseWorkerInfo reads a worker's announcement under a key of [PresenceBucket]. Its error is
// of the type [FieldError] where the announcement cannot be true: its numbers are added up.
func ParseWorkerInfo(key string, value []byte) (WorkerInfo, error) {
	var w WorkerInfo
	if len(value) > maxAnnouncement {
		return WorkerInfo{}, NewFieldError("announcement", "%d bytes", len(value))
	}

	if err := json.Unmarshal(value, &w); err != nil {
		return WorkerInfo{}, fmt.Errorf("announcement %s: %w: %w", Excerpt(key), ErrFormat, err)
	}

	if err := w.checkFields(key); err != nil {
		return WorkerInfo{}, fmt.Errorf("announcement %s: %w", Excerpt(key), err)
	}

	return w, nil
}

// checkFields returns the first field that cannot be true.
func (w WorkerInfo) checkFields(key string) error {
	texts := slices.Concat([]string{w.Host, w.Version, w.Server, w.Flavour, w.ServerVersion, w.Problem, w.DefaultModel},
		w.Models)
	for _, card := range w.GPU {
		texts = append(texts, card.Name, card.UUID)
	}

	switch {
	case key != w.Key():
		return NewFieldError("id", "%q", Excerpt(w.ID))
	case len(w.Name) > MaxWorkerName:
		return NewFieldError("name", "%d bytes", len(w.Name))
	case slices.ContainsFunc(texts, func(t string) bool { return len(t) > maxText }):
		return NewFieldError("announcement", "a text of more than %d bytes", maxText)
	case max(len(w.Models), len(w.ContextLength), len(w.Runs), len(w.GPU)) > maxListed:
		return NewFieldError("announcement", "a list of more than %d", maxListed)
	case w.Slots < 0 || w.Slots > maxInFlight:
		return NewFieldError("slots", "%d", w.Slots)
	case w.Engines < 0 || w.Engines > maxListed:
		return NewFieldError("engines", "%d", w.Engines)
	case w.Concurrency < 0 || w.Concurrency > maxInFlight:
		return NewFieldError("concurrency", "%d", w.Concurrency)
	case w.InFlight < 0 || w.InFlight > maxInFlight || w.Done < 0:
		return NewFieldError("in_flight", "%d, after %d requests", w.InFlight, w.Done)
	case w.Shards != nil && (*w.Shards < 0 || *w.Shards > maxInFlight):
		return NewFieldError("shards", "%d", *w.Shards)
	case w.PerSecond < 0 || w.PerSecond > maxRate || w.LatencySeconds < 0 || w.LatencySeconds > maxSeconds:
		return NewFieldError("requests_per_second", "%g, of %g s each", w.PerSecond, w.LatencySeconds)
	case !isAmount(w.LoadSeconds, maxSeconds) || !w.ModelLoad.isPossible():
		return NewFieldError("load_seconds", "a time below zero, or above %g s", maxSeconds)
	}

	if err := w.checkSamples(); err != nil {
		return err
	}

	if err := w.Departure.checkFields(); err != nil {
		return err
	}

	for run, usage := range w.Runs {
		if CheckRunID(run) != nil || !usage.isPossible() {
			return NewFieldError("runs", "%d requests of run %q", usage.Requests, Excerpt(run))
		}
	}

	if err := w.checkCards(); err != nil {
		return err
	}

	for model, length := range w.ContextLength {
		if length < 0 {
			return NewFieldError("context_length", "%d, of %q", length, Excerpt(model))
		}
	}

	return nil
}

// checkCards returns the first card that cannot be true.
func (w WorkerInfo) checkCards() error {
	for _, card := range w.GPU {
		if card.Index < 0 || card.MemoryBytes < 0 || card.MemoryUsedBytes != nil && *card.MemoryUsedBytes < 0 ||
			!isAmount(card.EnergyJoules, maxJoules) || !isAmount(card.PowerWatts, maxJoules) {
			return NewFieldError("gpu", "number %d with %d bytes", card.Index, card.MemoryBytes)
		}
	}

	return nil
}

// checkSamples returns the first reading, or histogram, that cannot be true.
func (w WorkerInfo) checkSamples() error {
	if len(w.Samples) > maxSamples {
		return NewFieldError("samples", "%d readings", len(w.Samples))
	}

	for _, s := range w.Samples {
		if s.InFlight < 0 || s.InFlight > maxInFlight || s.Limit < 0 || s.Limit > maxInFlight ||
			len(s.Runs) > maxListed {
			return NewFieldError("samples", "%d in flight of %d", s.InFlight, s.Limit)
		}

		for run, n := range s.Runs {
			if CheckRunID(run) != nil || n < 0 || n > maxInFlight {
				return NewFieldError("samples", "%d in flight of run %q", n, Excerpt(run))
			}
		}
	}

	if l := w.ServerLatency; l != nil && (!l.TimeToFirstToken.isPossible() || !l.TimePerOutputToken.isPossible()) {
		return NewFieldError("server_latency", "buckets that do not fit")
	}

	return nil
}

// isPossible reports whether the counts of a histogram, which may be nil, can be true.
func (h *Histogram) isPossible() bool {
	if h == nil {
		return true
	}

	for i, bound := range h.Bounds {
		if !isAmount(&bound, maxSeconds) || i > 0 && bound <= h.Bounds[i-1] {
			return false
		}
	}

	return len(h.Bounds) <= maxBuckets && len(h.Counts) == len(h.Bounds)+1 && isAmount(&h.Sum, maxJoules) &&
		!slices.ContainsFunc(h.Counts, func(n int64) bool { return n < 0 || n > maxDurations })
}

// isPossible reports whether counts of a run can be true.
func (u RunUsage) isPossible() bool {
	return min(u.Requests, u.Redeliveries, u.Rerun, u.DiscardedAttempts, u.DiscardedTokens) >= 0 &&
		isAmount(&u.DiscardedSeconds, maxSeconds) && isAmount(u.EnergyJoules, maxJoules)
}

// isPossible reports whether an interval, which may be nil, can be true.
func (i *Interval) isPossible() bool {
	return i == nil || 0 <= i.Low && i.Low <= i.Expected && i.Expected <= i.High && i.High <= maxSeconds
}

// isAmount reports whether a number is unknown, or one from 0 to most.
func isAmount(n *float64, most float64) bool { return n == nil || *n >= 0 && *n <= most }

// ParseCollectorLease reads the lease of a run's collector.
func ParseCollectorLease(value []byte) (CollectorLease, error) {
	var l CollectorLease
	if err := json.Unmarshal(value, &l); err != nil {
		return CollectorLease{}, fmt.Errorf("announcement of a collector: %w: %w", ErrFormat, err)
	}

	if len(l.Host) > maxText || len(l.Output) > maxText || l.CollectorInfo == (CollectorInfo{}) {
		return CollectorLease{}, fmt.Errorf("announcement of a collector: %w",
			NewFieldError("output", "%q", Excerpt(l.String())))
	}

	if p := l.Progress; p != nil && (p.Failed < 0 || p.Done < p.Failed || p.Done > math.MaxUint32 ||
		!isAmount(p.RequestsPerSecond, maxRate) || !p.Remaining.isPossible()) {
		return CollectorLease{}, fmt.Errorf("announcement of a collector: %w",
			NewFieldError("progress", "%d done, %d failed", p.Done, p.Failed))
	}

	return l, nil
}

// Labels returns names of n workers for people: the name and, where several have it, a part of
// the id that makes it unique.
func Labels(n int, of func(i int) (name, id string)) []string {
	const short = 4
	count, begins := map[string]int{}, map[string]int{}

	for i := range n {
		name, id := of(i)
		count[name]++
		begins[name+"\x00"+id[:min(short, len(id))]]++
	}

	labels := make([]string, n)
	for i := range n {
		name, id := of(i)

		labels[i] = name
		if count[name] < 2 || id == "" {
			continue
		}

		if begin := id[:min(short, len(id))]; begins[name+"\x00"+begin] == 1 {
			id = begin
		}

		labels[i] = name + " (" + id + ")"
	}

	return labels
}

// Labelled returns announced workers with their [Labels] in place of their names, to be shown.
func Labelled(workers []WorkerInfo) []WorkerInfo {
	labels := Labels(len(workers), func(i int) (name, id string) { return workers[i].Name, workers[i].ID })

	list := slices.Clone(workers)
	for i := range list {
		list[i].Name = labels[i]
	}

	return list
}
