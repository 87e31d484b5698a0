package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// A wrong key, a server that has moved, a model that nobody has: what is wrong with all
// requests must not fail them one by one. An answer such as 401 or 404 does not say
// whether it means its request or all of them, so it is put aside, and others decide:
//
//   - A request that began later and was let in shows that the answer meant its own
//     request alone. Then it is the result.
//   - If none comes, the worker sends one again that was let in before. If that is refused
//     too, the server refuses all: the worker takes no more requests, those put aside go
//     back to the bus as if they had never been sent, and that one request is tried again
//     from time to time.
//   - If none was ever let in, the server refuses all as soon as it has refused enough, or
//     all that there is.
//
// A page in place of an answer, of a login or of what is under maintenance, is put aside in
// the same way. If it meant its own request alone, that is tried again.

const (
	refusedSurely  = 8  // refusals that can hardly mean single requests, before it is decided
	refusedMaybe   = 64 // those that can: of content, or of a model that only some lines name
	refusedSettle  = 2 * time.Second
	refusedPause   = 2 * time.Second // before the server is tried again; it doubles
	refusedPauses  = time.Minute     // at most
	refusedAskEach = 250 * time.Millisecond
)

// RefusedError says that the model server refuses all requests.
type RefusedError struct {
	Server   string // its URL
	Path     string // of the request that it refused
	Status   int
	Location string        // that a redirect names
	Message  string        // the server's own words, in one line
	CutAfter time.Duration // what something in front of the server leaves for an answer; 0: nothing is cut off

	fix string // what to do, if the status does not say it
}

func (e *RefusedError) Error() string {
	if e.CutAfter > 0 {
		return fmt.Sprintf("%s: POST %s at %s, not even one alone came through", cutOffText(e.CutAfter), e.Path, e.Server)
	}

	text := fmt.Sprintf("the model server at %s refuses all requests: POST %s: status %s", e.Server, e.Path,
		strings.TrimSpace(fmt.Sprint(e.Status, " ", http.StatusText(e.Status))))
	if e.Status == http.StatusOK {
		text += ", with a page in place of an answer"
	}
	if e.Location != "" {
		text += ", Location: " + e.Location
	}
	if e.Message != "" {
		text += ": " + e.Message
	}

	return text
}

// Fix says what to do about it.
func (e *RefusedError) Fix() string {
	switch {
	case e.CutAfter > 0:
		return "look whether the server is at work at all; if it is, " + cutHint
	case e.fix != "":
		return e.fix
	case e.Status == http.StatusOK, e.Status == http.StatusNetworkAuthenticationRequired:
		return "look whether --url is the URL of the model server itself, not of a page in front of it; if that wants a login, set PROMPTMILL_API_KEY or use another way in"
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return "set PROMPTMILL_API_KEY to a key that the server takes"
	case e.Status == http.StatusPaymentRequired:
		return fixCredit
	case e.Status == http.StatusUpgradeRequired:
		return "look whether the server wants https:// in --url, or a newer version of HTTP"
	case e.Status == http.StatusProxyAuthRequired:
		return "set the proxy's user and password in HTTP_PROXY, or name the server in NO_PROXY"
	case e.Location != "":
		return "give the URL that it redirects to as --url"
	case e.Status == http.StatusNotFound, e.Status == http.StatusGone:
		return "look whether --url is the server's base URL, and whether it has the model that the requests name, of the kind that they need: vLLM either generates or embeds"
	}

	return "look whether --url is the URL of a model server"
}

// refusals are the answers that were put aside, and what decides about them.
type refusals struct {
	n      atomic.Int64                    // put aside
	enough atomic.Bool                     // to decide what they mean
	full   chan struct{}                   // has one element after enough became true
	latest atomic.Int64                    // when the latest request that was let in began, since the worker was made
	sample atomic.Pointer[admittedRequest] // one that was let in

	mu     sync.Mutex
	aside  []refusal
	closed bool
	said   string // the last complaint of the server
}

// refusal is an answer that was put aside.
type refusal struct {
	task  *task
	j     classification
	took  time.Duration
	ended time.Duration // since the worker was made
}

// admittedRequest is one that the server has let in, and what it took.
type admittedRequest struct {
	url      string
	body     []byte
	answered bool
	took     time.Duration
}

// admitRequest notes that the server let in a request that began at a time. This is in the way of
// each answer.
func (w *Worker) admitRequest(t *task, j classification, begin time.Time, took time.Duration) {
	r := &w.refusals
	at := int64(begin.Sub(w.made))
	for old := r.latest.Load(); at > old && !r.latest.CompareAndSwap(old, at); old = r.latest.Load() {
	}

	// The quickest of those answered is the cheapest to send again.
	if s := r.sample.Load(); s == nil || j.ok() && (!s.answered || took < s.took/4) {
		r.sample.Store(&admittedRequest{
			url:      t.URL,
			body:     slices.Clone(t.Body),
			answered: j.ok(),
			took:     took,
		})
	}

	if r.n.Load() > 0 {
		w.settleRefusals(time.Duration(at))
	}

	if j.ok() && w.cutoffs.answered(begin, took) {
		w.releaseCutOffs()
	}
}

// settleRefusals makes results of the refusals that came before a request began that was let in. A
// page is tried again, and so is a 429: the quota that it says is used up is then one of a
// minute, for which Gemini has the words that OpenAI has for an account without credit.
func (w *Worker) settleRefusals(begin time.Duration) {
	for _, a := range w.refusals.take(func(a refusal) bool { return a.ended < begin }) {
		switch {
		case a.j.page != "":
		case a.j.overload:
			a.j.verdict = retry
		default:
			a.j.verdict, a.j.reason = final, ""
		}

		w.finishAttempt(a.task, a.j, a.took)
	}
}

// setAside keeps a refusal until it is known whom it means.
func (w *Worker) setAside(t *task, j classification, took time.Duration) {
	r := &w.refusals
	r.mu.Lock()

	closed := r.closed
	if !closed {
		r.aside = append(r.aside, refusal{t, j, took, time.Since(w.made)})
		r.count()
	}

	r.mu.Unlock()

	if closed {
		t.handBack()
		return
	}

	if t.shard.run.paused.Load() { // perhaps since a moment; others may have taken it out
		for _, a := range r.take(func(a refusal) bool { return a.task == t }) {
			a.task.handBack()
		}
		return
	}

	if latest := time.Duration(r.latest.Load()); latest > 0 { // perhaps of one that has just ended
		w.settleRefusals(latest)
	}

	w.fetchWake.notify()
}

// take takes out the refusals of which wanted is true.
func (r *refusals) take(wanted func(refusal) bool) (out []refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.aside = slices.DeleteFunc(r.aside, func(a refusal) bool {
		if wanted(a) {
			out = append(out, a)
			return true
		}
		return false
	})

	r.count()

	return out
}

// count brings the counts up to date. Whoever calls it holds the lock.
func (r *refusals) count() {
	r.n.Store(int64(len(r.aside)))

	surely := 0
	for _, a := range r.aside {
		if refusesSurely(a.j.result.Status) {
			surely++
		}
	}

	enough := surely >= refusedSurely || len(r.aside) >= refusedMaybe
	r.enough.Store(enough)
	if enough {
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// refusesSurely reports whether a refusal with a status can hardly mean a single request. A page
// has none.
func refusesSurely(status int) bool {
	switch status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return false
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusInternalServerError,
		http.StatusNotImplemented, http.StatusServiceUnavailable:
		return false // of a model, or of what the server cannot do, which other lines may not want
	}

	return true
}

// undecided reports whether the server has refused enough and never let in a request. It
// gets no more until it is known why.
func (r *refusals) undecided() bool { return r.enough.Load() && r.sample.Load() == nil }

// close takes out all, and lets none in any more.
func (r *refusals) close() []refusal {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.take(func(refusal) bool { return true })
}

// watchRefusals decides what refusals mean, and tries a server that refuses all from time
// to time, until ctx ends.
func (w *Worker) watchRefusals(ctx context.Context) {
	tick := time.NewTicker(refusedAskEach)
	defer tick.Stop()

	pause, tried := refusedPause, time.Time{}
	for {
		select {
		case <-tick.C:
		case <-w.refusals.full:
		case <-ctx.Done():
			return
		}

		if !w.health.isRefusing() {
			w.retryCutOffs()
			if w.refusals.n.Load() > 0 && !w.Down() && time.Since(tried) >= refusedPause && w.judgeRefusals(ctx) {
				tried = time.Now()
			}
			continue
		}

		if time.Since(tried) < pause {
			continue
		}

		switch refused, err := w.sendSample(ctx, nil); {
		case refused == nil && err == nil:
			pause = refusedPause
			w.refusals.forgive()
			w.markUp()
		case refused == nil && w.refusals.sample.Load() == nil:
			// Nothing was ever let in: what the bus has now may be.
			pause = min(2*pause, refusedPauses)
			w.reopenServer()
		default:
			pause = min(2*pause, refusedPauses)
		}

		tried = time.Now()
	}
}

var errNoSample = errors.New("no request was let in yet")

// sendSample sends a request again that the server has let in before. refused is its
// answer, should it refuse that one now; an error says that it cannot be told. Where none
// was let in, page is sent, the request that got a page: that may pass at once.
func (w *Worker) sendSample(ctx context.Context, page *proto.Request) (refused *RefusedError, err error) {
	samples := w.cfg.Samples
	if s := w.refusals.sample.Load(); s != nil {
		samples = []proto.Request{{URL: s.url, Body: s.body}}
	}

	if page != nil && len(samples) == 0 {
		samples = []proto.Request{*page}
	}

	err = errNoSample
	for _, s := range samples {
		begin := time.Now()
		limited, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
		j := classify(s.URL, s.Body, w.cfg.Server.Post(limited, s.URL, s.Body))
		cancel()
		switch {
		case j.verdict == final:
			w.admitRequest(&task{Request: s}, j, begin, time.Since(begin))
			return nil, nil
		case j.mayMeanAll():
			refused, err = w.refusedBy(s.URL, j), nil
		default:
			return nil, fmt.Errorf("it fails: %s", j.reason)
		}
	}

	return refused, err
}

// refusedBy puts a refusal into words.
func (w *Worker) refusedBy(path string, j classification) *RefusedError {
	e := &RefusedError{
		Server:   w.cfg.Server.URL(),
		Path:     path,
		Status:   j.result.Status,
		Location: j.location,
		Message:  proto.ErrorText(j.result.Body),
		fix:      j.fix,
	}
	if j.page != "" {
		e.Status, e.Message = http.StatusOK, j.page
	}

	return e
}

// judgeRefusals finds out whether the server refuses all requests, if there are refusals enough,
// or nothing else that could tell. It reports whether it has asked.
func (w *Worker) judgeRefusals(ctx context.Context) bool {
	r := &w.refusals
	r.mu.Lock()
	all := slices.Clone(r.aside)
	r.mu.Unlock()
	if len(all) == 0 {
		return false
	}

	last := all[len(all)-1].ended
	alone := w.held.load() == int64(len(all)) && time.Since(w.made)-last > refusedSettle
	if !r.enough.Load() && !alone {
		return false
	}

	var page *proto.Request
	if all[0].j.page != "" {
		page = &all[0].task.Request
	}

	refused, err := w.sendSample(ctx, page)
	switch {
	case ctx.Err() != nil, refused == nil && err == nil: // admit has settled them
		return true
	case errors.Is(err, errNoSample):
		refused = w.refusedBy(all[0].task.URL, all[0].j)
	case err != nil: // it fails in another way now
		return true
	}

	if w.cfg.StopRefused && r.sample.Load() == nil {
		w.stop(refused)
	} else {
		w.markRefusing(refused)
	}

	return true
}

// markRefusing notes that the server refuses all requests, and hands back those put aside.
func (w *Worker) markRefusing(err *RefusedError) {
	h, r := &w.health, &w.refusals
	r.mu.Lock()
	fresh := r.said != err.Error()
	r.said = err.Error()
	r.mu.Unlock()

	h.mu.Lock()
	if h.why == "" {
		h.since = time.Now()
	}

	h.why, h.refusing = err.Error(), true
	h.mu.Unlock()

	if fresh {
		w.cfg.Log.Warn().Err(err).Str("hint", err.Fix()).
			Msg("the model server refuses all requests; waiting until it takes one")
	}

	for _, a := range r.take(func(refusal) bool { return true }) {
		a.task.handBack()
	}

	for _, t := range w.cutoffs.take(func(*task) bool { return true }) {
		t.handBack()
	}
}

// forgive forgets what the server was last complained of.
func (r *refusals) forgive() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = ""
}

// reopenServer lets requests through to a server that may take others than it had.
func (w *Worker) reopenServer() {
	h := &w.health
	h.mu.Lock()
	h.why, h.hung, h.refusing = "", false, false
	h.lastProgress = time.Now()
	h.mu.Unlock()
	w.fetchWake.notify()
	w.queue.wake()
}

func (h *serverHealth) isRefusing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refusing
}
