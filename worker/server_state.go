package worker

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/supervise"
)

// downGrace is the time for which a worker keeps its tasks while its model server is down.
const downGrace = 30 * time.Second

// serverState is whether the model server takes requests.
//
//	         unreachable, loading             a probe succeeds
//	up  -------------------------> down      ----------------------> up
//	    no progress                hung       answers a request, or was restarted
//	    refuses a sample           refusing   takes a sample
//
// A hang ends an epoch, and with it all requests that the server has.
type serverState struct {
	server   *modelserver.Server
	process  *supervise.Process // nil: another program runs the server
	progress *serverProgress
	log      zerolog.Logger
	changes  *broadcast // of whether the server takes requests

	// onUp is called when requests may be sent, and again after each probe that confirms that.
	onUp func()
	// onRefusing is called when the server begins to refuse all requests.
	onRefusing func()

	// mu guards the fields below.
	mu sync.Mutex
	// problem is why the server takes no requests; empty: it takes them.
	problem string
	since   time.Time // of problem
	// downLevel is the level at which the problem was logged; its end is logged at the same.
	downLevel zerolog.Level
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
	epochCtx     context.Context
	endEpoch     context.CancelFunc // of epochCtx
}

// markDown records that the server gets no requests from now on.
func (s *serverState) markDown(problem string, err error) {
	level := zerolog.WarnLevel
	if s.isStarting() {
		level = zerolog.DebugLevel // it loads its model, as it should
	}

	s.mu.Lock()

	wasUp := s.problem == ""
	if wasUp {
		s.since, s.downLevel = time.Now(), level
	}
	if !s.hung && !s.refusing {
		s.problem = problem
	}

	s.mu.Unlock()

	s.changes.notify()

	if wasUp {
		s.log.WithLevel(level).Str("server", s.server.URL()).Err(err).Msg(problem)
	}
}

// isStarting reports whether our own process has been started and was never ready.
func (s *serverState) isStarting() bool {
	if s.process == nil {
		return false
	}

	p := s.process.Status()

	return p.LastExit == "" && (p.Phase == supervise.Stopped || p.Phase == supervise.Loading)
}

// markUp records that the server answers. An answer to a question about itself is no progress: even
// a server that hangs gives one.
func (s *serverState) markUp() {
	s.mu.Lock()

	wasDown, since, level := s.problem != "", s.since, s.downLevel
	if wasDown {
		s.progress.record(time.Now()) // or it would count as hung at once
	}

	s.problem, s.hung, s.refusing, s.canary = "", false, false, nil
	s.mu.Unlock()

	if wasDown {
		s.log.WithLevel(level).Str("server", s.server.URL()).
			Str("after", time.Since(since).Round(time.Second).String()).Msg("the model server answers")
		s.changes.notify()
	}

	s.onUp()
}

// markHung records that the server hangs, and ends the epoch: all requests that the server has
// are cut off.
func (s *serverState) markHung(err error) {
	s.markDown("the model server hangs", err)

	s.mu.Lock()
	s.hung, s.canary = true, nil
	endEpoch := s.endEpoch

	if s.process != nil {
		s.startsAtHang = s.process.Status().Starts
	}

	s.mu.Unlock()

	s.newEpoch()
	endEpoch()
	s.changes.notify()

	if s.process != nil {
		s.process.Restart(err.Error())
	}
}

// markRefusing records that the server refuses all requests.
func (s *serverState) markRefusing(err *RefusedError) {
	s.mu.Lock()
	isNew := s.lastRefusal != err.Error()
	s.lastRefusal = err.Error()

	if s.problem == "" {
		s.since = time.Now()
	}

	s.problem, s.refusing, s.downLevel = err.Error(), true, zerolog.WarnLevel
	s.mu.Unlock()

	s.changes.notify()

	if isNew {
		s.log.Warn().Err(err).Str("hint", err.Fix()).
			Msg("the model server refuses all requests; waiting until it takes one")
	}

	s.onRefusing()
}

// markAccepting records that a server that refused all requests has taken one.
func (s *serverState) markAccepting() {
	s.mu.Lock()
	s.lastRefusal = ""
	s.mu.Unlock()

	s.markUp()
}

// markReopened lets requests through to a server that may take others than those that it had.
func (s *serverState) markReopened() {
	s.mu.Lock()
	s.progress.record(time.Now())
	s.problem, s.hung, s.refusing = "", false, false
	s.mu.Unlock()

	s.changes.notify()
	s.onUp()
}

// isDown reports whether the server gets no requests.
func (s *serverState) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem != ""
}

// isRefusing reports whether the server refuses all requests.
func (s *serverState) isRefusing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusing
}

// hang describes a hang, which the server has to disprove.
type hang struct {
	hung, refusing bool
	since          time.Time      // when the server went down
	canary         *proto.Request // the smallest that it did not answer; nil: none is known yet
	startsBefore   int            // starts of our own process
}

// currentHang returns the state of a server that may hang.
func (s *serverState) currentHang() hang {
	s.mu.Lock()
	defer s.mu.Unlock()

	return hang{
		hung:         s.hung,
		refusing:     s.refusing,
		since:        s.since,
		canary:       s.canary,
		startsBefore: s.startsAtHang,
	}
}

// wentDownAfter reports whether the server is down, and was not yet at a time.
func (s *serverState) wentDownAfter(begin time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem != "" && s.since.After(begin)
}

// hasExpired reports whether the server has been down long enough that the tasks that wait for it
// go to other workers.
func (s *serverState) hasExpired(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem != "" && (s.hung || s.refusing || now.Sub(s.since) >= downGrace)
}

// expiresIn returns the time until hasExpired returns true if nothing changes; false: it never
// does.
func (s *serverState) expiresIn(now time.Time) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since.Add(downGrace).Sub(now), s.problem != ""
}

// status returns why the server gets no requests, and since when; "" if it gets them.
func (s *serverState) status() (problem string, since time.Time) {
	if s.process != nil {
		switch p := s.process.Status(); p.Phase {
		case supervise.Loading:
			return "loading", p.Since
		case supervise.Waiting:
			return "the model server died; restarting it", p.Since
		case supervise.Stopped:
			if p.LastExit != "" {
				return "the model server does not start: " + p.LastExit, p.Since
			}
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	return s.problem, s.since
}

// epoch returns a context that ends when the server is found to hang.
func (s *serverState) epoch() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epochCtx
}

func (s *serverState) newEpoch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochCtx, s.endEpoch = context.WithCancel(context.Background())
}

// offerCanary keeps the smallest of the requests that the server hangs on, to test it with.
func (s *serverState) offerCanary(r proto.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.canary == nil || len(r.Body) < len(s.canary.Body) {
		s.canary = &r
	}
}
