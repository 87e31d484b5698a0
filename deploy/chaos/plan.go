package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// shape describes a deployment. Two runs are submitted to it, a and b, and one
// reader reads a downstream.
type shape struct {
	seed     uint64
	time     time.Duration // of faults
	requests int           // of each run
	workers  int           // each with a model server of its own
	nodes    int           // of a cluster; 0: serve has its own bus
	only     []string      // kinds of events; none: all
}

// event is something that happens to a part of the deployment.
type event struct {
	at        time.Duration // since the beginning
	duration  time.Duration // until it is undone; 0: there is nothing to undo
	kind      *faultKind
	target    string
	clockStep time.Duration // how far a clock is put forward, or back
	seed      uint64        // of its random choices
}

func (e event) String() string {
	text := e.kind.name
	if e.target != "" {
		text += " " + e.target
	}
	if e.clockStep != 0 {
		text += fmt.Sprintf(" by %+gs", e.clockStep.Seconds())
	}
	if e.duration > 0 {
		text += fmt.Sprintf(" for %s", e.duration)
	}

	return text
}

// Between two events.
const (
	shortGap = time.Second
	longGap  = 5 * time.Second
)

// makePlan draws the events of a deployment. It follows from the shape alone.
func makePlan(s shape) (events []event) {
	random := rand.New(rand.NewPCG(s.seed, 1))
	kinds := slices.DeleteFunc(slices.Clone(faultKinds), func(d *faultKind) bool {
		return d.weight == 0 || len(s.only) > 0 && !slices.Contains(s.only, d.name)
	})

	busy := map[string]time.Duration{} // until when something happens to a part
	second := event{
		at:     s.time / 5,
		kind:   findFaultKind("submit"),
		target: "b",
		seed:   random.Uint64(),
	}

	events = append(events, event{kind: findFaultKind("submit"), target: "a", seed: random.Uint64()}, second)
	for at := longGap; ; at += drawTime(random, shortGap, longGap) {
		if at >= s.time {
			break
		}

		d := drawKind(random, kinds)
		targets := slices.DeleteFunc(d.targets(s), func(target string) bool {
			return slices.ContainsFunc(d.conflicts(target), func(part string) bool { return busy[part] > at })
		})
		if len(targets) == 0 {
			continue
		}

		e := event{
			at:     at,
			kind:   d,
			target: targets[random.IntN(len(targets))],
			seed:   random.Uint64(),
		}
		if d.maxTime > 0 {
			e.duration = drawTime(random, d.minTime, d.maxTime)
			if d.lasting && random.IntN(8) == 0 { // longer than a shard waits for a worker
				e.duration += 30 * time.Second
			}
			e.duration = min(e.duration, s.time-at)
		}

		if d.steps != nil {
			amounts := d.steps(s, e.target)
			e.clockStep = amounts[e.seed%uint64(len(amounts))]
		}

		for _, part := range d.conflicts(e.target) {
			busy[part] = at + e.duration + d.rest
		}

		events = append(events, e)
	}

	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })

	return events
}

// drawTime draws a time in tenths of a second.
func drawTime(random *rand.Rand, from, to time.Duration) time.Duration {
	return (from + time.Duration(random.Int64N(int64(to-from)+1))).Round(100 * time.Millisecond)
}

// drawKind draws a kind of fault by weight.
func drawKind(random *rand.Rand, kinds []*faultKind) *faultKind {
	total := 0
	for _, d := range kinds {
		total += d.weight
	}

	n := random.IntN(total)
	for _, d := range kinds {
		if n -= d.weight; n < 0 {
			return d
		}
	}

	panic("unreachable")
}

func findFaultKind(name string) *faultKind {
	return faultKinds[slices.IndexFunc(faultKinds, func(d *faultKind) bool { return d.name == name })]
}

// Names of parts.

func numberedNames(what string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d", what, i+1))
	}
	return names
}

func (s shape) workerNames() []string { return numberedNames("worker", s.workers) }
func (s shape) modelNames() []string  { return numberedNames("model", s.workers) }
func (s shape) nodeNames() []string   { return numberedNames("node", s.nodes) }

// processNames are the parts that are processes all the time.
func (s shape) processNames() []string {
	return slices.Concat([]string{"serve", "reader"}, s.nodeNames(), s.workerNames(), s.modelNames())
}

// linkNames are the ways between the parts. A worker has one to the bus and one to its
// model server.
func (s shape) linkNames() (names []string) {
	for _, w := range s.workerNames() {
		names = append(names, w+"-bus", w+"-model")
	}

	names = append(names, "reader-bus", "submit-bus")
	if s.nodes > 0 {
		names = append(names, "serve-bus")
	}

	return names
}

// formatPlan is a plan for people.
func formatPlan(events []event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%7.1fs  %s\n", e.at.Seconds(), e)
	}
	return b.String()
}
