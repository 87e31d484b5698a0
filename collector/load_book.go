package collector

import (
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// loadBook adds up the load of a run's workers second by second. A worker reports its readings of each
// second a moment later, and again; they stand at their own time by the clock of the bus, which is that of
// the results.
type loadBook struct {
	run     string
	seconds map[int64]map[string]load // by the Unix time, and the keys of the workers' sessions
	newest  map[string]time.Time      // of the readings, by the keys of the sessions
}

// load is the most that a worker had of a run in a second.
type load struct {
	inFlight int64
	limit    int64
}

const (
	// loadWindow is the time for which seconds are kept: a worker keeps 300 readings while the bus is away.
	loadWindow = 330 * time.Second
	// loadGap is the longest time between two readings of a worker that is filled with the earlier one. A
	// worker without a reading of each second announces itself every 3 s.
	loadGap = 5 * time.Second
)

// add adds an announcement, and the seconds that it changes to changed. It reports whether a new reading
// shows requests of the run at the model server.
func (b *loadBook) add(key string, w proto.WorkerInfo, now time.Time, changed map[int64]bool) (working bool) {
	if len(w.Samples) == 0 {
		at := now
		if !w.ReceivedAt.IsZero() {
			at = w.ReceivedAt
		}

		b.addReading(key, at, load{w.InFlight, int64(w.Concurrency)}, changed)

		return w.InFlight > 0
	}

	shift := time.Duration(0) // from the clock of the worker's host to that of the bus
	if !w.SentAt.IsZero() && !w.ReceivedAt.IsZero() {
		shift = w.ReceivedAt.Sub(w.SentAt)
	}

	received := w.ReceivedAt
	if received.IsZero() {
		received = now
	}

	known := b.newest[key]
	for _, s := range w.Samples {
		at, own := s.At.Add(shift), s.Runs[b.run]
		if at.Before(received.Add(-loadWindow)) || at.After(received.Add(loadGap)) {
			continue // the clock was set meanwhile, or the worker is wrong; the whole series would be stretched
		}

		if s.Runs == nil {
			own = s.InFlight // the worker does not count by run
		}

		// The shift varies by the time that an announcement travels.
		working = working || own > 0 && at.Sub(known) > time.Second/2
		b.addReading(key, at, load{own, int64(s.Limit)}, changed)
	}

	return working
}

// addReading adds a reading of a worker. The seconds since the one before have that one.
func (b *loadBook) addReading(key string, at time.Time, l load, changed map[int64]bool) {
	if b.seconds == nil {
		b.seconds, b.newest = map[int64]map[string]load{}, map[string]time.Time{}
	}

	if last := b.newest[key]; at.After(last) {
		if before, ok := b.seconds[last.Unix()][key]; ok && at.Sub(last) <= loadGap {
			for second := last.Unix() + 1; second < at.Unix(); second++ {
				b.raise(second, key, before)
				changed[second] = true
			}
		}
		b.newest[key] = at
	}

	b.raise(at.Unix(), key, l)
	changed[at.Unix()] = true
}

// raise notes that a worker had so much in a second, at least.
func (b *loadBook) raise(second int64, key string, l load) {
	if b.seconds[second] == nil {
		b.seconds[second] = map[string]load{}
	}

	old := b.seconds[second][key]
	b.seconds[second][key] = load{max(old.inFlight, l.inFlight), max(old.limit, l.limit)}
}

// point returns what all workers had in a second.
func (b *loadBook) point(second int64) metadata.Point {
	var p metadata.Point
	for _, l := range b.seconds[second] {
		p.InFlight, p.Limit = metadata.Sum(p.InFlight, &l.inFlight), metadata.Sum(p.Limit, &l.limit)
	}
	return p
}

// dropOld drops the seconds before the window that ends at a time.
func (b *loadBook) dropOld(end time.Time) {
	for second := range b.seconds {
		if time.Unix(second, 0).Before(end.Add(-loadWindow)) {
			delete(b.seconds, second)
		}
	}

	for key, at := range b.newest {
		if at.Before(end.Add(-loadWindow)) {
			delete(b.newest, key)
		}
	}
}
