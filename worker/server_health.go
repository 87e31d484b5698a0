package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// How often the model server is asked what it serves, while it answers and while it
// does not.
const (
	askEvery   = 10 * time.Second
	askMissing = time.Second
)

// downGrace is how long a worker keeps what it holds while its model server is down.
const downGrace = 30 * time.Second

// serverHealth is how the model server does.
type serverHealth struct {
	mu        sync.Mutex
	why       string // it takes no requests; empty: it does
	since     time.Time
	hung      bool           // it must prove that it answers requests before it gets more
	canary    *proto.Request // one that it did not answer while it hung
	refusing  bool           // all requests; watchRefusals finds out when it takes one again
	starts    int            // of our process, when it hung
	hangProbe hangProbe      // of a server that answers nothing
	info      modelserver.Info
	known     bool // info is
	epochCtx  context.Context
	endEpoch  context.CancelFunc // of calls
	notices   *Notices
	// When the server did something last, and when it was complained of. (A number in
	// their place would follow steps of the wall clock.)
	lastProgress, lastWarned time.Time
	beat                     time.Time // when this process was last seen to run; zero: it is not watched

	asking  sync.Mutex
	asked   time.Time             // when the last question began
	waiting atomic.Pointer[int64] // requests in its queue; nil: it does not tell
}

// epoch ends when the server is found to hang.
func (h *serverHealth) epoch() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epochCtx
}

// watchProcess notes again and again that this process runs, until ctx ends.
func (w *Worker) watchProcess(ctx context.Context) {
	tick := time.NewTicker(limit.BeatEvery)
	defer tick.Stop()

	for {
		w.health.recordRunning(time.Now())
		w.cfg.Limiter.Beat()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// recordRunning notes that this process runs. A time in which it did not is none in which the
// server made no progress.
func (h *serverHealth) recordRunning(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if !h.beat.IsZero() && now.Sub(h.beat) > limit.MissedBeat {
		h.lastProgress = now
	}
	if now.After(h.beat) {
		h.beat = now
	}
}

// newEpoch begins an era.
func (h *serverHealth) newEpoch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.epochCtx, h.endEpoch = context.WithCancel(context.Background())
}

// recordProgress notes that the server does something.
func (h *serverHealth) recordProgress(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastProgress = now
}

// mayWarn reports whether it is time to complain of the server, and notes that.
func (h *serverHealth) mayWarn(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.lastWarned.IsZero() && now.Sub(h.lastWarned) <= time.Minute {
		return false
	}
	h.lastWarned = now
	return true
}

// offerCanary keeps the smallest of the requests that the server hangs on, to try it with.
func (h *serverHealth) offerCanary(r proto.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.canary == nil || len(r.Body) < len(h.canary.Body) {
		h.canary = &r
	}
}

// expired reports whether the server has been down for so long that what waits for it
// goes to others.
func (h *serverHealth) expired(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why != "" && (h.hung || h.refusing || now.Sub(h.since) > downGrace)
}

// firstTime reports whether something is said of the server for the first time.
func (h *serverHealth) firstTime(text string) bool { return h.notices.firstTime(text) }

// Notices is what was said of a model server that is said once only. The zero value is nothing.
type Notices struct {
	mu    sync.Mutex
	texts map[string]bool
}

func (s *Notices) firstTime(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.texts[text] {
		return false
	}

	if s.texts == nil {
		s.texts = map[string]bool{}
	}

	s.texts[text] = true

	return true
}

// Waiting says why the model server gets no requests, and since when; "" if it does.
func (w *Worker) Waiting() (why string, since time.Time) {
	if p := w.cfg.Process; p != nil {
		switch s := p.Status(); s.Phase {
		case supervise.Loading:
			return "loading", s.Since
		case supervise.Waiting:
			return "the model server died; starting it again", s.Since
		}
	}

	w.health.mu.Lock()
	defer w.health.mu.Unlock()

	return w.health.why, w.health.since
}

// Down reports whether the model server gets no requests.
func (w *Worker) Down() bool {
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	return w.health.why != ""
}

// Info is what the model server says of itself, and whether it has said anything yet.
func (w *Worker) Info() (modelserver.Info, bool) {
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	return w.health.info, w.health.known
}

// markDown notes that the server gets no requests from now on.
func (w *Worker) markDown(why string, err error) {
	h := &w.health
	h.mu.Lock()

	fresh := h.why == ""
	if fresh {
		h.since = time.Now()
	}
	if !h.hung && !h.refusing {
		h.why = why
	}

	h.mu.Unlock()
	if fresh {
		w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Err(err).Msg(why)
	}
}

// markUp notes that the server answers. That it answers questions about itself is no progress: one
// that hangs does, too.
func (w *Worker) markUp() {
	h := &w.health
	h.mu.Lock()
	before, since := h.why, h.since
	waits := h.hangProbe.takeTask(func(*task) bool { return true })
	h.why, h.hung, h.refusing, h.canary = "", false, false, nil
	if before != "" {
		h.lastProgress = time.Now()
	}

	h.mu.Unlock()
	if before != "" {
		w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Str("after", time.Since(since).Round(time.Second).String()).
			Msg("the model server answers")
		w.fetchWake.notify()
		w.queue.wake()
	}

	if waits != nil {
		w.requeueAfter(waits, 0)
	}
}

// watchServer asks the model server what it is and whether it answers, until ctx ends.
func (w *Worker) watchServer(ctx context.Context) {
	tick := time.NewTicker(askMissing)
	defer tick.Stop()

	last := time.Now()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}

		if down := w.Down(); down || time.Since(last) >= askEvery {
			last = time.Now()
			w.probeServer(ctx)
			w.saveLimit()
			w.noteSlots()
		}

		if w.health.expired(time.Now()) {
			w.dropTasks(func(*task) bool { return true })
		}
	}
}

// probeServer asks the server what it is. It returns the error that it had.
func (w *Worker) probeServer(ctx context.Context) error {
	h := &w.health
	h.asking.Lock()
	defer h.asking.Unlock()
	h.asked = time.Now()
	return w.probeLocked(ctx)
}

func (w *Worker) probeLocked(ctx context.Context) error {
	info, err := w.cfg.Server.Probe(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}

	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		w.lowerLimit()
		return nil // the server may be as before
	}
	if errors.Is(err, modelserver.ErrLoading) {
		w.markDown("loading", err)
		return err
	}
	if errors.Is(err, modelserver.ErrUnreachable) {
		why := "waiting for the model server"
		if w.cutoffs.recent(time.Now()) {
			why = "waiting: what is in front of the model server takes it for down, having cut answers off"
		}
		w.markDown(why, err)
		return err
	}
	if err != nil { // a server that answers without a list may still serve: as before
		w.cfg.Log.Debug().Err(err).Msg("the model server does not say what it serves")
	} else {
		w.updateInfo(info)
	}

	if w.verifyRecovered(ctx) {
		w.markUp()
	}

	w.fetchWake.notify()

	return nil
}

// updateInfo takes in what the server says of itself.
func (w *Worker) updateInfo(info modelserver.Info) {
	h := &w.health
	h.mu.Lock()
	h.info, h.known = info, true
	h.mu.Unlock()

	if info.Loading {
		h.recordProgress(time.Now())
	}

	w.cfg.Limiter.SetSlots(info.Slots)
	w.resumeLimit(info)
	w.queue.setSharing(sharingOf(info.Flavour), info.Slots)

	for _, note := range info.Notes {
		if h.firstTime(note) {
			w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Msg(note)
		}
	}
}

// noteSlots says once that the server's slots are what the work waits for, if they are.
func (w *Worker) noteSlots() {
	info, _ := w.Info()
	note := info.SlotsNote()
	busy, held := w.stats.InFlight.Load(), w.held.load()
	if note == "" || busy < int64(info.Slots) || held <= busy || !w.health.firstTime("slots") {
		return
	}
	w.cfg.Log.Info().Str("server", w.cfg.Server.URL()).Msg(note)
}

// verifyRecovered reports whether a server that hung has shown that it does not any more: it has
// been started anew, or it answers a request. Its health check proves nothing.
func (w *Worker) verifyRecovered(ctx context.Context) bool {
	h := &w.health
	h.mu.Lock()
	hung, refusing, since, canary, starts := h.hung, h.refusing, h.since, h.canary, h.starts
	h.mu.Unlock()
	if refusing {
		return false
	}

	if !hung {
		return true
	}

	if p := w.cfg.Process; p != nil {
		s := p.Status()
		return s.Starts > starts && s.Phase == supervise.Ready
	}

	if w.startHangProbe() {
		return false // it says so itself
	}

	if canary == nil { // none of its requests has come back yet
		return time.Since(since) > downGrace
	}

	ctx, cancel := context.WithTimeout(ctx, w.cfg.Stall)
	defer cancel()

	return w.cfg.Server.Post(ctx, canary.URL, canary.Body).Err == nil
}

// confirmCrash finds out whether the server died while it had a request, which began at a time
// and ended without an answer.
func (w *Worker) confirmCrash(ctx context.Context, begin time.Time) bool {
	h := &w.health
	ended := time.Now()
	h.asking.Lock()
	defer h.asking.Unlock()

	h.mu.Lock()
	gone := h.why != "" && h.since.After(begin)
	h.mu.Unlock()
	if gone {
		return true
	}

	if h.asked.After(ended) { // somebody else has asked meanwhile, and it answered
		return false
	}

	h.asked = time.Now()

	return errors.Is(w.probeLocked(ctx), modelserver.ErrUnreachable)
}

// watchLoad follows the server's gauges, and notices when it hangs, until ctx ends.
func (w *Worker) watchLoad(ctx context.Context) {
	var tokens counted
	var retry time.Time // after the server had no gauges
	for {
		bus.Sleep(ctx, w.cfg.Limiter.ObserveEvery())
		if ctx.Err() != nil {
			return
		}

		now := time.Now()
		if w.Down() || w.stats.InFlight.Load() == 0 {
			w.health.recordProgress(now)
			continue
		}

		if now.After(retry) {
			load, err := w.cfg.Server.Load(ctx)
			switch {
			case errors.Is(err, modelserver.ErrNoGauges):
				retry = now.Add(time.Minute)
				w.health.waiting.Store(nil)
				if w.health.firstTime("gauges") {
					w.cfg.Log.Info().Str("server", w.cfg.Server.URL()).Err(err).
						Msg("finding the number of requests at once by the rate of answers")
				}
			case err == nil:
				w.health.count(load.Tokens >= 0 && !w.cfg.Server.CountsTokensAtEnd())
				if tokens.fresh(load.Tokens + max(0, load.PromptTokens)) { // a long prompt has no tokens yet
					w.health.recordProgress(now)
				}

				if load.ReplicaEvidence != "" {
					w.ignoreGauges(ctx, load.ReplicaEvidence)
				} else {
					w.observe(load)
				}
			}
		} else if why := w.cfg.Server.ProbeSlots(ctx); why != "" {
			w.ignoreGauges(ctx, why)
		}

		w.dropIdle(now)
		w.noticeHang(now)
	}
}

// counted are the last readings of the server's counter of tokens. Behind a load balancer they
// are of several servers in turns, so that another reading than the last one alone is no
// progress: all of them may hang.
type counted struct {
	last [64]float64
	n    int
}

// fresh takes in a reading, and reports whether it is none of those before. Below 0 it is
// unknown.
func (c *counted) fresh(tokens float64) bool {
	if tokens < 0 || slices.Contains(c.last[:min(c.n, len(c.last))], tokens) {
		return false
	}
	c.last[c.n%len(c.last)] = tokens
	c.n++
	return true
}

// ignoreGauges has the number of requests at once found by the answers from now on, since the
// gauges are those of one of several servers.
func (w *Worker) ignoreGauges(ctx context.Context, why string) {
	if !w.health.firstTime("several") {
		return
	}

	w.health.waiting.Store(nil)
	w.cfg.Limiter.IgnoreGauges()
	w.cfg.Log.Warn().Str("seen", why).
		Msg("the metrics of " + w.cfg.Server.URL() +
			" come from more than one server: finding the number of requests at once " +
			"by the rate of answers; give each server with --url to run it at its best")

	w.probeServer(ctx) // what it says of itself is less from now on
}

// dropIdle closes idle connections if the server has made no progress for a moment: one of
// one thread serves a connection that it keeps open, and nobody else.
func (w *Worker) dropIdle(now time.Time) {
	h := &w.health
	h.mu.Lock()
	still := now.Sub(h.lastProgress)
	h.mu.Unlock()
	if still > askMissing {
		w.cfg.Server.CloseIdle()
	}
}

// observe hands the gauges to the limiter.
func (w *Worker) observe(load modelserver.Load) {
	if len(load.Missing) > 0 && w.health.firstTime("missing") {
		w.cfg.Log.Info().Str("server", w.cfg.Server.URL()).Str("missing", strings.Join(load.Missing, ", ")).
			Msg("the model server does not tell all that its kind does")
	}

	waiting := int64(load.Waiting)
	w.health.waiting.Store(&waiting)

	tokens := load.Tokens
	if w.cfg.Server.CountsTokensAtEnd() {
		tokens = -1 // it says little of what the server does now
	}

	before := w.cfg.Limiter.Limit()
	w.cfg.Limiter.Observe(limit.Gauges{
		Running:     load.Running,
		Waiting:     load.Waiting,
		KVUsage:     load.KVUsage,
		Preemptions: load.Preemptions,
		Tokens:      tokens,
	})
	if w.cfg.Limiter.Limit() > before {
		w.fetchWake.notify()
	}
}

// noticeHang takes a server down that has requests and makes no progress. Without a
// counter of tokens only whole answers are progress, so that a slow server gets three
// times what its answers take, and twice as long each time that it has answered nothing.
func (w *Worker) noticeHang(now time.Time) {
	h := &w.health
	h.recordRunning(now)
	h.mu.Lock()
	still := now.Sub(h.lastProgress)
	h.mu.Unlock()

	patience, doubted := h.patience(max(w.cfg.Stall, 3*w.latency.upperEstimate()))
	if still < patience {
		return
	}

	err := fmt.Errorf("it has %d requests and has answered none for %s",
		w.stats.InFlight.Load(), still.Round(time.Second))
	if doubted {
		err = fmt.Errorf("%w; it may only be slow, since it counts no tokens while it works: it gets %s next; with a longer --stall than %s it gets more at once",
			err, h.double(patience, w.cfg.Timeout).Round(time.Second), w.cfg.Stall)
	}

	w.markDown("the model server hangs", err)
	h.mu.Lock()
	h.hung, h.canary = true, nil
	cut := h.endEpoch

	if w.cfg.Process != nil {
		h.starts = w.cfg.Process.Status().Starts
	}

	h.mu.Unlock()
	h.newEpoch()
	cut()

	if w.cfg.Process != nil {
		w.cfg.Process.Restart(err.Error())
	}
}
