package limit

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/promptmill/promptmill/worker/sim"
)

// Ten seconds after any trouble of a server, it has all requests that it can take.
func TestTrouble(t *testing.T) {
	t.Parallel()

	const begin, end = 60, 80
	for _, tt := range []struct {
		name   string
		change func(e *sim.Engine, g *sim.Gate, trouble bool)
		faster float64 // than before, afterwards
	}{
		{"slow for a while", func(e *sim.Engine, _ *sim.Gate, trouble bool) {
			e.Set(func(c *sim.EngineConfig) {
				c.TPOT = tpot
				if trouble {
					c.TPOT = 8 * tpot
				}
			})
		}, 1},
		{"refuses all while it loads", func(_ *sim.Engine, g *sim.Gate, trouble bool) {
			g.Limit(0, 0, 0)
			if trouble {
				g.Limit(1, -1, 0) // not even one at a time
			}
		}, 1},
		{"has an eighth of its slots", func(e *sim.Engine, _ *sim.Gate, trouble bool) {
			e.Set(func(c *sim.EngineConfig) {
				c.Slots = 64
				if trouble {
					c.Slots = 8
				}
			})
		}, 1},
		{"becomes three times as fast", func(e *sim.Engine, _ *sim.Gate, trouble bool) {
			if trouble {
				e.Set(func(c *sim.EngineConfig) { c.TTFT, c.TPOT = ttft/3, tpot/3 })
			}
		}, 3},
		{"gets three times the slots", func(e *sim.Engine, _ *sim.Gate, trouble bool) {
			if trouble {
				e.Set(func(c *sim.EngineConfig) { c.Slots = 3 * 64 })
			}
		}, 3},
	} {
		for _, gauges := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/gauges=%v", tt.name, gauges), func(t *testing.T) {
				t.Parallel()

				synctest.Test(t, func(t *testing.T) {
					c := scenario{engine: engineWith(64), least: 50, most: 150, gate: &sim.Gate{}}
					got := drive(t, c, New(Config{}), gauges, 130, func(i int, e *sim.Engine) {
						switch i {
						case begin:
							tt.change(e, c.gate, true)
						case end:
							tt.change(e, c.gate, false)
						}
					})

					before, after := meanOf(got[begin-20:begin]).tokens, meanOf(got[end+10:end+30])
					t.Logf("%.3f of before; limit %.1f", after.tokens/before, after.limit)
					if after.tokens < 0.9*tt.faster*before {
						t.Errorf("%.3f of before, want %.1f", after.tokens/before, tt.faster)
					}
				})
			})
		}
	}
}

// A server that loads another model every few seconds, and does nothing meanwhile, gets as much
// as it takes in between.
func TestModelSwaps(t *testing.T) {
	t.Parallel()

	for _, gauges := range []bool{true, false} {
		t.Run(fmt.Sprintf("gauges=%v", gauges), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := scenario{engine: engineWith(64), least: 50, most: 150}
				swap := func(i int, e *sim.Engine) {
					e.Set(func(c *sim.EngineConfig) {
						c.TTFT, c.TPOT = ttft, tpot
						if i%15 < 3 {
							c.TTFT, c.TPOT = 1000*ttft, 1000*tpot
						}
					})
				}

				best := meanOf(drive(t, c, Fixed(67), false, 150, swap)[60:]).tokens
				got := meanOf(drive(t, c, New(Config{}), gauges, 300, swap)[60:])
				t.Logf("%.3f of the best fixed limit at %.1f", got.tokens/best, got.limit)
				if got.tokens < 0.95*best {
					t.Errorf("%.3f of the best fixed limit", got.tokens/best)
				}
			})
		})
	}
}
