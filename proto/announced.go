package proto

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Bounds of what an announcement may say.
const (
	// MaxWorkerName is the longest name of a worker in bytes. Names of hosts are shorter.
	MaxWorkerName = 256

	maxAnnouncement = 1 << 20
	maxText         = 4096    // of a path, a URL or a sentence, in bytes
	maxListed       = 10_000  // models, runs, cards
	maxAtOnce       = 1 << 20 // requests
	maxRate         = 1e9     // requests a second
	maxJoules       = 1e15    // what a thousand cards take in thirty years
)

// Key is the key that the announcement stands under.
func (w WorkerInfo) Key() string {
	if w.ID != "" {
		return WorkerKey(w.ID)
	}
	return WorkerKey(w.Name)
}

// ParseWorkerInfo reads a worker's announcement under a key of [PresenceBucket]. Its error is
// of the type [FieldError] where it cannot be true: sums are made of these numbers.
func ParseWorkerInfo(key string, value []byte) (WorkerInfo, error) {
	var w WorkerInfo
	if len(value) > maxAnnouncement {
		return WorkerInfo{}, NewFieldError("announcement", "%d bytes", len(value))
	}

	if err := json.Unmarshal(value, &w); err != nil {
		return WorkerInfo{}, fmt.Errorf("announcement %s: %w: %w", Excerpt(key), ErrFormat, err)
	}

	if err := w.check(key); err != nil {
		return WorkerInfo{}, fmt.Errorf("announcement %s: %w", Excerpt(key), err)
	}

	return w, nil
}

func (w WorkerInfo) check(key string) error {
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
	case w.Slots < 0 || w.Slots > maxAtOnce:
		return NewFieldError("slots", "%d", w.Slots)
	case w.Concurrency < 0 || w.Concurrency > maxAtOnce:
		return NewFieldError("concurrency", "%d", w.Concurrency)
	case w.InFlight < 0 || w.InFlight > maxAtOnce || w.Done < 0:
		return NewFieldError("in_flight", "%d, after %d requests", w.InFlight, w.Done)
	case w.Shards != nil && (*w.Shards < 0 || *w.Shards > maxAtOnce):
		return NewFieldError("shards", "%d", *w.Shards)
	case w.PerSecond < 0 || w.PerSecond > maxRate || w.LatencySeconds < 0 || w.LatencySeconds > maxSeconds:
		return NewFieldError("requests_per_second", "%g, of %g s each", w.PerSecond, w.LatencySeconds)
	}

	for run, share := range w.Runs {
		if CheckRunID(run) != nil || share.Requests < 0 || share.Redeliveries < 0 ||
			!isAmount(share.EnergyJoules, maxJoules) {
			return NewFieldError("runs", "%d requests of run %q", share.Requests, Excerpt(run))
		}
	}

	for _, card := range w.GPU {
		if card.Index < 0 || card.MemoryBytes < 0 || card.MemoryUsedBytes != nil && *card.MemoryUsedBytes < 0 ||
			!isAmount(card.EnergyJoules, maxJoules) || !isAmount(card.PowerWatts, maxJoules) {
			return NewFieldError("gpu", "number %d with %d bytes", card.Index, card.MemoryBytes)
		}
	}

	for model, length := range w.ContextLength {
		if length < 0 {
			return NewFieldError("context_length", "%d, of %q", length, Excerpt(model))
		}
	}

	return nil
}

// isAmount reports whether a number is unknown, or one from 0 to most.
func isAmount(n *float64, most float64) bool { return n == nil || *n >= 0 && *n <= most }

// ParseCollectorInfo reads the announcement of a run's collector.
func ParseCollectorInfo(value []byte) (CollectorInfo, error) {
	var c CollectorInfo
	if err := json.Unmarshal(value, &c); err != nil {
		return CollectorInfo{}, fmt.Errorf("announcement of a collector: %w: %w", ErrFormat, err)
	}

	if len(c.Host) > maxText || len(c.Output) > maxText || c == (CollectorInfo{}) {
		return CollectorInfo{}, fmt.Errorf("announcement of a collector: %w",
			NewFieldError("output", "%q", Excerpt(c.String())))
	}

	return c, nil
}

// Labels are what people are shown of n workers: the name and, where several have it, a
// part of the id that tells them apart.
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

// Labelled are announced workers with their [Labels] in place of their names, to be shown.
func Labelled(workers []WorkerInfo) []WorkerInfo {
	labels := Labels(len(workers), func(i int) (name, id string) { return workers[i].Name, workers[i].ID })
	list := slices.Clone(workers)
	for i := range list {
		list[i].Name = labels[i]
	}
	return list
}
