package worker

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

const (
	// silentAfter is the time without an answer after which a server that fails all attempts is
	// reported.
	silentAfter = 20 * time.Second
	// quotaSilentAfter is that time for a server whose failures are all of status 429: the quotas of
	// many servers are for a minute.
	quotaSilentAfter = 75 * time.Second
	// enoughFailures is the number of failed attempts that a report needs.
	enoughFailures = 3
	// workMargin is the time by which an attempt that is under way must outlast the failed ones to be
	// taken for one that the server works on.
	workMargin = 5 * time.Second
	// streakExpiry is the time after the last failure of a worker without requests from which on
	// nobody knows whether the server would still fail.
	streakExpiry = time.Minute
	// streakCheckEvery is the time between two looks at the streak.
	streakCheckEvery = time.Second
)

// failureStreak has the attempts that failed since the model server last answered a request. A
// server that takes each request and fails it (its engine died, its memory is used up, its quota
// is zero) is neither away nor hung, and the attempts go on. Once it has failed all of them for a
// while, the worker says so, with the server's own words, until it answers again.
type failureStreak struct {
	server *modelserver.Server
	state  *serverState
	held   *heldCounter
	log    zerolog.Logger

	// after and quotaAfter are silentAfter and quotaSilentAfter, but in tests.
	after, quotaAfter time.Duration

	// mu guards the fields below.
	mu sync.Mutex
	// underway has the begin of each attempt that is under way.
	underway map[*task]time.Time
	// failures counts the failed attempts since the last answer. The other fields describe them.
	failures int
	// since is the end of the first one, and last of the latest.
	since, last time.Time
	// longest is the longest time that one took.
	longest time.Duration
	// quota is true if all of them had status 429.
	quota bool
	// words is why the latest one failed.
	words string
	// refusing is true while the server is reported to fail all attempts.
	refusing bool
	// warned is true if the log has a warning about this streak, and warnedAt is the time of the
	// latest one about any.
	warned   bool
	warnedAt time.Time
}

// run looks at the streak until ctx ends.
func (f *failureStreak) run(ctx context.Context) {
	tick := time.NewTicker(streakCheckEvery)
	defer tick.Stop()

	for {
		select {
		case now := <-tick.C:
			f.check(now)
		case <-ctx.Done():
			return
		}
	}
}

// begin records that an attempt at a task begins.
func (f *failureStreak) begin(t *task, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.underway == nil {
		f.underway = map[*task]time.Time{}
	}

	f.underway[t] = now
}

// end records that the attempt at a task has ended.
func (f *failureStreak) end(t *task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.underway, t)
}

// ages returns how long the attempts under way at requests of a kind have taken until now.
func (f *failureStreak) ages(kind requestKind, now time.Time) (ages []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()

	for t, begin := range f.underway {
		if t.kind() == kind {
			ages = append(ages, now.Sub(begin))
		}
	}

	return ages
}

// record adds an attempt that reached the server. An answer ends the streak. A refusal that is
// final says something about its own request alone, and other rules decide about one that may mean
// all requests.
func (f *failureStreak) record(c classification, took time.Duration, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()

	switch {
	case c.ok():
		f.recordAnswer(now)
		return
	case c.verdict != retry || c.mayMeanAll():
		return
	case f.failures == 0:
		f.since, f.longest, f.quota = now, 0, true
	}

	f.failures++
	f.last = now
	f.longest = max(f.longest, took)
	f.quota = f.quota && c.result.Status == http.StatusTooManyRequests
	f.words = c.describeFailure()
}

// recordAnswer ends the streak. The caller holds mu.
func (f *failureStreak) recordAnswer(now time.Time) {
	if f.failures == 0 {
		return
	}

	if f.warned {
		f.log.Warn().Str("server", f.server.URL()).Str("after", now.Sub(f.since).Round(time.Second).String()).
			Msg("the model server answers again")
	}

	f.reset()
}

// reset forgets the streak. The caller holds mu.
func (f *failureStreak) reset() { f.failures, f.refusing, f.warned = 0, false, false }

// check finds out whether the server fails all attempts, and logs that once. A server that is down
// has a reason of its own, and its first answer after that begins a new streak.
func (f *failureStreak) check(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()

	isStale := f.held.load() == 0 && now.Sub(f.last) > streakExpiry
	if f.failures > 0 && (isStale || f.state.isDown()) {
		f.reset()
	}

	f.refusing = f.isLong(now) && !f.maybeAtWork(now)
	if !f.refusing || f.warned || !f.warnedAt.IsZero() && now.Sub(f.warnedAt) < warnEvery {
		return
	}

	f.warned, f.warnedAt = true, now
	f.log.Warn().Str("server", f.server.URL()).Str("error", f.words).Int("attempts", f.failures).
		Msg("the model server has answered no request for " + now.Sub(f.since).Round(time.Second).String() +
			"; trying it again and again")
}

// isLong reports whether the failures are enough for a report. The caller holds mu.
func (f *failureStreak) isLong(now time.Time) bool {
	after := f.after
	if f.quota {
		after = f.quotaAfter
	}
	return f.failures >= enoughFailures && now.Sub(f.since) >= after
}

// maybeAtWork reports whether an attempt is under way for so long that the server may work on it:
// a busy server may refuse all others. The caller holds mu.
func (f *failureStreak) maybeAtWork(now time.Time) bool {
	for _, begin := range f.underway {
		if now.Sub(begin) > f.longest+workMargin {
			return true
		}
	}
	return false
}

// current returns why the server fails all attempts, and since when; "" if it is not known to.
func (f *failureStreak) current() (words string, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if !f.refusing {
		return "", time.Time{}
	}

	return f.words, f.since
}

// maxFailureText is the longest text of describeFailure, in bytes.
const maxFailureText = 300

// describeFailure returns why an attempt failed, in the server's own words if it has some: one line
// of at most 300 bytes, without control characters.
func (c classification) describeFailure() string {
	text := ""
	if c.result.Err != nil {
		text = c.result.Err.Message
	} else {
		text = "status " + nameStatus(c.result.Status) + ": " + proto.ErrorMessage(c.result.Body)
	}

	text = strings.Join(strings.Fields(proto.Printable(text)), " ")
	if len(text) > maxFailureText {
		text = strings.ToValidUTF8(text[:maxFailureText-len("...")], "") + "..."
	}

	return text
}
