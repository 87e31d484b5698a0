package proto

import "time"

// Departure is the end of a worker that was announced to it: its machine is taken back, or its job
// ends. It stands in the worker's announcements from then on, and in its last report.
type Departure struct {
	// Reason is the reason, for people.
	Reason string `json:"reason"`
	// NoticedAt is the time of the first notice, and Deadline the time at which the worker will be
	// gone, both by the clock of the worker's host.
	NoticedAt time.Time `json:"noticed_at"`
	Deadline  time.Time `json:"deadline"`
	// LeftAt is the time at which the worker had given back or stored all that it had; zero: it has
	// something still, or it vanished.
	LeftAt time.Time `json:"left_at,omitzero"`
	// Slots is the worker's limit of requests at once, in the mean since the first notice.
	Slots int `json:"slots"`
	// UsedSeconds is the time in slots, since the notice, of attempts that gave a result, of all runs.
	// Divided by Slots and the time until the deadline, it is the use of that time.
	UsedSeconds float64 `json:"used_seconds"`
	// Runs counts the requests of each run by what became of them.
	Runs map[string]DepartureUsage `json:"runs,omitempty"`
}

// DepartureUsage counts the requests of one run at a worker since it was asked to leave.
type DepartureUsage struct {
	// Finished counts those that got their result, and HandedBack those that went back to the bus,
	// and were not at the model server then.
	Finished   int64 `json:"finished,omitempty"`
	HandedBack int64 `json:"handed_back,omitempty"`
	// ThrownAway counts those that were cancelled at the model server, and went back, too.
	// ThrownAwaySeconds is the time that they had been there.
	ThrownAway        int64   `json:"thrown_away,omitempty"`
	ThrownAwaySeconds float64 `json:"thrown_away_seconds,omitempty"`
}

// checkFields returns the first field that cannot be true.
func (d *Departure) checkFields() error {
	switch {
	case d == nil:
		return nil
	case len(d.Reason) > maxText:
		return NewFieldError("departure", "a reason of %d bytes", len(d.Reason))
	case d.Slots < 0 || d.Slots > maxInFlight || !isAmount(&d.UsedSeconds, maxSeconds*maxInFlight):
		return NewFieldError("departure", "%d slots, used for %g s", d.Slots, d.UsedSeconds)
	case len(d.Runs) > maxListed:
		return NewFieldError("departure", "%d runs", len(d.Runs))
	}

	for run, u := range d.Runs {
		if CheckRunID(run) != nil || min(u.Finished, u.HandedBack, u.ThrownAway) < 0 ||
			!isAmount(&u.ThrownAwaySeconds, maxSeconds*maxInFlight) {
			return NewFieldError("departure", "%d requests of run %q finished", u.Finished, Excerpt(run))
		}
	}

	return nil
}
