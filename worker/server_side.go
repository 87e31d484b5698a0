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
//	            serverHealth   is the server up?          loadWatch   gauges to the limiter, hangs
//	                 |                                       |
//	task -> sendGate -> attemptRunner -> model server        |
//	                 |                                       |
//	                 +-> finish, or queue again      (retryBudgets, backoffDelay)
//	                 +-> refusals     refused, perhaps as all requests are   (refusalWatcher)
//	                 +-> cutoffs      cut off by what is in front            (cutoffRetrier)
//	                 +-> stalledTask  unanswered by a server that may hang   (hangProbe)
//	                 +-> quarantine   in flight when the server died
type serverSide struct {
	health     *serverHealth
	progress   *serverProgress
	load       *loadWatch
	saved      *savedLimit
	gate       *sendGate
	attempts   *attemptRunner
	pool       *attemptPool
	refusals   *refusals
	cutoffs    *cutoffs
	stalled    *stalledTask
	quarantine *quarantine
	budgets    *retryBudgets

	refusalWatcher *refusalWatcher
	cutoffRetrier  *cutoffRetrier
}

// serverSideDeps is what the server side needs of its worker.
type serverSideDeps struct {
	queue     *requestQueue
	stats     *Stats
	latency   *latencyEstimate
	held      *heldCounter
	fetchWake signal

	// stop ends the worker with an error.
	stop func(error)
	// startAttempt begins an attempt at a task as soon as there is a slot.
	startAttempt func(context.Context, *task)
}

func newServerSide(cfg Config, d serverSideDeps) *serverSide {
	stop := d.stop
	if !cfg.StopRefused {
		stop = nil
	}

	changes := &broadcast{}
	progress := &serverProgress{}
	admissions := &admissions{created: time.Now(), changes: changes}
	s := &serverSide{
		progress: progress,
		refusals: &refusals{changes: changes},
		stalled:  &stalledTask{},
		budgets:  &retryBudgets{},
		cutoffs: &cutoffs{
			limiter:    cfg.Limiter,
			admissions: admissions,
			changes:    changes,
			hasSamples: len(cfg.Samples) > 0,
		},
		saved: &savedLimit{
			memory:  cfg.Memory,
			limiter: cfg.Limiter,
			server:  cfg.Server,
			log:     cfg.Log,
		},
		health: &serverHealth{
			server:   cfg.Server,
			process:  cfg.Process,
			limiter:  cfg.Limiter,
			progress: progress,
			notices:  cfg.Notices,
			stall:    cfg.Stall,
			log:      cfg.Log,
			changes:  changes,
		},
		quarantine: &quarantine{
			log:   cfg.Log,
			start: d.startAttempt,
		},
	}

	s.gate = &sendGate{
		health:     s.health,
		refusals:   s.refusals,
		admissions: admissions,
		cutoffs:    s.cutoffs,
		changes:    changes,
	}
	s.load = &loadWatch{
		server:    cfg.Server,
		limiter:   cfg.Limiter,
		health:    s.health,
		progress:  progress,
		notices:   cfg.Notices,
		stats:     d.stats,
		latency:   d.latency,
		held:      d.held,
		stall:     cfg.Stall,
		timeout:   cfg.Timeout,
		log:       cfg.Log,
		fetchWake: d.fetchWake,
	}
	s.attempts = &attemptRunner{
		server:      cfg.Server,
		limiter:     cfg.Limiter,
		health:      s.health,
		progress:    progress,
		queue:       d.queue,
		admissions:  admissions,
		refusals:    s.refusals,
		cutoffs:     s.cutoffs,
		stalled:     s.stalled,
		quarantine:  s.quarantine,
		budgets:     s.budgets,
		stats:       d.stats,
		latency:     d.latency,
		fetchWake:   d.fetchWake,
		log:         cfg.Log,
		maxAttempts: cfg.Attempts,
		timeout:     cfg.Timeout,
		stall:       cfg.Stall,
	}
	s.pool = newAttemptPool(s.attempts.run)
	s.refusalWatcher = &refusalWatcher{
		server:     cfg.Server,
		health:     s.health,
		refusals:   s.refusals,
		admissions: admissions,
		attempts:   s.attempts,
		held:       d.held,
		timeout:    cfg.Timeout,
		changes:    changes,
		samples:    cfg.Samples,
		stop:       stop,
	}
	s.cutoffRetrier = &cutoffRetrier{
		server:     cfg.Server,
		limiter:    cfg.Limiter,
		health:     s.health,
		cutoffs:    s.cutoffs,
		refusals:   s.refusals,
		admissions: admissions,
		attempts:   s.attempts,
		pool:       s.pool,
		changes:    changes,
		stats:      d.stats,
		held:       d.held,
		stop:       stop,
	}

	s.quarantine.health, s.quarantine.wait = s.health, s.pool.wait
	s.watchHealth(cfg, d)

	return s
}

// watchHealth sets what follows from a change of the server's state.
func (s *serverSide) watchHealth(cfg Config, d serverSideDeps) {
	probe := &hangProbe{
		health:   s.health,
		progress: s.progress,
		stalled:  s.stalled,
		attempts: s.attempts,
		pool:     s.pool,
	}

	s.health.newEpoch()
	s.health.resend = probe.start
	s.health.isProxyDown = s.cutoffs.isRecent
	s.health.onInfo = func(info modelserver.Info) {
		cfg.Limiter.SetSlots(info.Slots)
		s.saved.resume(info)
		d.queue.setSharing(sharingOf(info.Flavour), info.Slots)
	}
	s.health.onUp = func() {
		s.attempts.releaseStalled()
		d.queue.wake()
		d.fetchWake.notify()
	}
	s.health.onRefusing = func() {
		handBackAll(s.takeAside(anyTask))
	}
	s.health.onExpired = func() {
		handBackAll(slices.Concat(d.queue.remove(anyTask), s.quarantine.take(anyTask), s.takeAside(anyTask)))
	}
}

// run watches the model server until ctx ends.
func (s *serverSide) run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { s.health.watch(ctx) })
	loops.Go(func() { s.health.watchProcess(ctx) })
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
