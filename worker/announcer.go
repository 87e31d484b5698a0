package worker

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// announcer keeps the presence of the worker on the bus.
type announcer struct {
	workerID string
	log      zerolog.Logger
	stats    *Stats

	// drained is signaled after the last request that the worker held has ended.
	drained signal

	// describe returns the worker's description and state.
	describe func() proto.WorkerInfo
}

// run announces the worker until ctx ends, and then removes the announcement. It does so every
// few seconds, and soon after the last request that the worker holds is done, since a collector
// may wait for the report of the run's cost.
func (a *announcer) run(ctx context.Context, heartbeats *bus.Heartbeats) {
	tick := time.NewTicker(proto.PresenceTTL / 5)
	defer tick.Stop()

	since := time.Now().UTC()
	rate := answerRate{at: time.Now(), done: a.stats.Done.Load()}
	for {
		info := a.describe()
		info.Since, info.PerSecond = since, rate.perSecond

		err := callWithTimeout(ctx, func(ctx context.Context) error { return heartbeats.Send(ctx, info) })
		if err != nil && ctx.Err() == nil {
			a.log.Debug().Err(err).Msg("failed to announce the worker; retrying")
		}

		announced := time.Now()
		select {
		case <-a.drained:
			// This may come after each request of a slow run, so once a second is enough.
			bus.Sleep(ctx, time.Second-time.Since(announced))
		case now := <-tick.C:
			rate.update(a.stats.Done.Load(), now)
		case <-ctx.Done():
			a.removeAnnouncement(ctx, heartbeats)
			return
		}
	}
}

// removeAnnouncement removes the announcement. It does not try for long: the announcement
// expires by itself.
func (a *announcer) removeAnnouncement(ctx context.Context, heartbeats *bus.Heartbeats) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()

	if err := heartbeats.Remove(ctx, a.workerID); err != nil {
		a.log.Debug().Err(err).Msg("failed to remove the announcement of the worker; it will expire")
	}
}

// answerRate is the number of requests that end in a second, smoothed over the latest
// announcements.
type answerRate struct {
	perSecond float64

	// at is the time of the latest update, with done requests.
	at   time.Time
	done int64
}

// update takes in the number of requests that have ended.
func (r *answerRate) update(done int64, now time.Time) {
	latest := float64(done-r.done) / now.Sub(r.at).Seconds()
	if r.perSecond == 0 || latest == 0 {
		r.perSecond = latest
	}

	r.perSecond += (latest - r.perSecond) / 3
	r.at, r.done = now, done
}
