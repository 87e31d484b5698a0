package journal

import (
	"slices"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// addDepartures adds the departures of a run's metadata to its sessions, the oldest first. The metadata do not name
// the session: it is the latest one of the process that has none. A worker that is not in the metadata, since no
// request ended at it, gets a session.
func addDepartures(sessions []WorkerSession, meta *metadata.Run) []WorkerSession {
	for _, d := range slices.Backward(meta.Results.Departures) {
		at := len(sessions) - 1
		for at >= 0 && (sessions[at].Name != d.Worker || sessions[at].ID != d.ID ||
			sessions[at].Departure != nil || sessions[at].Vanished != nil) {
			at--
		}

		if at < 0 {
			s := WorkerSession{ID: d.ID, Name: d.Worker}
			if s.Since = metadata.OrZero(d.NoticedAt); s.Since.IsZero() {
				s.Since = metadata.OrZero(d.VanishedAt)
			}
			sessions, at = append(sessions, s), len(sessions)
		}

		sessions[at].Departure = departureFrom(d, meta.TestID)
		if d.VanishedAt != nil {
			sessions[at].Vanished = &Vanished{At: *d.VanishedAt, InFlight: d.LostInFlight}
		}
	}

	return sessions
}

// departureFrom returns the announcement from which the metadata of a departure were made; nil: there was no notice.
// The metadata have the part of the time that was used, but neither the slots nor the seconds: it has one slot.
func departureFrom(d metadata.Departure, run string) *proto.Departure {
	if d.NoticedAt == nil || d.Deadline == nil {
		return nil
	}

	return &proto.Departure{
		Reason:      d.Reason,
		NoticedAt:   *d.NoticedAt,
		Deadline:    *d.Deadline,
		LeftAt:      metadata.OrZero(d.LeftAt),
		Slots:       1,
		UsedSeconds: metadata.OrZero(d.TimeUsed) * d.Deadline.Sub(*d.NoticedAt).Seconds(),
		Runs: map[string]proto.DepartureUsage{run: {
			Finished:          d.Finished,
			HandedBack:        d.HandedBack,
			ThrownAway:        d.ThrownAway,
			ThrownAwaySeconds: d.ThrownAwaySeconds,
		}},
	}
}
