package worker

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

const (
	// probeEvery is the time between two probes of a server that answers.
	probeEvery = 10 * time.Second
	// probeDownEvery is the time between two probes of a server that is down.
	probeDownEvery = time.Second
	// downGrace is how long a worker keeps what it holds while its model server is down.
	downGrace = 30 * time.Second
	// warnEvery is the time between two warnings that a server fails most requests.
	warnEvery = time.Minute
)

// serverHealth watches the model server. It probes the server and keeps whether it takes requests:
// it is up, down, hung (it must show that it answers before it gets more), or it refuses all
// requests. A hang ends an epoch, and with it all requests that the server has.
type serverHealth struct {
	server   *modelserver.Server
	process  *supervise.Process // nil: another program runs the server
	limiter  *limit.Limiter
	progress *serverProgress
	notices  *Notices
	stall    time.Duration
	log      zerolog.Logger
	changes  *broadcast // of whether the server takes requests

	// onInfo is called with each report of the server about itself.
	onInfo func(modelserver.Info)
	// onUp is called when requests may be sent, and again after each probe that confirms that.
	onUp func()
	// onRefusing is called when the server begins to refuse all requests.
	onRefusing func()
	// onExpired is called about once a second while the server has been down for so long that
	// what waits for it goes to other workers.
	onExpired func()
	// resend sends a request again that a server which may only be slow did not answer. It
	// reports whether there is one, and then marks the server up itself if that is answered.
	resend func() bool
	// isProxyDown reports whether a proxy may have taken the server out.
	isProxyDown func(now time.Time) bool

	// mu guards the fields below.
	mu sync.Mutex
	// problem is why the server takes no requests; empty: it takes them.
	problem string
	since   time.Time // of problem
	// hung is true until a server that hung has shown that it answers.
	hung bool
	// refusing is true while the server refuses all requests. The refusalWatcher ends it.
	refusing bool
	// lastRefusal is the refusal that was logged last, so that it is logged once.
	lastRefusal string
	// canary is the smallest request that the server did not answer while it hung.
	canary *proto.Request
	// startsAtHang is the number of starts of our own process when it hung.
	startsAtHang int
	info         modelserver.Info
	hasInfo      bool
	epochCtx     context.Context
	endEpoch     context.CancelFunc // of epochCtx
	// lastWarned is when a warning was last logged that the server fails most requests. (A number
	// of seconds in place of a time would follow steps of the wall clock.)
	lastWarned time.Time

	// probing is held for the time of a probe. It guards probedAt.
	probing  sync.Mutex
	probedAt time.Time // when the last probe began
}

// watch probes the server until ctx ends.
func (h *serverHealth) watch(ctx context.Context) {
	tick := time.NewTicker(probeDownEvery)
	defer tick.Stop()

	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}

		if h.isDown() || time.Since(last) >= probeEvery {
			last = time.Now()
			h.probe(ctx)
		}

		if h.hasExpired(time.Now()) {
			h.onExpired()
		}
	}
}

// probe asks the server what it is, and updates its state. It returns the error of the question.
func (h *serverHealth) probe(ctx context.Context) error {
	h.probing.Lock()
	defer h.probing.Unlock()
	return h.probeLocked(ctx)
}

func (h *serverHealth) probeLocked(ctx context.Context) error {
	h.probedAt = time.Now()

	info, err := h.server.Probe(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}

	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		h.lowerLimit()
		return nil // the server may be as before
	case errors.Is(err, modelserver.ErrLoading):
		h.markDown("loading", err)
		return err
	case errors.Is(err, modelserver.ErrUnreachable):
		h.markUnreachable(err)
		return err
	case err != nil: // a server that answers without a list of models may still serve them
		h.log.Debug().Err(err).Msg("the model server does not list its models")
	default:
		h.updateInfo(info)
	}

	if h.verifyRecovered(ctx) {
		h.markUp()
	}

	return nil
}

// markUnreachable records that the server cannot be reached.
func (h *serverHealth) markUnreachable(err error) {
	problem := "waiting for the model server"
	if h.isProxyDown(time.Now()) {
		problem = "waiting: the proxy in front of the model server takes it for down, after answers were cut off"
	}
	h.markDown(problem, err)
}

// updateInfo records what the server reports about itself.
func (h *serverHealth) updateInfo(info modelserver.Info) {
	h.mu.Lock()
	h.info, h.hasInfo = info, true
	h.mu.Unlock()

	if info.Loading {
		h.progress.record(time.Now())
	}

	h.onInfo(info)

	for _, note := range info.Notes {
		if h.notices.firstTime(note) {
			h.log.Warn().Str("server", h.server.URL()).Msg(note)
		}
	}
}

// verifyRecovered reports whether a server that hung has shown that it no longer does: it was
// restarted, or it answers a request. Its health check proves nothing.
func (h *serverHealth) verifyRecovered(ctx context.Context) bool {
	h.mu.Lock()
	hung, refusing, since, canary, starts := h.hung, h.refusing, h.since, h.canary, h.startsAtHang
	h.mu.Unlock()

	if refusing {
		return false
	}

	if !hung {
		return true
	}

	if h.process != nil {
		s := h.process.Status()
		return s.Starts > starts && s.Phase == supervise.Ready
	}

	if h.resend() {
		return false // that marks the server up itself
	}

	if canary == nil { // none of the server's requests has come back yet
		return time.Since(since) > downGrace
	}

	ctx, cancel := context.WithTimeout(ctx, h.stall)
	defer cancel()

	return h.server.Post(ctx, canary.URL, canary.Body).Err == nil
}

// confirmCrash finds out whether the server died while it had a request that began at a time and
// ended without an answer.
func (h *serverHealth) confirmCrash(ctx context.Context, begin time.Time) bool {
	ended := time.Now()
	h.probing.Lock()
	defer h.probing.Unlock()

	h.mu.Lock()
	wentDown := h.problem != "" && h.since.After(begin)
	h.mu.Unlock()

	if wentDown {
		return true
	}

	if h.probedAt.After(ended) { // the server has answered a probe since
		return false
	}

	return errors.Is(h.probeLocked(ctx), modelserver.ErrUnreachable)
}

// markDown records that the server gets no requests from now on.
func (h *serverHealth) markDown(problem string, err error) {
	h.mu.Lock()
	wasUp := h.problem == ""
	if wasUp {
		h.since = time.Now()
	}
	if !h.hung && !h.refusing {
		h.problem = problem
	}
	h.mu.Unlock()

	h.changes.notify()

	if wasUp {
		h.log.Warn().Str("server", h.server.URL()).Err(err).Msg(problem)
	}
}

// markUp records that the server answers. An answer to a question about itself is no progress: a
// server that hangs gives that, too.
func (h *serverHealth) markUp() {
	h.mu.Lock()
	wasDown, since := h.problem != "", h.since
	h.problem, h.hung, h.refusing, h.canary = "", false, false, nil
	h.mu.Unlock()

	if wasDown {
		h.progress.record(time.Now())
		h.log.Warn().Str("server", h.server.URL()).Str("after", time.Since(since).Round(time.Second).String()).
			Msg("the model server answers")
		h.changes.notify()
	}

	h.onUp()
}

// markHung records that the server hangs, and ends the epoch: all requests that the server has
// are cut off.
func (h *serverHealth) markHung(err error) {
	h.markDown("the model server hangs", err)

	h.mu.Lock()
	h.hung, h.canary = true, nil
	endEpoch := h.endEpoch
	if h.process != nil {
		h.startsAtHang = h.process.Status().Starts
	}
	h.mu.Unlock()

	h.newEpoch()
	endEpoch()
	h.changes.notify()

	if h.process != nil {
		h.process.Restart(err.Error())
	}
}

// markRefusing records that the server refuses all requests.
func (h *serverHealth) markRefusing(err *RefusedError) {
	h.mu.Lock()
	isNew := h.lastRefusal != err.Error()
	h.lastRefusal = err.Error()
	if h.problem == "" {
		h.since = time.Now()
	}
	h.problem, h.refusing = err.Error(), true
	h.mu.Unlock()

	h.changes.notify()

	if isNew {
		h.log.Warn().Err(err).Str("hint", err.Fix()).
			Msg("the model server refuses all requests; waiting until it takes one")
	}

	h.onRefusing()
}

// markAccepting records that a server that refused all requests has taken one.
func (h *serverHealth) markAccepting() {
	h.mu.Lock()
	h.lastRefusal = ""
	h.mu.Unlock()

	h.markUp()
}

// reopen lets requests through to a server that may take others than those that it had.
func (h *serverHealth) reopen() {
	h.mu.Lock()
	h.problem, h.hung, h.refusing = "", false, false
	h.mu.Unlock()

	h.progress.record(time.Now())
	h.changes.notify()
	h.onUp()
}

// isDown reports whether the server gets no requests.
func (h *serverHealth) isDown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem != ""
}

// isRefusing reports whether the server refuses all requests.
func (h *serverHealth) isRefusing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refusing
}

// hasExpired reports whether the server has been down for so long that what waits for it goes to
// other workers.
func (h *serverHealth) hasExpired(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.problem != "" && (h.hung || h.refusing || now.Sub(h.since) > downGrace)
}

// expiresIn returns the time until hasExpired returns true if nothing changes; 0: never.
func (h *serverHealth) expiresIn(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.problem == "" {
		return 0
	}

	return max(h.since.Add(downGrace).Sub(now), 0) + time.Millisecond
}

// status returns why the server gets no requests, and since when; "" if it gets them.
func (h *serverHealth) status() (problem string, since time.Time) {
	if h.process != nil {
		switch s := h.process.Status(); s.Phase {
		case supervise.Loading:
			return "loading", s.Since
		case supervise.Waiting:
			return "the model server died; restarting it", s.Since
		}
	}

	h.mu.Lock()
	defer h.mu.Unlock()

	return h.problem, h.since
}

// latestInfo returns the server's last report about itself; false if there is none yet.
func (h *serverHealth) latestInfo() (modelserver.Info, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.info, h.hasInfo
}

// epoch returns a context that ends when the server is found to hang.
func (h *serverHealth) epoch() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epochCtx
}

func (h *serverHealth) newEpoch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epochCtx, h.endEpoch = context.WithCancel(context.Background())
}

// watchProcess records that this process runs, until ctx ends.
func (h *serverHealth) watchProcess(ctx context.Context) {
	tick := time.NewTicker(limit.BeatEvery)
	defer tick.Stop()

	for {
		h.progress.recordRunning(time.Now())
		h.limiter.Beat()

		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// offerCanary keeps the smallest of the requests that the server hangs on, to test it with.
func (h *serverHealth) offerCanary(r proto.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.canary == nil || len(r.Body) < len(h.canary.Body) {
		h.canary = &r
	}
}

// mayWarn reports whether it is time for another warning that the server fails most requests, and
// records that one is logged.
func (h *serverHealth) mayWarn(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	if !h.lastWarned.IsZero() && now.Sub(h.lastWarned) <= warnEvery {
		return false
	}

	h.lastWarned = now

	return true
}

// lowerLimit lowers the concurrency limit, since this process may open no more files.
func (h *serverHealth) lowerLimit() {
	if !h.limiter.Lower() {
		return
	}

	if h.notices.firstTime("files") {
		h.log.Warn().Int("at_once", h.limiter.Limit()).
			Msg("this process may not open more files; lowered the concurrency limit (ulimit -n raises that of files)")
	}
}
