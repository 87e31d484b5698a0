package collector

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// workerRegistry holds what the workers' announcements report. It is safe for concurrent
// use.
type workerRegistry struct {
	run string

	mu       sync.Mutex                       // guards the fields below
	sessions map[string]journal.WorkerSession // by their keys
	live     map[string]bool                  // keys of the workers that were announced at the last poll
	inFlight map[string]int64                 // requests of the run, of these, by their keys
	saved    time.Time                        // when the journal got all changes last
	sampled  map[string]bool                  // keys of the workers that report their load by the second
	energy   energyLedger
	book     loadBook
	observed metadata.Series // of the workers, since it was taken last
	load     workerLoad      // at the last poll
}

// workerLoad is what the workers that have a part in the run do.
type workerLoad struct {
	inFlight int // requests of the run
	ready    int // workers whose model server works
}

// saveInterval is the interval at which changes of known workers go into the journal: their
// figures change all the time, and there may be hundreds of workers.
const saveInterval = time.Minute

func newWorkerRegistry(run string, known map[string]journal.WorkerSession) *workerRegistry {
	r := &workerRegistry{run: run, sessions: map[string]journal.WorkerSession{}, book: loadBook{run: run}}
	maps.Copy(r.sessions, known)
	return r
}

// poll reads the announcements of all workers. It reports whether one is at work.
func (r *workerRegistry) poll(ctx context.Context, heartbeats *bus.Heartbeats) (working bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	workers, stopped, err := heartbeats.Reports(ctx)
	if err != nil {
		return false, err
	}

	r.observe(workers, stopped...)

	return r.sampleLoad(time.Now(), workers, stopped...), nil
}

// observe updates the sessions of the workers that are announced now, and of those that have
// stopped.
func (r *workerRegistry) observe(workers []proto.WorkerInfo, stopped ...proto.WorkerInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()

	before := r.inFlight
	r.live, r.sampled, r.inFlight = map[string]bool{}, map[string]bool{}, map[string]int64{}
	for _, w := range workers {
		r.inFlight[sessionKey(w)] = countInFlight(w, r.run)
		if _, takesPart := w.Runs[r.run]; len(w.Samples) == 0 && !takesPart {
			r.inFlight[sessionKey(w)] = 0 // they are of others
		}

		r.live[sessionKey(w)], r.sampled[sessionKey(w)] = true, len(w.Samples) > 0
	}

	updates := make([]sessionUpdate, 0, len(workers))
	for _, w := range slices.Concat(workers, stopped) {
		before, known := r.sessions[sessionKey(w)]
		if !known {
			// A worker that crashes again and again would fill the memory.
			maps.DeleteFunc(r.sessions, func(key string, s journal.WorkerSession) bool {
				return s.Name == w.Name && s.Usage == nil && !hadRequestsAtEnd(s, r.run) && !r.live[key]
			})
		}

		updates = append(updates, sessionUpdate{
			info:   w,
			before: before,
			after:  observeAnnouncement(before, w, r.run),
			known:  known,
		})
	}

	r.energy.divideEnergy(r.run, updates)

	for _, u := range updates {
		r.sessions[u.after.Key()] = u.after
	}

	r.noteVanished(before, stopped)
}

// sessionKey returns the key of the session that an announcement is of.
func sessionKey(w proto.WorkerInfo) string {
	return journal.WorkerSession{ID: w.ID, Name: w.Name, Since: w.Since}.Key()
}

// sampleLoad adds the workers' readings to the series, and reports whether one is at work. It takes the
// workers that have a part in the run or, until one reports that, all. Those that have stopped are no more
// at work.
func (r *workerRegistry) sampleLoad(
	now time.Time, workers []proto.WorkerInfo, stopped ...proto.WorkerInfo,
) (working bool) {
	takesPart := func(w proto.WorkerInfo) bool { _, ok := w.Runs[r.run]; return ok || hasSample(w, r.run) }
	if slices.ContainsFunc(workers, takesPart) {
		workers = slices.DeleteFunc(slices.Clone(workers), func(w proto.WorkerInfo) bool { return !takesPart(w) })
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.load = workerLoad{}
	at, changed := now, map[int64]bool{}
	for _, w := range workers {
		r.load.add(w, r.run)
		working = r.book.add(sessionKey(w), w, now, changed) || working

		if !w.ReceivedAt.IsZero() {
			at = w.ReceivedAt // by the clock of the bus
		}
	}

	for _, w := range stopped {
		if hasSample(w, r.run) {
			r.book.add(sessionKey(w), w, now, changed)
		}
	}

	for _, second := range slices.Sorted(maps.Keys(changed)) {
		r.observed.Add(time.Unix(second, 0), r.book.point(second))
	}

	if used := memoryUsed(workers); used != nil {
		r.observed.Add(at, metadata.Point{MemoryUsedBytes: used})
	}

	r.book.dropOld(at)

	return working
}

// memoryUsed returns the memory in use of the cards of workers, which several may see; nil: unknown.
func memoryUsed(workers []proto.WorkerInfo) (used *int64) {
	seen := map[string]bool{}
	for _, w := range workers {
		for _, card := range w.GPU {
			key := cardKey(w.Host, card)
			if seen[key] {
				continue
			}

			seen[key] = true
			used = metadata.Sum(used, card.MemoryUsedBytes)
		}
	}

	return used
}

// hasSample reports whether a worker had requests of a run at its model server.
func hasSample(w proto.WorkerInfo, run string) bool {
	return slices.ContainsFunc(w.Samples, func(s proto.LoadSample) bool { return s.Runs[run] > 0 })
}

// add adds what a worker does for a run.
func (l *workerLoad) add(w proto.WorkerInfo, run string) {
	if w.Ready {
		l.ready++
	}

	l.inFlight += int(countInFlight(w, run))
}

// currentLoad returns what the workers do, as of the last poll.
func (r *workerRegistry) currentLoad() workerLoad {
	r.mu.Lock()
	defer r.mu.Unlock()

	return r.load
}

// takeSeries returns the series of the workers' work since the last call.
func (r *workerRegistry) takeSeries() metadata.Series {
	r.mu.Lock()
	defer r.mu.Unlock()

	observed := r.observed
	r.observed = metadata.Series{}

	return observed
}

// changes returns the sessions to write into the journal: sessions with a part in the run
// that are not as the journal has them. New ones are returned at once, changes of known ones
// at most once per saveInterval unless all is set. fresh are the lines that are not in the
// journal yet.
func (r *workerRegistry) changes(
	s *journal.State, fresh journal.FrameStats, all bool,
) (changes []journal.WorkerSession) {
	r.mu.Lock()
	defer r.mu.Unlock()

	all = all || time.Since(r.saved) >= saveInterval
	for key, session := range r.sessions {
		tookPart := session.Usage != nil || hadRequestsAtEnd(session, r.run) || fresh.Workers[session.Name] > 0 ||
			s.Stats != nil && s.Stats.Workers[session.Name] > 0
		before, known := s.WorkerSessions[key]
		isUrgent := !known || hasNews(before, session)
		if tookPart && (isUrgent || all && !reflect.DeepEqual(before, session)) {
			changes = append(changes, session)
		}
	}

	if all {
		r.saved = time.Now()
	}

	slices.SortFunc(changes, compareStart)

	return changes
}

// hasVanished reports whether a worker that was seen since then is not announced any more.
func (r *workerRegistry) hasVanished(since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	for key, s := range r.sessions {
		if !r.live[key] && s.LastSeen.After(since) {
			return true
		}
	}

	return false
}

// all returns all sessions, by the workers' names and starts.
func (r *workerRegistry) all() []journal.WorkerSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.sessions), compareStart)
}

// isUsagePending reports whether a worker that is alive, and meters its cards or reports its load by the
// second, has not yet reported its usage for all the requests that the output has from it.
func (r *workerRegistry) isUsagePending(requests map[string]int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	reported, metered := map[string]int64{}, map[string]bool{}
	for key, s := range r.sessions {
		if usage := s.TotalUsage(); usage != nil {
			reported[s.Name] += usage.Requests
		}

		metered[s.Name] = metered[s.Name] || r.live[key] && (isMetered(s) || r.sampled[key])
	}

	for name, n := range requests {
		if metered[name] && reported[name] < n {
			return true
		}
	}

	return false
}

// compareStart orders sessions by the names of the workers and by time.
func compareStart(a, b journal.WorkerSession) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since))
}
