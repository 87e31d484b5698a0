package collector

import (
	"cmp"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// countInFlight returns how many requests of a run a worker has at its model server, as it announces.
// A worker that does not sample its load may have those of others.
func countInFlight(w proto.WorkerInfo, run string) int64 {
	if n := len(w.Samples); n > 0 {
		return w.Samples[n-1].Runs[run]
	}
	return w.InFlight
}

// maxVanished is the most sessions of one name that are kept because their workers vanished with requests, and
// before one ended. A worker that a request kills again and again would fill the memory and the journal.
const maxVanished = 100

// noteVanished notes which of the sessions that were announced at the poll before have vanished: they
// are not announced any more, and have left no last report. The caller holds the lock.
func (r *workerRegistry) noteVanished(before map[string]int64, stopped []proto.WorkerInfo) {
	for key, inFlight := range before {
		s, known := r.sessions[key]
		hasStopped := slices.ContainsFunc(stopped, func(w proto.WorkerInfo) bool { return sessionKey(w) == key })
		if known && !r.live[key] && !hasStopped && (s.Usage != nil || r.countVanished(s.Name) < maxVanished) {
			s.Vanished = &journal.Vanished{At: s.LastSeen, InFlight: inFlight}
			r.sessions[key] = s
		}
	}
}

// countVanished returns how many sessions of a name have vanished before a request ended. The caller holds the
// lock.
func (r *workerRegistry) countVanished(name string) (n int) {
	for _, s := range r.sessions {
		if s.Name == name && s.Usage == nil && s.Vanished != nil && s.Vanished.InFlight > 0 {
			n++
		}
	}
	return n
}

// hasNews reports whether a session has to go into the journal at once: its worker was asked to leave,
// has left or has vanished. Its announcements will not say so again.
func hasNews(before, now journal.WorkerSession) bool {
	if (before.Vanished == nil) != (now.Vanished == nil) || (before.Departure == nil) != (now.Departure == nil) {
		return true
	}
	return now.Departure != nil && !now.Departure.LeftAt.Equal(before.Departure.LeftAt)
}

// buildDepartures returns the workers that left before the end of a run in which they took part, in
// the order of their departures. stats is of the lines of the run, and end its end.
func buildDepartures(
	run string, sessions []journal.WorkerSession, stats *journal.FrameStats, end time.Time,
) (list []metadata.Departure) {
	for _, s := range sessions {
		tookPart := s.Usage != nil || hadRequestsAtEnd(s, run) || stats != nil && stats.Workers[s.Name] > 0
		if tookPart && (s.Departure != nil || s.Vanished != nil) {
			list = append(list, newDeparture(run, s, end))
		}
	}

	began := func(d metadata.Departure) time.Time {
		if d.NoticedAt != nil {
			return *d.NoticedAt
		}
		return *d.VanishedAt
	}

	slices.SortStableFunc(list, func(a, b metadata.Departure) int {
		return cmp.Or(began(a).Compare(began(b)), cmp.Compare(a.Worker, b.Worker))
	})

	return list
}

// hadRequestsAtEnd reports whether a session's worker had requests of a run when it left or vanished.
func hadRequestsAtEnd(s journal.WorkerSession, run string) bool {
	if s.Departure != nil && s.Departure.Runs[run] != (proto.DepartureUsage{}) {
		return true
	}
	return s.Vanished != nil && s.Vanished.InFlight > 0
}

// newDeparture returns the departure of a session's worker.
func newDeparture(run string, s journal.WorkerSession, end time.Time) metadata.Departure {
	d := metadata.Departure{Worker: s.Name, ID: s.ID}

	if v := s.Vanished; v != nil {
		d.VanishedAt, d.LostInFlight = &v.At, v.InFlight
	}

	if n := s.Departure; n != nil {
		usage := n.Runs[run]
		d.Reason, d.NoticedAt, d.Deadline, d.LeftAt = n.Reason, &n.NoticedAt, &n.Deadline, nullIfZero(n.LeftAt)
		d.Finished, d.HandedBack = usage.Finished, usage.HandedBack
		d.ThrownAway, d.ThrownAwaySeconds = usage.ThrownAway, usage.ThrownAwaySeconds

		until := n.Deadline
		if end.Before(until) { // there was nothing more to do
			until = end
		}

		if used := metadata.Per(n.UsedSeconds, float64(n.Slots)*until.Sub(n.NoticedAt).Seconds()); used != nil {
			d.TimeUsed = new(min(1, *used))
		}
	}

	return d
}
