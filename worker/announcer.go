package worker

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// withdrawTimeout bounds the last report. It may be short: the announcement expires by itself.
const withdrawTimeout = 2 * time.Second

// announcer keeps the presence of the worker on the bus.
type announcer struct {
	log   zerolog.Logger
	stats *Stats

	// drained is signaled after the last request that the worker held has ended.
	drained signal

	// plan says when the worker is asked to leave, and until when the last report may be sent.
	plan *departurePlan

	// load has the readings of the load.
	load *loadSampler

	// describe returns the worker's description and state.
	describe func() proto.WorkerInfo
}

// run announces the worker until its work ends, and then withdraws the announcement with the last
// report. It does so every few seconds, and soon after the last request that the worker holds is
// done, since a collector may wait for the report of the run's cost. Between the ends of intake and
// of work, the worker is announced as one that stops.
func (a *announcer) run(intake, ctx context.Context, heartbeats *bus.Heartbeats) {
	tick := time.NewTicker(proto.PresenceTTL / 5)
	defer tick.Stop()

	since := time.Now().UTC()
	rate := answerRate{at: time.Now(), done: a.stats.Done.Load()}
	stopping := intake.Done()
	for {
		announced, asked := time.Now(), a.plan.changes.changed()
		info := a.report(announced)
		info.Since, info.PerSecond = since, rate.perSecond
		if intake.Err() != nil {
			info.Ready, info.Problem = false, "stopping"
		}

		err := callWithTimeout(ctx, func(ctx context.Context) error { return heartbeats.Send(ctx, info) })
		switch {
		case err == nil:
			a.load.noteStored(announced)
		case ctx.Err() == nil:
			a.log.Debug().Err(err).Msg("failed to announce the worker; retrying")
		}

		select {
		case <-stopping:
			stopping = nil
		case <-asked: // the machine may be gone before the next tick
		case <-a.drained:
			// This may come after each request of a slow run, so once a second is enough.
			bus.Sleep(ctx, time.Second-time.Since(announced))
		case now := <-tick.C:
			rate.update(a.stats.Done.Load(), now)
		case <-ctx.Done():
			last := a.report(time.Now())
			last.Since = since
			if last.Departure != nil {
				last.Departure.LeftAt = time.Now().UTC()
			}

			a.withdraw(ctx, heartbeats, last)

			return
		}
	}
}

// report returns the announcement of a time.
func (a *announcer) report(now time.Time) proto.WorkerInfo {
	samples := a.load.latest(now) // first: the description may be newer, never older
	info := a.describe()
	info.SentAt, info.Samples = now.UTC(), samples

	return info
}

// withdraw withdraws the announcement. It does not try for long.
func (a *announcer) withdraw(ctx context.Context, heartbeats *bus.Heartbeats, last proto.WorkerInfo) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), a.plan.reportBy(time.Now()))
	defer cancel()

	if err := heartbeats.Withdraw(ctx, last); err != nil {
		a.log.Debug().Err(err).Msg("failed to withdraw the announcement of the worker; it will expire")
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
