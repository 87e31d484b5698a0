package limit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

func allScenarios() []scenario {
	var list []scenario
	for _, k := range []int{1, 8, 64, 256, 1024} {
		list = append(list, scenario{
			name:   fmt.Sprint(k, " slots"),
			engine: engineWith(k),
			least:  50,
			most:   150,
			best:   []int{k, k + k/16 + 1},
			slots:  k,
		})
	}

	for _, k := range []int{1, 4, 64} {
		jam := engineWith(k)
		jam.Jam = 0.25
		for _, reported := range []bool{false, true} {
			list = append(list, scenario{
				name:          fmt.Sprintf("%d slots, a request that waits costs a quarter, reported=%v", k, reported),
				engine:        jam,
				least:         50,
				most:          150,
				best:          []int{k},
				slots:         k,
				slotsReported: reported,
			})
		}
	}

	knee, thrash, kv := engineWith(512), engineWith(512), engineWith(1024)
	knee.Knee, thrash.Knee, thrash.Thrash, kv.KV = 64, 64, 0.2, 50_000

	return append(list,
		scenario{name: "knee at 64 of 512 slots", engine: knee, least: 50, most: 150, best: []int{64, 72}},
		scenario{name: "worse beyond 64", engine: thrash, least: 50, most: 150, best: []int{64, 70}},
		scenario{
			name:   "256 slots, answers of five seconds",
			engine: sim.EngineConfig{Slots: 256, TTFT: time.Second, TPOT: 40 * time.Millisecond},
			least:  50,
			most:   150,
			best:   []int{256, 272},
			slots:  256,
		},
		scenario{name: "linear", engine: engineWith(100_000), least: 50, most: 150, best: []int{DefaultMax}},
		scenario{
			name:   "noisy, 64 slots",
			engine: engineWith(64),
			least:  20,
			most:   180,
			noise:  true,
			best:   []int{64, 70},
			slots:  64,
		},
		scenario{
			name:   "bound by memory, with preemption",
			engine: kv,
			least:  200,
			most:   800,
			best:   []int{130, 140, 160},
		},
	)
}

// The limit becomes as good as the best fixed one within seconds, and does not fill the
// server's queue.
func TestCurves(t *testing.T) {
	t.Parallel()

	for _, c := range allScenarios() {
		for _, gauges := range []bool{true, false} {
			if c.engine.Jam > 0 && !gauges && !c.slotsReported {
				continue // nothing shows how many run
			}

			t.Run(fmt.Sprintf("%s/gauges=%v", c.name, gauges), func(t *testing.T) {
				t.Parallel()

				synctest.Test(t, func(t *testing.T) {
					best := 0.0
					for _, n := range c.best {
						best = max(best, meanOf(drive(t, c, Fixed(n), false, 60, nil)[10:]).tokens)
					}

					seconds := 210
					if !gauges { // it tries limits beside the best one from time to time
						seconds = 390
					}

					l := New(Config{})
					if c.slotsReported {
						l.SetSlots(c.slots)
					}

					got := drive(t, c, l, gauges, seconds, nil)
					steady := meanOf(got[90:])

					within := 60
					switch {
					case gauges && c.engine.Jam == 0:
						within = 10
					case gauges, c.slots == 1024:
						within = 30
					}

					at := secondsUntil(got, 0.9*best)
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

// A run of a few seconds also gets most of its server's capacity.
func TestFirstSeconds(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		c := scenario{
			engine: sim.EngineConfig{Slots: 64, TTFT: 80 * time.Millisecond, TPOT: 4 * time.Millisecond},
			least:  28,
			most:   52,
		}

		best := meanOf(drive(t, c, Fixed(67), false, 20, nil)[10:]).answers
		got := meanOf(drive(t, c, New(Config{}), true, 2, nil)).answers
		t.Logf("%.0f answers/s of %.0f in the first two seconds", got, best)
		if got < 0.6*best {
			t.Errorf("%.0f answers/s of %.0f in the first two seconds", got, best)
		}
	})
}

// A server with a bounded queue gets hardly more requests than fit into it.
func TestOverload(t *testing.T) {
	t.Parallel()

	for _, gauges := range []bool{true, false} {
		t.Run(fmt.Sprintf("gauges=%v", gauges), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := scenario{engine: engineWith(64), least: 50, most: 150}
				c.engine.Queue = 8
				best := meanOf(drive(t, c, Fixed(64), false, 60, nil)[10:]).tokens
				steady := meanOf(drive(t, c, New(Config{}), gauges, 180, nil)[60:])
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
				c := scenario{engine: engineWith(64), least: 50, most: 150}
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

					m := meanOf(got[end-60 : end])
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
		c := scenario{engine: engineWith(64), least: 50, most: 150, others: 40}
		steady := meanOf(drive(t, c, New(Config{}), true, 120, nil)[60:])
		t.Logf("limit %.1f, %.1f waiting", steady.limit, steady.waiting)
		if steady.limit < 20 || steady.limit > 32 || steady.waiting > 8 {
			t.Errorf("limit %.1f, %.1f waiting; 24 slots are free of the other client's requests",
				steady.limit, steady.waiting)
		}
	})
}

// A process that was stopped at any moment of the search still finds the limit.
func TestStopped(t *testing.T) {
	t.Parallel()

	engine := sim.EngineConfig{Slots: 64, TTFT: 300 * time.Millisecond, TPOT: 5 * time.Millisecond}
	for _, gauges := range []bool{true, false} {
		// ms; without calls of Beat, half of them leave a limit of 4 to 16
		for _, stop := range []int{500, 1800, 2100, 2500, 3600, 4100, 5200, 14_000} {
			for _, stopped := range []time.Duration{1100 * time.Millisecond, 12 * time.Second, 10 * time.Minute} {
				t.Run(fmt.Sprintf("gauges=%v/after %d ms for %v", gauges, stop, stopped), func(t *testing.T) {
					t.Parallel()

					synctest.Test(t, func(t *testing.T) {
						c := scenario{
							engine:  engine,
							least:   50,
							most:    150,
							stop:    time.Duration(stop) * time.Millisecond,
							stopped: stopped,
						}
						if m := meanOf(drive(t, c, New(Config{}), gauges, 60, nil)[45:]); m.limit < 58 {
							t.Errorf("a limit of %.1f after it, of 64", m.limit)
						}
					})
				})
			}
		}
	}
}
