package webhook

import "sync/atomic"

// Stats counts the attempts of a sender.
type Stats struct {
	// Delivered and Failed count attempts: of events that an endpoint has taken, and others.
	Delivered, Failed atomic.Int64
	// GivenUp counts events that are not sent again by themselves.
	GivenUp atomic.Int64
	// Pending is the number of events that are to be sent.
	Pending atomic.Int64
}

// Stats returns the counts of the sender, which change.
func (s *Sender) Stats() *Stats { return &s.stats }

// count counts an attempt.
func (s *Stats) count(d Delivery) {
	if d.State == Delivered {
		s.Delivered.Add(1)
		return
	}

	s.Failed.Add(1)
	if d.State == GivenUp {
		s.GivenUp.Add(1)
	}
}
