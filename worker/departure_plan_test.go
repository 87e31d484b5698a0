package worker

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
)

// newPlan returns the plan of a worker with some slots and nothing in flight.
func newPlan(slots int) *departurePlan {
	return &departurePlan{
		latencies: &runLatencies{},
		limiter:   limit.Fixed(slots),
		ages:      func(requestKind, time.Time) []time.Duration { return nil },
	}
}

// departureCost has the parts, 0 to 1, of the time in slots that was used by requests that ended, and by
// those that were cancelled.
type departureCost struct{ used, thrownAway float64 }

// playDeparture runs requests in slots that have always been busy, and then leaves with a notice. It
// returns the cost of the departure. All of it is in the fake time of a bubble.
func playDeparture(t *testing.T, notice time.Duration, latency func() time.Duration) (cost departureCost) {
	const slots, warmUp = 64, 30 * time.Minute

	synctest.Test(t, func(*testing.T) {
		var mu sync.Mutex
		var used, thrownAway time.Duration

		p, kind, deadline := newPlan(slots), requestKind{"r", "m"}, time.Now().Add(warmUp+notice)

		var running sync.WaitGroup
		for i := range slots {
			running.Go(func() {
				time.Sleep(time.Duration(i) * 30 * time.Second / slots) // the slots are not in step
				for p.fits(kind, time.Now(), 0) {
					mu.Lock()
					took := latency()
					mu.Unlock()

					begin := time.Now()
					left := deadline.Sub(begin) - maxPublishTime
					time.Sleep(min(took, left))

					mu.Lock()
					after := min(time.Since(begin), time.Since(deadline.Add(-notice))) // the notice
					if took <= left {
						p.latencies.add(kind, took)
						used += max(0, after)
					} else {
						thrownAway += after
					}
					mu.Unlock()
				}
			})
		}

		time.Sleep(warmUp)
		p.set(Departure{Deadline: deadline}, time.Now())
		running.Wait()

		all := slots * notice.Seconds()
		cost = departureCost{used.Seconds() / all, thrownAway.Seconds() / all}
	})

	return cost
}

// With a notice of 120 s, requests of 30 s are never thrown away if they all take as long, and the time
// is used. The more their lengths differ, the less of the time can be used, and the more is thrown away.
func TestDepartureUsesTheTime(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name       string
		spread     float64 // sigma of a log-normal distribution with a mean of 30 s; 0: all are equal
		used       float64 // at least
		thrownAway float64 // at most
	}{
		{"equal", 0, 0.8, 0},
		{"alike", 0.1, 0.8, 0.01},
		{"varied", 0.3, 0.78, 0.03},
		{"heavy tail", 1, 0.6, 0.27},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		latency := func() time.Duration {
			if tt.spread == 0 {
				return 30 * time.Second
			}
			seconds := 30 * math.Exp(tt.spread*random.NormFloat64()-tt.spread*tt.spread/2)
			return time.Duration(seconds * float64(time.Second))
		}

		var cost departureCost
		const times = 5
		for range times {
			one := playDeparture(t, 120*time.Second, latency)
			cost.used += one.used / times
			cost.thrownAway += one.thrownAway / times
		}

		t.Logf("%s: %.3f used, %.3f thrown away", tt.name, cost.used, cost.thrownAway)
		if cost.used < tt.used || cost.thrownAway > tt.thrownAway {
			t.Errorf("%s: %.3f of the time used, %.3f thrown away; want at least %g and at most %g",
				tt.name, cost.used, cost.thrownAway, tt.used, tt.thrownAway)
		}
	}
}

// A later notice can only bring the deadline nearer.
func TestDepartureDeadline(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	p := newPlan(8)
	if left, leaving := p.timeLeft(now); leaving || p.describe() != nil || !p.fits(requestKind{}, now, time.Hour) {
		t.Errorf("a worker that stays has %s", left)
	}

	for _, step := range []struct {
		after    time.Duration // of the notice
		left     time.Duration // that it gives
		reason   string
		isNew    bool
		wantLeft time.Duration // until what is in flight is cancelled
		want     string
	}{
		{0, 2 * time.Minute, "the first", true, 118 * time.Second, "the first"},
		{time.Second, 2 * time.Minute, "later", false, 117 * time.Second, "the first"},
		{2 * time.Second, 10 * time.Second, "", true, 9500 * time.Millisecond, "the first"},
		{3 * time.Second, -time.Hour, "now", true, 0, "now"},
		{4 * time.Second, time.Hour, "no", false, -time.Second, "now"},
	} {
		at := now.Add(step.after)
		isNew := p.set(Departure{Deadline: at.Add(step.left), Reason: step.reason}, at)
		left, _ := p.timeLeft(at)
		if got := p.describe().Reason; isNew != step.isNew || left != step.wantLeft || got != step.want {
			t.Errorf("after %s: set %t, %s left, reason %q; want %t, %s, %q",
				step.after, isNew, left, got, step.isNew, step.wantLeft, step.want)
		}
	}

	if d := p.describe(); !d.NoticedAt.Equal(now) || d.Slots != 8 {
		t.Errorf("noticed at %s with %d slots", d.NoticedAt, d.Slots)
	}
}

// The steps of the end come one after the other, all before the deadline, also after it came nearer. At
// a worker that goes at once, what was in flight still has time to go back.
func TestDepartureEndsByTheDeadline(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		notices                []time.Duration // all at once; the last one counts
		cutoff, bus, reportEnd time.Duration
	}{
		{[]time.Duration{2 * time.Minute}, 118 * time.Second, 119 * time.Second, 119500 * time.Millisecond},
		{[]time.Duration{time.Hour, 8 * time.Second}, 7600 * time.Millisecond, 7800 * time.Millisecond,
			7900 * time.Millisecond},
		{[]time.Duration{time.Minute, 0}, 0, busGrace, busGrace + withdrawTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, begun := newPlan(8), time.Now()

			var waits sync.WaitGroup
			var cutoff, busEnd time.Duration
			waits.Go(func() { p.awaitCutoff(t.Context(), func() { cutoff = time.Since(begun) }) })
			waits.Go(func() { p.awaitBusEnd(t.Context(), func() { busEnd = time.Since(begun) }) })

			if got := p.reportBy(begun).Sub(begun); got != withdrawTimeout {
				t.Errorf("a worker that stays has %s for its last report", got)
			}

			for _, left := range tt.notices {
				synctest.Wait()
				p.set(Departure{Deadline: begun.Add(left)}, begun)
			}

			waits.Wait()

			reportEnd := p.reportBy(begun.Add(busEnd)).Sub(begun)
			if cutoff != tt.cutoff || busEnd != tt.bus || reportEnd != tt.reportEnd {
				t.Errorf("%v: requests end after %s, the bus after %s, the report after %s; want %s, %s, %s",
					tt.notices, cutoff, busEnd, reportEnd, tt.cutoff, tt.bus, tt.reportEnd)
			}
		})
	}
}

// Of the requests that wait, those stay that get a slot early enough. The rest, and no more, goes back.
func TestDepartureSelectsLate(t *testing.T) {
	t.Parallel()

	const slots = 4

	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		left             time.Duration // until what is in flight is cancelled
		waiting          int
		inFlight         int
		stays, fetchable int
	}{
		{9 * time.Second, 9, slots, 0, 0},
		{11 * time.Second, 9, 0, slots, 0},
		{31 * time.Second, 20, slots, 8, 0},  // two more rounds begin within 20.4 s
		{31 * time.Second, 20, 2, 10, 0},     // and two now
		{31 * time.Second, 3, slots, 3, 5},   // there is room for more
		{31 * time.Second, 0, 0, 0, 4 + 8},   // an idle worker
		{10 * time.Minute, 50, slots, 50, 0}, // all fit
	} {
		p, kind := newPlan(slots), requestKind{"r", "m"}
		for range 1000 {
			p.latencies.add(kind, 10*time.Second) // so a request needs 10.51 s
		}

		p.set(Departure{Deadline: now.Add(tt.left + maxPublishTime)}, now.Add(tt.left-time.Hour))

		late, stays := p.selectLate(now, tt.inFlight), 0
		for range tt.waiting {
			if !late(&task{shard: &shardJob{run: &activeRun{id: "r"}, model: "m"}}) {
				stays++
			}
		}

		if stays != tt.stays {
			t.Errorf("%d of %d stay with %s left and %d in flight, want %d",
				stays, tt.waiting, tt.left, tt.inFlight, tt.stays)
		}

		if tt.left > time.Minute {
			continue
		}

		if got := max(0, p.countFitting(kind, now, tt.waiting, tt.inFlight)); got != tt.fetchable {
			t.Errorf("%d more fit with %s left, %d waiting and %d in flight, want %d",
				got, tt.left, tt.waiting, tt.inFlight, tt.fetchable)
		}
	}
}
