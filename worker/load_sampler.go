package worker

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/promptmill/promptmill/proto"
)

const (
	// sampleEvery is the time between two readings of the load.
	sampleEvery = time.Second
	// sampleOverlap is the time for which announcements repeat a reading after one that had it was
	// stored: the next may overwrite that one before a collector reads it, every few seconds.
	sampleOverlap = 15 * time.Second
	// maxKeptSamples bounds the readings that wait for a bus which is away, and maxKeptRuns the
	// parts of runs in them: an announcement has room for 256 KiB.
	maxKeptSamples = 300
	maxKeptRuns    = 2000
)

// loadSampler counts the requests at the model server, and reads the counts once a second. A
// reading is the most that there were at once since the one before, so that a peak which lasts
// milliseconds is in it.
type loadSampler struct {
	limit func() int

	// mu guards the fields below.
	mu    sync.Mutex
	total runLoad
	runs  map[string]*runLoad

	samples []proto.LoadSample // the oldest first
}

// runLoad are requests at the model server.
type runLoad struct {
	now  int64
	most int64 // since the last reading
}

func newLoadSampler(limit func() int) *loadSampler {
	return &loadSampler{limit: limit, runs: map[string]*runLoad{}}
}

// begin counts a request of a run that goes to the model server.
func (s *loadSampler) begin(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	r := s.runs[run]
	if r == nil {
		r = &runLoad{}
		s.runs[run] = r
	}

	s.total.add(1)
	r.add(1)
}

// end counts a request of a run that the model server does not have any more.
func (s *loadSampler) end(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.total.add(-1)
	s.runs[run].add(-1)
}

// add adds n requests, which may be negative.
func (l *runLoad) add(n int64) {
	l.now += n
	l.most = max(l.most, l.now)
}

// take returns the most requests since the last reading, and begins the next one.
func (l *runLoad) take() (most int64) {
	most, l.most = l.most, l.now
	return most
}

// run reads the load until ctx ends.
func (s *loadSampler) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()

	for {
		select {
		case now := <-tick.C:
			s.read(now)
		case <-ctx.Done():
			return
		}
	}
}

// read takes a reading.
func (s *loadSampler) read(now time.Time) {
	limit := s.limit()

	s.mu.Lock()
	defer s.mu.Unlock()

	sample := proto.LoadSample{At: now.UTC(), InFlight: s.total.take(), Limit: limit}
	for run, r := range s.runs {
		if most := r.take(); most > 0 {
			if sample.Runs == nil {
				sample.Runs = map[string]int64{}
			}
			sample.Runs[run] = most
		}
	}

	maps.DeleteFunc(s.runs, func(_ string, r *runLoad) bool { return r.now == 0 })
	s.samples = append(s.samples, sample)

	runs := 0
	for i := len(s.samples) - 1; i >= 0; i-- {
		runs += len(s.samples[i].Runs)
		if len(s.samples)-i > maxKeptSamples || runs > maxKeptRuns {
			s.samples = s.samples[i+1:]
			break
		}
	}
}

// latest takes a reading and returns all that are kept, for an announcement at a time.
func (s *loadSampler) latest(now time.Time) []proto.LoadSample {
	s.read(now)

	s.mu.Lock()
	defer s.mu.Unlock()

	return append([]proto.LoadSample(nil), s.samples...)
}

// noteStored drops the readings that no announcement has to repeat any more, after one at a time
// was stored.
func (s *loadSampler) noteStored(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()

	i := 0
	for i < len(s.samples) && at.Sub(s.samples[i].At) > sampleOverlap {
		i++
	}

	s.samples = s.samples[i:]
}
