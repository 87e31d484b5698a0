package collector

import (
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/remaining"
	"github.com/promptmill/promptmill/proto"
)

// ledger counts received and synced lines, and lists the objects that the bus need not keep
// any longer. It is safe for concurrent use: the reader of results, the writer of the
// journal and the loop that talks to the bus share it.
type ledger struct {
	mu        sync.Mutex // guards the fields below
	received  proto.Counts
	backlog   journal.Position // the end of the results that were there when the collector began
	found     proto.Counts     // the received lines of the journal and of the backlog
	rate      resultRate       // of the received lines
	rest      remaining.Estimator
	durable   proto.Counts
	failures  map[string]int64 // of the durable lines, see proto.TopFailures; never changed
	synced    journal.Position // in the results stream
	finishing bool
	sources   []string      // objects of requests whose results are synced
	answers   []largeAnswer // on the bus, and synced by this process, the oldest first
}

// reset begins again with the state of a journal.
func (l *ledger) reset(s *journal.State) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.received, l.found, l.durable, l.synced, l.finishing = s.Counts, s.Counts, s.Counts, s.Position, false
	l.failures, l.rest = topFailures(s), remaining.Estimator{}
}

// setBacklog sets the end of the results that were there when the collector began.
func (l *ledger) setBacklog(end journal.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.backlog = end
}

// addReceived adds lines of a message that was taken off the bus. at is its position, with the time at
// which the bus got it.
func (l *ledger) addReceived(c proto.Counts, at journal.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.received.Add(c)
	if at.Created.Equal(l.backlog.Created) && at.Sequence <= l.backlog.Sequence {
		l.found.Add(c)
	}
	l.rate.add(at.Time, time.Now(), c.Done)
}

// addSynced adds a frame that is synced. s is the state of the journal after it.
func (l *ledger) addSynced(s *journal.State, f *pendingFrame) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.durable.Failed != s.Counts.Failed {
		l.failures = topFailures(s)
	}

	l.durable, l.synced = s.Counts, s.Position
	l.sources = append(l.sources, f.sources...)
	l.answers = append(l.answers, f.answers...)
}

// topFailures returns the failures of a journal for the manifest.
func topFailures(s *journal.State) map[string]int64 {
	if s.Stats == nil {
		return nil
	}
	return proto.TopFailures(s.Stats.Failures)
}

// setFinishing notes that all lines are there and the files are being written.
func (l *ledger) setFinishing() {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.finishing = true
}

// progress returns the counts of a run of total requests.
func (l *ledger) progress(total int) Progress {
	l.mu.Lock()
	defer l.mu.Unlock()

	return Progress{
		Total:     total,
		Received:  l.received,
		Found:     l.found,
		Durable:   l.durable.Done,
		Finishing: l.finishing,
		Remaining: l.rest.Interval(),
	}
}

// sampleWork adds the state of a run of total requests to what its remaining time is estimated by.
// working reports whether requests can end, and load is that of the workers.
func (l *ledger) sampleWork(now time.Time, total int, load workerLoad, working bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.rest.Add(remaining.Sample{
		At:       now,
		Done:     l.received.Done - l.found.Done,
		Left:     total - l.received.Done,
		InFlight: load.inFlight,
		Workers:  load.ready,
		Working:  working,
	})
}

// leaseProgress returns the progress that stands in the lease.
func (l *ledger) leaseProgress() *proto.CollectorProgress {
	l.mu.Lock()
	defer l.mu.Unlock()

	return &proto.CollectorProgress{
		Done:              l.received.Done,
		Failed:            l.received.Failed,
		RequestsPerSecond: l.rate.perSecond(time.Now()),
		Remaining:         l.rest.Interval(),
	}
}

// receivedCounts returns the counts of the lines that were taken off the bus.
func (l *ledger) receivedCounts() proto.Counts {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.received
}

// takeSynced returns the counts and the position that are synced, and the objects that can
// be deleted since it was called last.
func (l *ledger) takeSynced() (counts proto.Counts, synced journal.Position, sources []string) {
	l.mu.Lock()
	defer l.mu.Unlock()

	sources, l.sources = l.sources, nil

	return l.durable, l.synced, sources
}

// syncedFailures returns the failures of the synced lines.
func (l *ledger) syncedFailures() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.failures
}

// takeOldAnswers returns the older half of the large answers that are synced, once they have
// more than limit bytes.
func (l *ledger) takeOldAnswers(limit int64) []largeAnswer {
	l.mu.Lock()
	defer l.mu.Unlock()

	var size int64
	for _, a := range l.answers {
		size += a.bytes
	}

	n := 0
	if size > limit {
		for ; size > limit/2; n++ {
			size -= l.answers[n].bytes
		}
	}

	old := l.answers[:n:n]
	l.answers = l.answers[n:]

	return old
}
