package worker

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

const (
	// probeEvery is the time between two probes of a server that answers.
	probeEvery = 10 * time.Second
	// probeDownEvery is the time between two probes of a server that is down.
	probeDownEvery = time.Second
	// warnEvery is the time between two warnings that a server fails most requests.
	warnEvery = time.Minute
)

// serverHealth probes the model server, and keeps its state up to date.
type serverHealth struct {
	server   *modelserver.Server
	process  *supervise.Process // nil: another program runs the server
	limiter  *limit.Limiter
	state    *serverState
	progress *serverProgress
	notices  *Notices
	stall    time.Duration
	log      zerolog.Logger

	// onInfo is called with each report of the server about itself.
	onInfo func(modelserver.Info)
	// report is called likewise, for the program. Nil if it does not want to know.
	report func(modelserver.Info)
	// onExpired is called about once a second while the server has been down long enough
	// that the tasks that wait for it go to other workers.
	onExpired func()
	// resend sends a request again that a server which may only be slow did not answer. It
	// reports whether there is one, and then marks the server up itself if that is answered.
	resend func() bool
	// isProxyDown reports whether a proxy may have taken the server out.
	isProxyDown func(now time.Time) bool

	// probing is held for the time of a probe. It guards probedAt.
	probing  sync.Mutex
	probedAt time.Time // when the last probe began

	// mu guards the fields below.
	mu      sync.Mutex
	info    modelserver.Info
	hasInfo bool
	// lastWarned is the time of the last logged warning that the server fails most requests. (A
	// number of seconds in place of a time would follow steps of the wall clock.)
	lastWarned time.Time
}

// run probes the server until ctx ends.
func (h *serverHealth) run(ctx context.Context) {
	tick := time.NewTicker(probeDownEvery)
	defer tick.Stop()

	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}

		if h.state.isDown() || time.Since(last) >= probeEvery {
			last = time.Now()
			h.probeServer(ctx)
		}

		if h.state.hasExpired(time.Now()) {
			h.onExpired()
		}
	}
}

// probeServer asks the server about itself, and updates its state. It returns the error of the
// question.
func (h *serverHealth) probeServer(ctx context.Context) error {
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
		h.state.markDown("loading", err)
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
		h.state.markUp()
	}

	return nil
}

// markUnreachable records that the server cannot be reached.
func (h *serverHealth) markUnreachable(err error) {
	problem := "waiting for the model server"
	if h.isProxyDown(time.Now()) {
		problem = "waiting: the proxy in front of the model server takes it for down, after answers were cut off"
	}
	h.state.markDown(problem, err)
}

// updateInfo records the server's report about itself.
func (h *serverHealth) updateInfo(info modelserver.Info) {
	h.mu.Lock()
	h.info, h.hasInfo = info, true
	h.mu.Unlock()

	if info.Loading {
		h.progress.record(time.Now())
	}

	h.onInfo(info)
	if h.report != nil {
		h.report(info)
	}

	for _, note := range info.Notes {
		if h.notices.firstTime(note) {
			h.log.Warn().Str("server", h.server.URL()).Msg(note)
		}
	}
}

// verifyRecovered reports whether a server that hung has shown that it no longer does: it was
// restarted, or it answers a request. Its health check proves nothing.
func (h *serverHealth) verifyRecovered(ctx context.Context) bool {
	hang := h.state.currentHang()
	switch {
	case hang.refusing:
		return false
	case !hang.hung:
		return true
	case h.process != nil:
		s := h.process.Status()
		return s.Starts > hang.startsBefore && s.Phase == supervise.Ready
	}

	if h.resend() {
		return false // that marks the server up itself
	}

	if hang.canary == nil { // none of the server's requests has come back yet
		return time.Since(hang.since) > downGrace
	}

	ctx, cancel := context.WithTimeout(ctx, h.stall)
	defer cancel()

	return h.server.Post(ctx, hang.canary.URL, hang.canary.Body).Err == nil
}

// confirmCrash finds out whether the server died while it had a request that began at a time and
// ended without an answer.
func (h *serverHealth) confirmCrash(ctx context.Context, begin time.Time) bool {
	ended := time.Now()
	h.probing.Lock()
	defer h.probing.Unlock()

	if h.state.wentDownAfter(begin) {
		return true
	}

	if h.probedAt.After(ended) { // the server has answered a probe since
		return false
	}

	return errors.Is(h.probeLocked(ctx), modelserver.ErrUnreachable)
}

// latestInfo returns the server's last report about itself; false if there is none yet.
func (h *serverHealth) latestInfo() (modelserver.Info, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.info, h.hasInfo
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
