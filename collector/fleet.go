package collector

import (
	"context"
	"fmt"
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

// fleet is what is known of the workers, from their announcements. It is safe for
// concurrent use.
type fleet struct {
	run string

	mu     sync.Mutex
	stints map[string]journal.WorkerSession // by their keys
	live   map[string]bool                  // those that were announced when the bus was looked at last
	noted  time.Time                        // when the journal was told last
	cards  cards
}

// noteEvery is how often news of workers goes into the journal: their figures change all
// the time, and there may be hundreds.
const noteEvery = time.Minute

func newFleet(run string, known map[string]journal.WorkerSession) *fleet {
	f := &fleet{run: run, stints: map[string]journal.WorkerSession{}}
	maps.Copy(f.stints, known)
	return f
}

// heard takes in the workers that are announced now.
func (f *fleet) heard(workers []proto.WorkerInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.live = map[string]bool{}
	for _, w := range workers {
		f.live[keyOf(w)] = true
	}

	heard := make([]hearing, 0, len(workers))
	for _, w := range workers {
		before, known := f.stints[keyOf(w)]
		if !known {
			// A worker that dies again and again would fill the memory.
			maps.DeleteFunc(f.stints, func(key string, s journal.WorkerSession) bool {
				return s.Name == w.Name && s.Usage == nil && !f.live[key]
			})
		}

		heard = append(heard, hearing{
			told:   w,
			before: before,
			after:  observeAnnouncement(before, w, f.run),
			known:  known,
		})
	}

	f.cards.share(f.run, heard)
	for _, h := range heard {
		f.stints[h.after.Key()] = h.after
	}
}

// keyOf is the key of the stint that an announcement is of.
func keyOf(w proto.WorkerInfo) string {
	return journal.WorkerSession{ID: w.ID, Name: w.Name, Since: w.Since}.Key()
}

// news are the stints that the journal should be told of: those of workers with a part
// in the run that are not as the journal has them. Unless all is given, what the journal
// knows in part has to wait for its time.
func (f *fleet) news(s *journal.State, fresh journal.FrameStats, all bool) (news []journal.WorkerSession) {
	f.mu.Lock()
	defer f.mu.Unlock()

	all = all || time.Since(f.noted) >= noteEvery
	for key, stint := range f.stints {
		took := stint.Usage != nil || fresh.Workers[stint.Name] > 0 || s.Stats != nil && s.Stats.Workers[stint.Name] > 0
		before, known := s.WorkerSessions[key]
		if took && (!known || all && !reflect.DeepEqual(before, stint)) {
			news = append(news, stint)
		}
	}

	if all {
		f.noted = time.Now()
	}

	slices.SortFunc(news, byStart)

	return news
}

// vanished reports whether a worker that was heard of since then is not there any more.
func (f *fleet) vanished(since time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()

	for key, s := range f.stints {
		if !f.live[key] && s.LastSeen.After(since) {
			return true
		}
	}

	return false
}

// all are all stints, by the workers' names and starts.
func (f *fleet) all() []journal.WorkerSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.stints), byStart)
}

// behind reports whether a worker that is alive, and measures what its cards take, has
// not told yet what it spent on all the requests that the output has from it.
func (f *fleet) behind(requests map[string]int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()

	told, waiting := map[string]int64{}, map[string]bool{}
	for key, s := range f.stints {
		if share := s.TotalUsage(); share != nil {
			told[s.Name] += share.Requests
		}
		waiting[s.Name] = waiting[s.Name] || f.live[key] && isMetered(s)
	}

	for name, n := range requests {
		if waiting[name] && told[name] < n {
			return true
		}
	}

	return false
}

// survey looks which workers there are, and what they tell.
func (c *Collector) survey(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	workers, err := c.heartbeats.Workers(ctx)
	if err != nil {
		return err
	}

	c.fleet.heard(workers)
	c.sight(time.Now(), workers)

	return nil
}

// sight notes what the workers that have a part in the run do now or, as long as none
// has said that, all of them.
func (c *Collector) sight(now time.Time, workers []proto.WorkerInfo) {
	of := func(w proto.WorkerInfo) bool { _, took := w.Runs[c.run]; return took }
	if !slices.ContainsFunc(workers, of) {
		of = func(proto.WorkerInfo) bool { return true }
	}

	var p metadata.Point
	seen := map[string]bool{} // cards, which several workers may see
	for _, w := range workers {
		if !of(w) {
			continue
		}

		p.InFlight = metadata.Sum(p.InFlight, &w.InFlight)
		for _, card := range w.GPU {
			if card.UUID != "" && seen[card.UUID] {
				continue
			}
			seen[card.UUID] = true
			p.MemoryUsedBytes = metadata.Sum(p.MemoryUsedBytes, card.MemoryUsedBytes)
		}
	}

	if p.InFlight != nil && *p.InFlight > 0 {
		c.clock.work(now)
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	c.sights.Add(now, p)
}

// lastWords waits, not for long, until the workers have told what they spent on the run:
// they announce themselves every few seconds only.
func (c *Collector) lastWords(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, proto.PresenceTTL/5+time.Second)
	defer cancel()

	for {
		if err := c.survey(ctx); err != nil {
			if ctx.Err() == nil {
				c.cfg.Log.Warn().Err(err).Msg("ask what the workers have spent on the run")
			}
			return
		}

		if t := c.cfg.Journal.State().Stats; t == nil || !c.fleet.behind(t.Workers) ||
			bus.Sleep(ctx, 200*time.Millisecond) != nil {
			return
		}
	}
}

// noteRest tells the journal all that is known of the workers and, where the session
// ends before the run does, how the time since the last result was spent: it would count
// as lost when the run goes on.
func (c *Collector) noteRest() error {
	f := &journal.Frame{At: time.Now().UTC(), WorkerSessions: c.fleet.news(c.cfg.Journal.State(), journal.FrameStats{}, true)}
	if c.missing() > 0 {
		c.clock.work(time.Now()) // f.At knows the wall clock only, which may have been put forward
		spent := c.clock.take()
		f.Worked, f.Idle = spent.worked, spent.idle
	}

	if len(f.WorkerSessions) == 0 && f.Worked < time.Millisecond && f.Idle < time.Millisecond {
		return nil
	}

	if err := c.cfg.Journal.Append(f); err != nil {
		return fmt.Errorf("note the workers and the time: %w", err)
	}

	return nil
}
