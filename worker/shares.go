package worker

import (
	"maps"
	"sync"

	"github.com/promptmill/promptmill/proto"
)

// shares are what the worker spends on each run: requests, and the energy of the GPUs,
// which goes to the runs by the requests that ended since the last look.
type shares struct {
	mu     sync.Mutex
	runs   map[string]proto.RunUsage
	fresh  map[string]int64 // requests since the last look
	joules float64          // at the last look
	seen   bool
}

// ended counts a request of a run that the model server had.
func (s *shares) ended(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	r := s.runs[run]
	r.Requests++
	s.runs[run] = r
	s.fresh[run]++
}

// redelivered counts a shard of a run that somebody had before.
func (s *shares) redelivered(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.make()
	r := s.runs[run]
	r.Redeliveries++
	s.runs[run] = r
}

func (s *shares) make() {
	if s.runs == nil {
		s.runs, s.fresh = map[string]proto.RunUsage{}, map[string]int64{}
	}
}

// now is what was spent on each run until now. The energy of a time without any
// request's end waits for the next: long answers take it, too.
func (s *shares) now(cards []proto.GPU) map[string]proto.RunUsage {
	s.mu.Lock()
	defer s.mu.Unlock()

	total, known := 0.0, false
	for _, c := range cards {
		if c.EnergyJoules != nil {
			total += *c.EnergyJoules
			known = true
		}
	}

	if known && !s.seen {
		s.joules, s.seen = total, true // what was spent before the worker began
	}

	requests := int64(0)
	for _, n := range s.fresh {
		requests += n
	}

	if known && requests > 0 {
		for run, n := range s.fresh {
			r := s.runs[run]
			spent := (total - s.joules) * float64(n) / float64(requests)
			if r.EnergyJoules != nil {
				spent += *r.EnergyJoules
			}

			r.EnergyJoules = &spent
			s.runs[run] = r
		}

		s.joules = total
		clear(s.fresh)
	}

	told := maps.Clone(s.runs)
	for run, r := range told {
		if r.Requests == 0 { // a shard that was done already; what is unknown would hide what others spent
			r.EnergyJoules = new(0.0)
			told[run] = r
		}
	}

	return told
}

// keep drops the runs of which wanted is false: they are over.
func (s *shares) keep(wanted func(run string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.runs, func(run string, _ proto.RunUsage) bool { return !wanted(run) })
	maps.DeleteFunc(s.fresh, func(run string, _ int64) bool { return !wanted(run) })
}
