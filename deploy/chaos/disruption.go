package main

import (
	"slices"
	"strings"
	"time"
)

// disruption is an event that broke paths of answers, from its injection until it was cleared.
type disruption struct {
	what     string
	workers  []string // that failed, or were cut off from a working bus
	models   []string // workers whose model servers, or links to them, failed
	from, to time.Time
	recovery time.Duration // until the parts are again as if nothing had been
}

func (h disruption) String() string { return h.what }

// storeLoss is a loss of the bus's store: the requests that were on the bus run again, unless the
// collector has it in its file.
type storeLoss struct {
	run  string
	at   time.Time
	kept map[int]bool // requests with a line in the journal, by number
}

const (
	// storeTime bounds the time of an answer from the model server to the bus while all parts
	// well: a few milliseconds, and more on a machine where all parts share two cores.
	storeTime = time.Second
	// holdTime bounds the time that a worker holds a request before it sends it.
	holdTime = 10 * time.Second
)

// mayLose reports whether an answer may not have come to the bus because of the disruption.
func (h disruption) mayLose(e execution) bool {
	if !slices.Contains(h.workers, e.worker) && !slices.Contains(h.models, e.worker) {
		return false
	}

	return h.from.Before(e.end.Add(storeTime)) && e.start.Before(h.to.Add(h.recovery))
}

// mayHide reports whether the worker of a later execution may not have known of an earlier
// one: its shard was given to another while it was away, and it went on where it was.
func (h disruption) mayHide(earlier, later execution) bool {
	if !slices.Contains(h.workers, later.worker) {
		return false
	}

	return h.from.Before(earlier.end.Add(storeTime)) && later.start.Before(h.to.Add(h.recovery+holdTime))
}

// includes reports whether the answer of a request was on the bus alone when its store was lost.
func (l storeLoss) includes(run string, seq int, e execution) bool {
	return l.run == run && e.start.Before(l.at) && !l.kept[seq]
}

// disruptions are the events that broke paths of answers in a deployment.
type disruptions struct {
	list   []disruption
	losses []storeLoss
}

// countModelCrashes returns how often model servers were killed. Faults are switched on and off
// by a restart.
func (d disruptions) countModelCrashes() (n int) {
	for _, h := range d.list {
		switch {
		case len(h.models) == 0:
		case strings.HasPrefix(h.what, "kill "):
			n++
		case strings.HasPrefix(h.what, "faults "):
			n += 2
		}
	}

	return n
}

// mayRepeat reports whether a request may have been answered once more although it had been
// answered before.
func (d disruptions) mayRepeat(run string, seq int, earlier, later execution) bool {
	return d.mayLose(run, seq, earlier) ||
		slices.ContainsFunc(d.list, func(h disruption) bool { return h.mayHide(earlier, later) })
}

// mayLose reports whether something happened to the way of an answer.
func (d disruptions) mayLose(run string, seq int, e execution) bool {
	return slices.ContainsFunc(d.list, func(h disruption) bool { return h.mayLose(e) }) ||
		slices.ContainsFunc(d.losses, func(l storeLoss) bool { return l.includes(run, seq, e) })
}

// The recovery of parts: until a client has found the bus again, until a bus that was away has
// all its clients, and until a cluster has a leader for each stream and consumer.
const (
	recoveryOfLink    = 2 * time.Second
	recoveryOfBus     = 3 * time.Second
	recoveryOfCluster = 5 * time.Second
)

// disruptionOf returns which paths of answers cross a part.
func (s shape) disruptionOf(part string) (h disruption) {
	name, end, _ := strings.Cut(part, "-")
	number := strings.TrimLeft(name, "adelmorkw") // of workerN and modelN
	switch {
	case end == "model", strings.HasPrefix(name, "model"):
		h.models = []string{"worker" + number}
		h.recovery = recoveryOfLink
	case strings.HasPrefix(name, "worker"):
		h.workers = []string{name}
		h.recovery = recoveryOfLink
	case strings.HasPrefix(name, "node"):
		h.workers = s.workerNames()
		h.recovery = recoveryOfCluster
	case s.nodes == 0 && (part == "serve" || part == "store" || part == "out"): // of serve, which is the bus
		h.workers = s.workerNames()
		h.recovery = recoveryOfBus
	}

	return h
}

// disruptionBy returns the disruption by an event. Only the bus decides by a
// clock that can be stepped how long a shard has been away.
func (s shape) disruptionBy(e event) disruption {
	if e.kind.name == "clock" && !slices.Contains(storeNames(s), e.target) {
		return disruption{}
	}

	h := s.disruptionOf(e.target)
	if e.kind.name == "foreign worker" { // it naks the shards of other workers
		h = disruption{workers: s.workerNames(), recovery: recoveryOfLink}
	}

	h.what = e.String()

	return h
}
