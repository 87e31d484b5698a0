package worker

import (
	"maps"
	"sync"

	"github.com/promptmill/promptmill/proto"
)

// usage are what the worker spends on each run: requests, and the energy of the GPUs,
// which goes to the runs by the requests that ended since the last look.
type usage struct {
	mu           sync.Mutex
	runs         map[string]proto.RunUsage
	unattributed map[string]int64 // requests since the last look
	joules       float64          // at the last look
	seen         bool
}

// countRequest counts a request of a run that the model server had.
func (s *usage) countRequest(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ensureMaps()
	r := s.runs[run]
	r.Requests++
	s.runs[run] = r
	s.unattributed[run]++
}

// countRedelivery counts a shard of a run that somebody had before.
func (s *usage) countRedelivery(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ensureMaps()
	r := s.runs[run]
	r.Redeliveries++
	s.runs[run] = r
}

func (s *usage) ensureMaps() {
	if s.runs == nil {
		s.runs, s.unattributed = map[string]proto.RunUsage{}, map[string]int64{}
	}
}

// snapshot is what was spent on each run until now. The energy of a time without any
// request's end waits for the next: long answers take it, too.
func (s *usage) snapshot(cards []proto.GPU) map[string]proto.RunUsage {
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
	for _, n := range s.unattributed {
		requests += n
	}

	if known && requests > 0 {
		for run, n := range s.unattributed {
			r := s.runs[run]
			spent := (total - s.joules) * float64(n) / float64(requests)
			if r.EnergyJoules != nil {
				spent += *r.EnergyJoules
			}

			r.EnergyJoules = &spent
			s.runs[run] = r
		}

		s.joules = total
		clear(s.unattributed)
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

// retain drops the runs of which wanted is false: they are over.
func (s *usage) retain(wanted func(run string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.runs, func(run string, _ proto.RunUsage) bool { return !wanted(run) })
	maps.DeleteFunc(s.unattributed, func(run string, _ int64) bool { return !wanted(run) })
}
