package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const (
	// gaugesRetryEvery is the time between two questions to a server that has no gauges.
	gaugesRetryEvery = time.Minute
	// idleBeforeClose is the time without progress after which idle connections are closed.
	idleBeforeClose = time.Second
)

// loadWatch follows the gauges of the model server. It passes them to the limiter, and notices
// when the server hangs.
type loadWatch struct {
	server   *modelserver.Server
	limiter  *limit.Limiter
	health   *serverHealth
	state    *serverState
	progress *serverProgress
	notices  *Notices
	stats    *Stats
	latency  *latencyEstimate
	held     *heldCounter
	stall    time.Duration
	timeout  time.Duration
	log      zerolog.Logger

	// fetchWake is notified when the concurrency limit has gone up.
	fetchWake signal

	// waiting is the number of requests in the server's queue; nil: unknown.
	waiting atomic.Pointer[int64]

	// measured has the latencies that the server reports.
	measured serverLatency

	tokens tokenReadings // of run
}

// run reads the gauges again and again until ctx ends.
func (l *loadWatch) run(ctx context.Context) {
	var retryAt time.Time // after the server had no gauges

	l.readLatency(ctx) // they count from here on
	ended := l.countEnded()

	for {
		bus.Sleep(ctx, l.limiter.ObserveEvery())
		if ctx.Err() != nil {
			return
		}

		now := time.Now()
		idle := l.stats.InFlight.Load() == 0
		if l.state.isDown() || idle && l.countEnded() == ended {
			l.progress.record(now)
			continue
		}

		ended = l.countEnded()
		if idle { // the last requests are in the server's counters now
			if now.After(retryAt) {
				l.readLatency(ctx)
			}

			l.progress.record(now)

			continue
		}

		if !now.After(retryAt) {
			if seen := l.server.ProbeSlots(ctx); seen != "" {
				l.ignoreGauges(ctx, seen)
			}
		} else if !l.readGauges(ctx, now) {
			retryAt = now.Add(gaugesRetryEvery)
		}

		l.noteSlots()
		l.closeIdle(now)
		l.detectHang(now)
	}
}

// countEnded counts the attempts that have ended.
func (l *loadWatch) countEnded() int64 { return l.stats.Done.Load() + l.stats.Retries.Load() }

// readLatency reads the latencies that the server measures, while it has nothing to do.
func (l *loadWatch) readLatency(ctx context.Context) {
	if load, err := l.server.Load(ctx); err == nil && !l.server.Replicated() {
		l.measured.observe(load)
	}
}

// readGauges reads the gauges once. It returns false if the server has none.
func (l *loadWatch) readGauges(ctx context.Context, now time.Time) bool {
	load, err := l.server.Load(ctx)
	if errors.Is(err, modelserver.ErrNoGauges) {
		l.waiting.Store(nil)
		if l.notices.firstTime("gauges") {
			l.log.Info().Str("server", l.server.URL()).Err(err).
				Msg("the model server has no load metrics; tuning concurrency by throughput")
		}
		return false
	}

	if err != nil { // the next reading may succeed
		return true
	}

	l.progress.setCountsTokens(load.Tokens >= 0 && !l.server.CountsTokensAtEnd())
	if l.tokens.isNew(load.Tokens + max(0, load.PromptTokens)) { // a long prompt has no tokens yet
		l.progress.record(now)
	}

	if load.ReplicaEvidence != "" {
		l.ignoreGauges(ctx, load.ReplicaEvidence)
	} else {
		l.observe(load)
	}

	return true
}

// observe passes the gauges to the limiter.
func (l *loadWatch) observe(load modelserver.Load) {
	if len(load.Missing) > 0 && l.notices.firstTime("missing") {
		l.log.Info().Str("server", l.server.URL()).Str("missing", strings.Join(load.Missing, ", ")).
			Msg("the model server lacks some metrics of its kind")
	}

	l.measured.observe(load)

	waiting := int64(load.Waiting)
	l.waiting.Store(&waiting)

	tokens := load.Tokens
	if l.server.CountsTokensAtEnd() {
		tokens = -1 // such a counter shows little of the work under way
	}

	before := l.limiter.Limit()
	l.limiter.Observe(limit.Gauges{
		Running:     load.Running,
		Waiting:     load.Waiting,
		KVUsage:     load.KVUsage,
		Preemptions: load.Preemptions,
		Tokens:      tokens,
	})

	if l.limiter.Limit() > before {
		l.fetchWake.notify()
	}
}

// ignoreGauges tunes the concurrency by throughput from now on, since the gauges come from one of
// several servers. seen is the evidence for that.
func (l *loadWatch) ignoreGauges(ctx context.Context, seen string) {
	if !l.notices.firstTime("several") {
		return
	}

	l.waiting.Store(nil)
	l.measured.forget()
	l.limiter.IgnoreGauges()
	l.log.Warn().Str("seen", seen).
		Msg("the metrics of " + l.server.URL() + " come from more than one server; " +
			"tuning concurrency by throughput (for the best speed, give each server a --url of its own)")

	l.health.probeServer(ctx) // the server reports less about itself from now on
}

// noteSlots logs once that requests wait for the server's slots, if they do.
func (l *loadWatch) noteSlots() {
	info, _ := l.health.latestInfo()
	note := info.SlotsNote()
	inFlight, held := l.stats.InFlight.Load(), l.held.load()
	if note == "" || inFlight < int64(info.Slots) || held <= inFlight || !l.notices.firstTime("slots") {
		return
	}

	l.log.Info().Str("server", l.server.URL()).Msg(note)
}

// closeIdle closes idle connections if the server has made no progress for a moment: a server of
// one thread serves only the connection that is kept open.
func (l *loadWatch) closeIdle(now time.Time) {
	if l.progress.idleFor(now) > idleBeforeClose {
		l.server.CloseIdle()
	}
}

// detectHang marks a server as hung that has requests and makes no progress. Without a counter
// of tokens only whole answers are progress. So a slow server gets three times the time of its
// answers, and twice as long each time that it has answered nothing.
func (l *loadWatch) detectHang(now time.Time) {
	l.progress.recordRunning(now)
	idle := l.progress.idleFor(now)

	allowed := l.progress.patience(max(l.stall, 3*l.latency.upperEstimate()))
	if idle < allowed {
		return
	}

	err := fmt.Errorf("it has %d requests and has answered none for %s",
		l.stats.InFlight.Load(), idle.Round(time.Second))
	if l.progress.maybeSlow() {
		next := l.progress.extendPatience(allowed, l.timeout)
		err = fmt.Errorf("%w; it may only be slow, since it counts no tokens while it works: it gets %s next; "+
			"with a longer --stall than %s it gets more at once", err, next.Round(time.Second), l.stall)
	}

	l.state.markHung(err)
}

// tokenReadings are the last readings of the server's counter of tokens. Behind a load balancer
// they come from several servers in turn. A reading that merely differs from the last one is then
// no progress: all of the servers may hang.
type tokenReadings struct {
	last [64]float64
	n    int
}

// isNew adds a reading, and reports whether it is none of those before. Below 0 it is unknown.
func (r *tokenReadings) isNew(tokens float64) bool {
	if tokens < 0 || slices.Contains(r.last[:min(r.n, len(r.last))], tokens) {
		return false
	}

	r.last[r.n%len(r.last)] = tokens
	r.n++

	return true
}
