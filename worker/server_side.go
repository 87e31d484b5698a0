package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/promptmill/promptmill/worker/modelserver"
)

// serverSide is the part of a worker that faces the model server.
//
//	task -> sendGate -> attemptPool -> attemptRunner -> model server
//	            ^                            |
//	            |                            +-> a result
//	            |                            +-> the queue again     (retryBudgets, backoffDelay)
//	       serverState                       +-> refusals            (refusalWatcher)
//	            ^                            +-> cutoffs             (cutoffRetrier)
//	            |                            +-> stalledTask         (hangProbe)
//	serverHealth, loadWatch                  +-> quarantine
//
// serverHealth probes the server, loadWatch reads its gauges: they set the serverState, which opens
// and closes the gate. A server that fails all attempts leaves it open: the failureStreak only
// reports that. The attemptRunner classifies each answer. Where that does not show the
// next step, it sets the request aside: refused as perhaps all requests are, cut off by a proxy,
// unanswered by a server that may hang, or in flight when the server died. A loop of its own then
// decides on these, in brackets.
type serverSide struct {
	// changes is notified when the gate may have opened or closed, and when a request is set aside.
	changes *broadcast

	// These know the server.
	state    *serverState
	health   *serverHealth
	progress *serverProgress
	failures *failureStreak
	load     *loadWatch
	saved    *savedLimit

	// These send requests to it.
	gate     *sendGate
	pool     *attemptPool
	attempts *attemptRunner
	budgets  *retryBudgets

	// These hold requests until others show the meaning of their answers, and send them again.
	admissions     *admissions
	refusals       *refusals
	refusalWatcher *refusalWatcher
	cutoffs        *cutoffs
	cutoffRetrier  *cutoffRetrier
	stalled        *stalledTask
	hangProbe      *hangProbe
	quarantine     *quarantine
}

// serverSideDeps has the parts of a worker that its server side needs.
type serverSideDeps struct {
	sharedParts

	queue *requestQueue
	stats *Stats
	costs *departureCosts

	// stop ends the worker with an error.
	stop func(error)
	// startAttempt begins an attempt at a task as soon as there is a slot.
	startAttempt func(context.Context, *task)
}

func newServerSide(cfg Config, d serverSideDeps) *serverSide {
	s := &serverSide{
		changes:  &broadcast{},
		progress: &serverProgress{},
		stalled:  &stalledTask{},
		budgets:  &retryBudgets{},
	}

	s.admissions = &admissions{created: time.Now(), changes: s.changes}
	s.refusals = &refusals{changes: s.changes}
	s.cutoffs = &cutoffs{
		limiter:    cfg.Limiter,
		admissions: s.admissions,
		changes:    s.changes,
		hasSamples: len(cfg.Samples) > 0,
	}

	s.saved = &savedLimit{
		memory:  cfg.Memory,
		limiter: cfg.Limiter,
		server:  cfg.Server,
		log:     cfg.Log,
	}

	s.addHealth(cfg)
	s.failures = &failureStreak{
		server:     cfg.Server,
		state:      s.state,
		held:       d.held,
		log:        cfg.Log,
		after:      silentAfter,
		quotaAfter: quotaSilentAfter,
	}

	s.addAttempts(cfg, d)
	s.addWatchers(cfg, d)
	s.connect(cfg, d)

	return s
}

// addHealth makes the parts that know whether the server takes requests.
func (s *serverSide) addHealth(cfg Config) {
	s.state = &serverState{
		server:   cfg.Server,
		process:  cfg.Process,
		progress: s.progress,
		log:      cfg.Log,
		changes:  s.changes,
	}

	s.health = &serverHealth{
		server:   cfg.Server,
		process:  cfg.Process,
		limiter:  cfg.Limiter,
		state:    s.state,
		progress: s.progress,
		notices:  cfg.Notices,
		stall:    cfg.Stall,
		log:      cfg.Log,
		report:   cfg.OnInfo,
	}

	s.gate = &sendGate{
		state:      s.state,
		refusals:   s.refusals,
		admissions: s.admissions,
		cutoffs:    s.cutoffs,
		changes:    s.changes,
	}
}

// addAttempts makes the parts that send requests.
func (s *serverSide) addAttempts(cfg Config, d serverSideDeps) {
	s.quarantine = &quarantine{
		state: s.state,
		log:   cfg.Log,
		start: d.startAttempt,
	}

	s.attempts = &attemptRunner{
		server:      cfg.Server,
		limiter:     cfg.Limiter,
		health:      s.health,
		state:       s.state,
		progress:    s.progress,
		failures:    s.failures,
		queue:       d.queue,
		admissions:  s.admissions,
		refusals:    s.refusals,
		cutoffs:     s.cutoffs,
		stalled:     s.stalled,
		quarantine:  s.quarantine,
		budgets:     s.budgets,
		stats:       d.stats,
		sampler:     d.sampler,
		observer:    cfg.Observer,
		latency:     d.latency,
		latencies:   d.latencies,
		costs:       d.costs,
		fetchWake:   d.wakeFetch,
		log:         cfg.Log,
		maxAttempts: cfg.Attempts,
		timeout:     cfg.Timeout,
		stall:       cfg.Stall,
	}

	s.pool = newAttemptPool(s.attempts.run)
	s.quarantine.wait = s.pool.wait
}

// addWatchers makes the loops that watch the server.
func (s *serverSide) addWatchers(cfg Config, d serverSideDeps) {
	stop := d.stop
	if !cfg.StopRefused {
		stop = nil
	}

	s.load = &loadWatch{
		server:    cfg.Server,
		limiter:   cfg.Limiter,
		health:    s.health,
		state:     s.state,
		progress:  s.progress,
		notices:   cfg.Notices,
		stats:     d.stats,
		latency:   d.latency,
		held:      d.held,
		stall:     cfg.Stall,
		timeout:   cfg.Timeout,
		log:       cfg.Log,
		fetchWake: d.wakeFetch,
	}

	s.refusalWatcher = &refusalWatcher{
		server:     cfg.Server,
		state:      s.state,
		refusals:   s.refusals,
		admissions: s.admissions,
		attempts:   s.attempts,
		held:       d.held,
		timeout:    cfg.Timeout,
		changes:    s.changes,
		samples:    cfg.Samples,
		stop:       stop,
	}

	s.cutoffRetrier = &cutoffRetrier{
		server:     cfg.Server,
		limiter:    cfg.Limiter,
		health:     s.health,
		state:      s.state,
		cutoffs:    s.cutoffs,
		refusals:   s.refusals,
		admissions: s.admissions,
		attempts:   s.attempts,
		pool:       s.pool,
		changes:    s.changes,
		stats:      d.stats,
		held:       d.held,
		stop:       stop,
	}

	s.hangProbe = &hangProbe{
		state:    s.state,
		progress: s.progress,
		stalled:  s.stalled,
		attempts: s.attempts,
		pool:     s.pool,
	}
}

// connect sets the actions for changes of the server's state.
func (s *serverSide) connect(cfg Config, d serverSideDeps) {
	s.state.newEpoch()
	s.state.onUp = func() {
		s.attempts.releaseStalled()
		d.queue.wake()
		d.wakeFetch.notify()
	}

	s.state.onRefusing = func() {
		handBackAll(s.takeAside(anyTask))
	}

	s.health.onExpired = func() {
		handBackAll(slices.Concat(d.queue.removeTasks(anyTask), s.quarantine.take(anyTask), s.takeAside(anyTask)))
	}

	s.health.onInfo = func(info modelserver.Info) {
		cfg.Limiter.SetSlots(info.Slots)
		s.saved.resumeLimit(info)
		d.queue.setSharing(sharingOf(info.Flavour), info.Slots)
	}

	s.health.isProxyDown = s.cutoffs.isRecent
	s.health.resend = s.hangProbe.startProbe
}

// run watches the model server until ctx ends.
func (s *serverSide) run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { s.health.run(ctx) })
	loops.Go(func() { s.health.watchProcess(ctx) })
	loops.Go(func() { s.failures.run(ctx) })
	loops.Go(func() { s.load.run(ctx) })
	loops.Go(func() { s.saved.run(ctx) })
	loops.Go(func() { s.refusalWatcher.run(ctx) })
	loops.Go(func() { s.cutoffRetrier.run(ctx) })
	loops.Wait()
}

// close waits for the attempts that are under way, and hands back all tasks that are left. After
// it, nothing is set aside any more.
func (s *serverSide) close() {
	s.pool.close()
	handBackAll(s.take(anyTask))

	for _, r := range s.refusals.close() {
		r.task.handBack()
	}

	handBackAll(s.cutoffs.close())
}

// take removes the tasks that wait, and for which wanted returns true, and returns them.
func (s *serverSide) take(wanted func(*task) bool) []*task {
	taken := slices.Concat(s.quarantine.take(wanted), s.takeAside(wanted))
	if t := s.stalled.take(wanted); t != nil {
		taken = append(taken, t)
	}

	return taken
}

// takeAside removes the tasks that were refused or cut off, and for which wanted returns true, and
// returns them.
func (s *serverSide) takeAside(wanted func(*task) bool) []*task {
	taken := s.cutoffs.take(wanted)
	for _, r := range s.refusals.take(func(r refusal) bool { return wanted(r.task) }) {
		taken = append(taken, r.task)
	}

	return taken
}

// setAsideCount returns the number of tasks that were refused or cut off.
func (s *serverSide) setAsideCount() int { return int(s.refusals.n.Load() + s.cutoffs.n.Load()) }

func anyTask(*task) bool { return true }

// handBackAll hands tasks back to the bus.
func handBackAll(tasks []*task) {
	for _, t := range tasks {
		t.handBack()
	}
}

// extractFunc splits a list into the elements for which wanted returns true and the rest. It
// reuses the list for the rest.
func extractFunc[T any](list []T, wanted func(T) bool) (taken, rest []T) {
	rest = slices.DeleteFunc(list, func(e T) bool {
		if wanted(e) {
			taken = append(taken, e)
			return true
		}
		return false
	})

	return taken, rest
}
