package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// shape is what a deployment is made of. Two runs are submitted to it, a and b, and one
// reader reads a downstream.
type shape struct {
	seed     uint64
	time     time.Duration // in which it is hurt
	requests int           // of each run
	workers  int           // each with a model server of its own
	nodes    int           // of a cluster; 0: serve has its own bus
	only     []string      // kinds of events; none: all
}

// event is something that happens to a part of the deployment.
type event struct {
	at     time.Duration // since the beginning
	length time.Duration // until it is undone; 0: there is nothing to undo
	deed   *deed
	target string
	by     time.Duration // how far a clock is put forward, or back
	dice   uint64        // for what is left to chance in it
}

func (e event) String() string {
	text := e.deed.name
	if e.target != "" {
		text += " " + e.target
	}
	if e.by != 0 {
		text += fmt.Sprintf(" by %+gs", e.by.Seconds())
	}
	if e.length > 0 {
		text += fmt.Sprintf(" for %s", e.length)
	}

	return text
}

// Between two events.
const (
	shortGap = time.Second
	longGap  = 5 * time.Second
)

// plan draws the events of a deployment. It follows from the shape alone.
func plan(s shape) (events []event) {
	random := rand.New(rand.NewPCG(s.seed, 1))
	kinds := slices.DeleteFunc(slices.Clone(deeds), func(d *deed) bool {
		return d.weight == 0 || len(s.only) > 0 && !slices.Contains(s.only, d.name)
	})

	busy := map[string]time.Duration{} // until when something happens to a part
	second := event{
		at:     s.time / 5,
		deed:   deedNamed("submit"),
		target: "b",
		dice:   random.Uint64(),
	}

	events = append(events, event{deed: deedNamed("submit"), target: "a", dice: random.Uint64()}, second)
	for at := longGap; ; at += between(random, shortGap, longGap) {
		if at >= s.time {
			break
		}

		d := draw(random, kinds)
		targets := slices.DeleteFunc(d.targets(s), func(target string) bool {
			return slices.ContainsFunc(d.harms(target), func(part string) bool { return busy[part] > at })
		})
		if len(targets) == 0 {
			continue
		}

		e := event{
			at:     at,
			deed:   d,
			target: targets[random.IntN(len(targets))],
			dice:   random.Uint64(),
		}
		if d.long > 0 {
			e.length = between(random, d.short, d.long)
			if d.lasting && random.IntN(8) == 0 { // longer than a shard waits for a worker
				e.length += 30 * time.Second
			}
			e.length = min(e.length, s.time-at)
		}

		if d.steps != nil {
			amounts := d.steps(s, e.target)
			e.by = amounts[e.dice%uint64(len(amounts))]
		}

		for _, part := range d.harms(e.target) {
			busy[part] = at + e.length + d.rest
		}

		events = append(events, e)
	}

	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })

	return events
}

// between draws a time in tenths of a second.
func between(random *rand.Rand, from, to time.Duration) time.Duration {
	return (from + time.Duration(random.Int64N(int64(to-from)+1))).Round(100 * time.Millisecond)
}

// draw draws a kind of deed by weight.
func draw(random *rand.Rand, kinds []*deed) *deed {
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

func deedNamed(name string) *deed {
	return deeds[slices.IndexFunc(deeds, func(d *deed) bool { return d.name == name })]
}

// Names of parts.

func numbered(what string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d", what, i+1))
	}
	return names
}

func (s shape) workerNames() []string { return numbered("worker", s.workers) }
func (s shape) modelNames() []string  { return numbered("model", s.workers) }
func (s shape) nodeNames() []string   { return numbered("node", s.nodes) }

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

// text is a plan for people.
func text(events []event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%7.1fs  %s\n", e.at.Seconds(), e)
	}
	return b.String()
}
