package limit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// curve is a server, and what is asked of it.
type curve struct {
	name        string
	engine      sim.EngineConfig
	least, most int       // tokens of an answer
	noise       bool      // the answers do not tell how long they are
	best        []int     // fixed limits, of which the best is compared with
	slots       int       // that run at once; 0: nobody knows
	told        bool      // the server says how many
	others      int       // requests that another client has there all the time
	gate        *sim.Gate // in front of it; nil: none
	unlucky     float64   // part of the requests that it refuses at random
	replicas    int       // that take turns, also in telling their gauges; 0: one

	// The process is stopped from stop on, for a while; 0: it is not.
	stop, stopped time.Duration
}

// second is what happened in one second of a drive.
type second struct{ tokens, waiting, limit, inFlight, answers, refused float64 }

const (
	ttft = 100 * time.Millisecond
	tpot = 10 * time.Millisecond
)

// turns is how many nanoseconds requests are set apart by: more than there are requests at
// once, and so few that no time is lost.
const turns = 9973

// server is a simulated GPU with knobs, of a request that takes 1.1 s.
func server(slots int) sim.EngineConfig {
	return sim.EngineConfig{Slots: slots, TTFT: ttft, TPOT: tpot}
}

// drive runs requests through a limiter for some seconds. change, if not nil, is called
// before each. No two requests begin or end in the same nanosecond: who is first would be
// the choice of Go's scheduler, which decides otherwise on a machine that is busy, and the
// figures with it.
func drive(
	t *testing.T, c curve, l *Limiter, gauges bool, seconds int, change func(second int, e *sim.Engine),
) []second {
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
		time.Sleep(time.Nanosecond) // after whoever looks in the same millisecond
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
		for turn := time.Duration(1); ; turn = turn%turns + 1 {
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

	told := 0
	observe := func() {
		told++
		load, kv := engines[told%len(engines)].Load(), -1.0
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

	var out []second
	last := int64(0)
	for i := range seconds {
		if change != nil {
			change(i, e)
		}

		now := second{}
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

// mean is the mean of some seconds.
func mean(list []second) (m second) {
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

// reaches is the second from which on five seconds have most of the rate.
func reaches(list []second, rate float64) int {
	for i := range len(list) - 5 {
		if mean(list[i:i+5]).tokens >= rate {
			return i
		}
	}
	return len(list)
}

func curves() []curve {
	var list []curve
	for _, k := range []int{1, 8, 64, 256, 1024} {
		list = append(list, curve{
			name:   fmt.Sprint(k, " slots"),
			engine: server(k),
			least:  50,
			most:   150,
			best:   []int{k, k + k/16 + 1},
			slots:  k,
		})
	}

	for _, k := range []int{1, 4, 64} {
		jam := server(k)
		jam.Jam = 0.25
		for _, told := range []bool{false, true} {
			list = append(list, curve{
				name:   fmt.Sprintf("%d slots, a request that waits costs a quarter, told=%v", k, told),
				engine: jam,
				least:  50,
				most:   150,
				best:   []int{k},
				slots:  k,
				told:   told,
			})
		}
	}

	knee, thrash, kv := server(512), server(512), server(1024)
	knee.Knee, thrash.Knee, thrash.Thrash, kv.KV = 64, 64, 0.2, 50_000

	return append(list,
		curve{name: "knee at 64 of 512 slots", engine: knee, least: 50, most: 150, best: []int{64, 72}},
		curve{name: "worse beyond 64", engine: thrash, least: 50, most: 150, best: []int{64, 70}},
		curve{
			name:   "256 slots, answers of five seconds",
			engine: sim.EngineConfig{Slots: 256, TTFT: time.Second, TPOT: 40 * time.Millisecond},
			least:  50,
			most:   150,
			best:   []int{256, 272},
			slots:  256,
		},
		curve{name: "linear", engine: server(100_000), least: 50, most: 150, best: []int{DefaultMax}},
		curve{
			name:   "noisy, 64 slots",
			engine: server(64),
			least:  20,
			most:   180,
			noise:  true,
			best:   []int{64, 70},
			slots:  64,
		},
		curve{name: "bound by memory, with preemption", engine: kv, least: 200, most: 800, best: []int{130, 140, 160}},
	)
}

// The limit found is as good as the best fixed one, soon, and does not fill the
// server's queue.
func TestCurves(t *testing.T) {
	t.Parallel()

	for _, c := range curves() {
		for _, gauges := range []bool{true, false} {
			if c.engine.Jam > 0 && !gauges && !c.told {
				continue // nothing says how many run
			}

			t.Run(fmt.Sprintf("%s/gauges=%v", c.name, gauges), func(t *testing.T) {
				t.Parallel()

				synctest.Test(t, func(t *testing.T) {
					best := 0.0
					for _, n := range c.best {
						best = max(best, mean(drive(t, c, Fixed(n), false, 60, nil)[10:]).tokens)
					}

					seconds := 210
					if !gauges { // it tries limits beside the best one from time to time
						seconds = 390
					}

					l := New(Config{})
					if c.told {
						l.SetSlots(c.slots)
					}

					got := drive(t, c, l, gauges, seconds, nil)
					steady := mean(got[90:])

					within := 60
					switch {
					case gauges && c.engine.Jam == 0:
						within = 10
					case gauges, c.slots == 1024:
						within = 30
					}

					at := reaches(got, 0.9*best)
					t.Logf("%.3f of the best fixed limit, 90%% after %d s; limit %.1f, %.1f waiting",
						steady.tokens/best, at, steady.limit, steady.waiting)

					if steady.tokens < 0.97*best {
						t.Errorf("%.3f of the best fixed limit", steady.tokens/best)
					}

					if at > within {
						t.Errorf("90%% after %d s, want %d", at, within)
					}

					if most := max(2, 0.1*float64(c.slots)); gauges && c.slots > 0 && steady.waiting > most {
						t.Errorf("%.1f requests wait in the server, want %.1f at most", steady.waiting, most)
					}
				})
			})
		}
	}
}

// A run of a few seconds gets most of what its server can do, too.
func TestFirstSeconds(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := curve{
			engine: sim.EngineConfig{Slots: 64, TTFT: 80 * time.Millisecond, TPOT: 4 * time.Millisecond},
			least:  28,
			most:   52,
		}

		best := mean(drive(t, c, Fixed(67), false, 20, nil)[10:]).answers
		got := mean(drive(t, c, New(Config{}), true, 2, nil)).answers
		t.Logf("%.0f answers/s of %.0f in the first two seconds", got, best)
		if got < 0.6*best {
			t.Errorf("%.0f answers/s of %.0f in the first two seconds", got, best)
		}
	})
}

// A server that refuses what it cannot queue is not asked for much more.
func TestOverload(t *testing.T) {
	t.Parallel()

	for _, gauges := range []bool{true, false} {
		t.Run(fmt.Sprintf("gauges=%v", gauges), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := curve{engine: server(64), least: 50, most: 150}
				c.engine.Queue = 8
				best := mean(drive(t, c, Fixed(64), false, 60, nil)[10:]).tokens
				steady := mean(drive(t, c, New(Config{}), gauges, 180, nil)[60:])
				t.Logf("%.3f of the best fixed limit at %.1f", steady.tokens/best, steady.limit)
				if steady.tokens < 0.95*best || steady.limit > 80 {
					t.Errorf("%.3f of the best fixed limit at %.1f", steady.tokens/best, steady.limit)
				}
			})
		})
	}
}

// A few refusals at random, as proxies give them, do not lower the limit.
func TestRandomRefusals(t *testing.T) {
	t.Parallel()

	l := New(Config{Start: 64})
	for i := range 10_000 {
		s, _, ok := l.tryAcquire()
		if !ok {
			t.Fatal("no slot")
		}
		l.Release(s, Outcome{Overload: i%20 == 0})
	}

	if got := l.Limit(); got != 64 {
		t.Errorf("limit %d after 5%% of refusals", got)
	}
}

// The limit follows a server whose slots and speed change.
func TestDrift(t *testing.T) {
	t.Parallel()

	for _, gauges := range []bool{true, false} {
		t.Run(fmt.Sprintf("gauges=%v", gauges), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := curve{engine: server(64), least: 50, most: 150}
				got := drive(t, c, New(Config{}), gauges, 660, func(i int, e *sim.Engine) {
					e.Set(func(cfg *sim.EngineConfig) {
						switch i {
						case 120:
							cfg.Slots = 256
						case 240:
							cfg.TPOT = 3 * tpot
						case 360:
							cfg.Slots, cfg.TPOT = 32, tpot
						}
					})
				})
				for i, want := range []struct{ rate, slots float64 }{
					{5500, 64},
					{22_000, 256},
					{8000, 256},
					{2750, 32},
				} {
					end := 120 * (i + 1)
					if i == 3 {
						end = len(got) // its queue of eight seconds makes each step slow
					}

					m := mean(got[end-60 : end])
					t.Logf("part %d: %.0f tokens/s at a limit of %.1f", i, m.tokens, m.limit)
					if m.tokens < 0.95*want.rate {
						t.Errorf("part %d: %.0f tokens/s, want %.0f", i, m.tokens, want.rate)
					}

					if most := 1.5 * want.slots; m.limit > most {
						t.Errorf("part %d: limit %.1f, want %.1f at most", i, m.limit, most)
					}
				}
			})
		})
	}
}

// With another client at the server, our part of its queue stays short.
func TestSecondClient(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := curve{engine: server(64), least: 50, most: 150, others: 40}
		steady := mean(drive(t, c, New(Config{}), true, 120, nil)[60:])
		t.Logf("limit %.1f, %.1f waiting", steady.limit, steady.waiting)
		if steady.limit < 20 || steady.limit > 32 || steady.waiting > 8 {
			t.Errorf("limit %.1f, %.1f waiting; 24 slots are free of the other client's requests",
				steady.limit, steady.waiting)
		}
	})
}

// A process that was stopped, at any moment of the search, finds what the server can do all
// the same.
func TestStopped(t *testing.T) {
	t.Parallel()

	engine := sim.EngineConfig{Slots: 64, TTFT: 300 * time.Millisecond, TPOT: 5 * time.Millisecond}
	for _, gauges := range []bool{true, false} {
		// ms; half of them leave a limit of 4 to 16 if nobody beats
		for _, stop := range []int{500, 1800, 2100, 2500, 3600, 4100, 5200, 14_000} {
			for _, stopped := range []time.Duration{1100 * time.Millisecond, 12 * time.Second, 10 * time.Minute} {
				t.Run(fmt.Sprintf("gauges=%v/after %d ms for %v", gauges, stop, stopped), func(t *testing.T) {
					t.Parallel()

					synctest.Test(t, func(t *testing.T) {
						c := curve{
							engine:  engine,
							least:   50,
							most:    150,
							stop:    time.Duration(stop) * time.Millisecond,
							stopped: stopped,
						}
						if m := mean(drive(t, c, New(Config{}), gauges, 60, nil)[45:]); m.limit < 58 {
							t.Errorf("a limit of %.1f after it, of 64", m.limit)
						}
					})
				})
			}
		}
	}
}
