package limit

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// scenario is a server, with the requests that are sent to it.
type scenario struct {
	name          string
	engine        sim.EngineConfig
	least, most   int       // tokens of an answer
	noise         bool      // the answers do not show how long they are
	best          []int     // fixed limits; the best one is the reference
	slots         int       // requests that run at once; 0: unknown
	slotsReported bool      // the server reports its slots
	others        int       // requests of another client, all the time
	gate          *sim.Gate // in front of the server; nil: none
	unlucky       float64   // part of the requests that the server refuses at random
	replicas      int       // servers that take turns, with requests and with gauges; 0: one

	// The process is stopped at stop for the time stopped; 0: it is not.
	stop, stopped time.Duration
}

// secondStats counts the events of one second of a drive.
type secondStats struct{ tokens, waiting, limit, inFlight, answers, refused float64 }

const (
	ttft = 100 * time.Millisecond
	tpot = 10 * time.Millisecond
)

// maxTurns is the number of nanoseconds over which requests are spread: more than there are
// requests in flight, and so few that no time is lost.
const maxTurns = 9973

// engineWith returns a simulated GPU on which a request takes 1.1 s.
func engineWith(slots int) sim.EngineConfig {
	return sim.EngineConfig{Slots: slots, TTFT: ttft, TPOT: tpot}
}

// drive runs requests through a limiter for some seconds. change, if not nil, is called before
// each. No two requests begin or end in the same nanosecond: their order would be the choice of
// Go's scheduler, which differs on a busy machine, and the figures with it.
func drive(
	t *testing.T, c scenario, l *Limiter, gauges bool, seconds int, change func(second int, e *sim.Engine),
) []secondStats {
	t.Helper()

	e, gate := sim.NewEngine(c.engine), cmp.Or(c.gate, &sim.Gate{})
	engines := []*sim.Engine{e}
	for len(engines) < c.replicas {
		engines = append(engines, sim.NewEngine(c.engine))
	}

	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var done, answers, refused atomic.Int64
	begin := time.Now()
	awake := func() { // waits while the process is stopped
		if passed := time.Since(begin); passed >= c.stop && passed < c.stop+c.stopped {
			time.Sleep(c.stop + c.stopped - passed)
		}
	}

	all.Go(func() {
		time.Sleep(time.Nanosecond) // after everything else in the same millisecond
		for ctx.Err() == nil {
			awake()
			l.Beat()
			time.Sleep(BeatEvery)
		}
	})

	random := rand.New(rand.NewPCG(1, 2))
	for range c.others {
		all.Go(func() {
			for ctx.Err() == nil {
				e.Run(ctx, 100, 100)
			}
		})
	}

	all.Go(func() {
		for turn := time.Duration(1); ; turn = turn%maxTurns + 1 {
			awake()

			s, err := l.Acquire(ctx)
			if err != nil {
				return
			}

			awake()
			n := c.least + random.IntN(c.most-c.least+1)
			unlucky := c.unlucky > 0 && random.Float64() < c.unlucky

			work := n
			if c.noise {
				work = (c.least + c.most) / 2
			}

			all.Go(func() {
				time.Sleep(turn)

				err := sim.ErrBusy
				if !unlucky && gate.Enter() {
					err = engines[int(turn)%len(engines)].Run(ctx, 100, n)
					gate.Leave()
				}

				time.Sleep(turn)
				awake()

				switch {
				case err == nil:
					done.Add(int64(n))
					answers.Add(1)
					l.Release(s, Outcome{Work: float64(work)})
				case errors.Is(err, sim.ErrBusy):
					refused.Add(1)
					time.Sleep(5 * time.Millisecond) // the way there and back
					l.Release(s, Outcome{Overload: true})
				default:
					l.Release(s, Outcome{})
				}
			})
		}
	})

	observed := 0
	observe := func() {
		observed++
		load, kv := engines[observed%len(engines)].Load(), -1.0
		if c.engine.KV > 0 {
			kv = load.KVUsage
		}

		l.Observe(Gauges{
			Running:     load.Running,
			Waiting:     load.Waiting,
			KVUsage:     kv,
			Preemptions: float64(load.Preemptions),
			Tokens:      float64(load.Tokens),
		})
	}

	all.Go(func() {
		for gauges && ctx.Err() == nil {
			time.Sleep(l.ObserveEvery())
			awake()
			observe()
		}
	})

	var out []secondStats
	last := int64(0)
	for i := range seconds {
		if change != nil {
			change(i, e)
		}

		now := secondStats{}
		for range 4 {
			time.Sleep(250 * time.Millisecond)
			awake()
			now.waiting += float64(e.Load().Waiting) / 4
			now.limit += float64(l.Limit()) / 4
			now.inFlight += float64(l.InFlight()) / 4
		}

		now.tokens, last = float64(done.Load()-last), done.Load()
		now.answers, now.refused = float64(answers.Swap(0)), float64(refused.Swap(0))
		out = append(out, now)
	}

	stop()
	all.Wait()

	return out
}

// meanOf returns the mean of some seconds.
func meanOf(list []secondStats) (m secondStats) {
	n := float64(len(list))
	for _, s := range list {
		m.tokens += s.tokens / n
		m.waiting += s.waiting / n
		m.limit += s.limit / n
		m.inFlight += s.inFlight / n
		m.answers += s.answers / n
		m.refused += s.refused / n
	}

	return m
}

// secondsUntil returns the first second after which five seconds reach the rate.
func secondsUntil(list []secondStats, rate float64) int {
	for i := range len(list) - 5 {
		if meanOf(list[i:i+5]).tokens >= rate {
			return i
		}
	}
	return len(list)
}
