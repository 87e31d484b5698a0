package page

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// readTime is the time limit of one look at the bus.
const readTime = 3 * time.Second

// sight is what was seen of the bus at a moment.
type sight struct {
	at      time.Time
	runs    map[string]proto.Manifest // nil: the bus has not answered yet
	workers []proto.WorkerInfo
	leases  map[string]proto.CollectorLease
	bus     Bus
	// problem is a sentence: why the sight is older than at. Empty: it is not.
	problem string
}

// observer looks at a bus.
type observer struct {
	link  *busconn.Connection
	bus   *bus.Bus
	gauge *busGauge

	// mu guards the fields below, which watch replaces.
	mu      sync.Mutex
	started chan struct{}             // is closed when the runs are known
	runs    map[string]proto.Manifest // nil until then

	last   sight
	seenAt time.Time // of the last sight without a problem
}

// newObserver returns an observer of a bus. dir is the folder of the outputs.
func newObserver(link *busconn.Connection, own bool, dir string) *observer {
	return &observer{
		link:    link,
		bus:     bus.New(link.JS),
		gauge:   newBusGauge(link, own, dir),
		started: make(chan struct{}),
		last:    sight{bus: Bus{Streams: []Stream{}, Warnings: []string{}}},
	}
}

// watch keeps the runs up to date until ctx ends. It asks the bus for what has changed alone: most of a bus is runs
// that have ended.
func (o *observer) watch(ctx context.Context) {
	defer o.forget()

	for runs, err := range o.bus.Runs.WatchAll(ctx) {
		if err != nil {
			return // of ctx, or of a connection that is closed, which look reports
		}

		o.keep(runs)
	}
}

// keep keeps the runs as they are now.
func (o *observer) keep(runs map[string]proto.Manifest) {
	o.mu.Lock()
	defer o.mu.Unlock()

	if o.runs == nil {
		close(o.started)
	}
	o.runs = runs
}

// forget forgets the runs: they are old when the next viewer comes.
func (o *observer) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()

	if o.runs != nil {
		o.started = make(chan struct{})
	}
	o.runs = nil
}

// look looks at the bus. What cannot be read is as it was seen last, with a sentence about it.
func (o *observer) look(ctx context.Context) sight {
	now := time.Now()

	next, err := o.read(ctx, now)
	if err == nil {
		o.last, o.seenAt = next, now
		return next
	}

	stale := o.last
	stale.at, stale.bus.Connected = now, false
	stale.problem = "The bus does not answer."
	if !o.seenAt.IsZero() {
		stale.problem = fmt.Sprintf("The bus does not answer. What is shown is %s old.",
			now.Sub(o.seenAt).Round(time.Second))
	}

	return stale
}

// read reads the bus.
func (o *observer) read(ctx context.Context, now time.Time) (sight, error) {
	if o.link.Conn.Status() != nats.CONNECTED {
		return sight{}, nats.ErrDisconnected
	}

	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()

	runs, err := o.awaitRuns(ctx)
	if err != nil {
		return sight{}, err
	}

	workers, err := o.bus.Heartbeats.Workers(ctx)
	if err != nil {
		return sight{}, err
	}

	leases, err := o.bus.Leases.List(ctx)
	if err != nil {
		return sight{}, err
	}

	s := sight{
		at:      now,
		runs:    runs,
		workers: workers,
		leases:  leases,
	}
	s.bus = o.gauge.read(ctx, s.runs, now)

	return s, nil
}

// awaitRuns returns the runs as they were seen last.
func (o *observer) awaitRuns(ctx context.Context) (map[string]proto.Manifest, error) {
	o.mu.Lock()
	started := o.started
	o.mu.Unlock()

	select {
	case <-started:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}

	o.mu.Lock()
	defer o.mu.Unlock()

	return maps.Clone(o.runs), nil
}
