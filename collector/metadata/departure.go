package metadata

import "time"

// Departure is a worker that left before the end of the run: it was asked to leave, or it vanished.
type Departure struct {
	Worker string `json:"worker"`       // its name
	ID     string `json:"id,omitempty"` // of its process; empty: unknown
	// Reason is why it was asked to leave; empty: it vanished without notice.
	Reason string `json:"reason,omitempty"`
	// NoticedAt and Deadline are null for a worker that vanished without notice.
	NoticedAt *time.Time `json:"noticed_at,omitempty"`
	Deadline  *time.Time `json:"deadline,omitempty"`
	// LeftAt is the time at which it had stored or given back all that it had; null: it vanished before,
	// or the run ended first.
	LeftAt *time.Time `json:"left_at,omitempty"`
	// VanishedAt is the time of the last announcement of a worker that vanished; null: it did not.
	VanishedAt *time.Time `json:"vanished_at,omitempty"`

	// Finished counts the requests of the run that got their result since the notice, and HandedBack
	// those that went back to the bus, and were not at the model server then.
	Finished   int64 `json:"finished,omitempty"`
	HandedBack int64 `json:"handed_back,omitempty"`
	// ThrownAway counts those that were cancelled at the model server. ThrownAwaySeconds is the time that
	// they had been there.
	ThrownAway        int64   `json:"thrown_away,omitempty"`
	ThrownAwaySeconds float64 `json:"thrown_away_seconds,omitempty"`
	// LostInFlight counts the requests of the run that a worker that vanished had at its model server, at
	// its last announcement.
	LostInFlight int64 `json:"lost_in_flight,omitempty"`
	// TimeUsed is the part, 0 to 1, of the time of its slots from the notice to the deadline that attempts
	// took which gave a result, of all runs; null: there was no notice.
	TimeUsed *float64 `json:"time_used,omitempty"`
}
