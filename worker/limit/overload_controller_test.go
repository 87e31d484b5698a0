package limit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// A limit on the rate is met at the rate, and left soon after it is lifted.
func TestRateLimit(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		engine sim.EngineConfig
		rate   float64
		burst  int
		share  float64 // of the rate that the answers must reach
		from   int     // second from which the rate has been found
	}{
		{"short answers", sim.EngineConfig{Slots: 64, TTFT: 40 * time.Millisecond, TPOT: 2 * time.Millisecond},
			20, 5, 0.95, 20},
		{"answers of a second", engineWith(64), 20, 5, 0.95, 20},
		{"answers of a second, no burst", engineWith(64), 20, 0, 0.85, 20},
		{"answers of five seconds", sim.EngineConfig{
			Slots: 256,
			TTFT:  500 * time.Millisecond,
			TPOT:  45 * time.Millisecond,
		}, 20, 5, 0.95, 60},
		{"five a second", engineWith(64), 5, 5, 0.95, 20},
		{"two hundred a second", engineWith(1024), 200, 50, 0.95, 20},
	} {
		for _, gauges := range []bool{true, false} {
			for _, start := range []int{8, 64} {
				t.Run(fmt.Sprintf("%s/gauges=%v/from %d", tt.name, gauges, start), func(t *testing.T) {
					t.Parallel()

					synctest.Test(t, func(t *testing.T) {
						const lifted = 180
						c := scenario{engine: tt.engine, least: 50, most: 150, gate: &sim.Gate{}}
						c.gate.Limit(tt.rate, tt.burst, 0)
						got := drive(t, c, New(Config{Start: start}), gauges, 240, func(i int, _ *sim.Engine) {
							if i == lifted {
								c.gate.Limit(0, 0, 0)
							}
						})

						limited := meanOf(got[tt.from:lifted])
						t.Logf("%.2f answers/s and %.2f refusals/s of %.0f; limit %.1f",
							limited.answers, limited.refused, tt.rate, limited.limit)
						if limited.answers < tt.share*tt.rate {
							t.Errorf("%.2f answers/s, want %.2f", limited.answers, tt.share*tt.rate)
						}

						if limited.refused > 0.3*tt.rate {
							t.Errorf("%.2f refusals/s, want %.2f at most", limited.refused, 0.3*tt.rate)
						}

						full := meanOf(got[lifted+40:])
						at := secondsUntil(got[lifted:], 0.9*full.tokens)
						t.Logf("then %.2f answers/s, 90%% after %d s", full.answers, at)
						if full.answers < 2*tt.rate || at > 20 {
							t.Errorf("then %.2f answers/s, 90%% after %d s", full.answers, at)
						}
					})
				})
			}
		}
	}
}

// A limit on requests in flight is met as one.
func TestInFlightLimit(t *testing.T) {
	t.Parallel()

	for _, n := range []int{1, 4, 16} {
		for _, gauges := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d/gauges=%v", n, gauges), func(t *testing.T) {
				t.Parallel()

				synctest.Test(t, func(t *testing.T) {
					c := scenario{engine: engineWith(64), least: 50, most: 150, gate: &sim.Gate{}}
					c.gate.Limit(0, 0, n)
					best := meanOf(drive(t, c, Fixed(n), false, 60, nil)[10:])
					all := drive(t, c, New(Config{}), gauges, 240, nil)
					got := meanOf(all[30:])
					t.Logf("%.3f of the best fixed limit at %.1f, %.2f refusals/s",
						got.tokens/best.tokens, got.limit, got.refused)
					if got.tokens < 0.95*best.tokens {
						t.Errorf("%.3f of the best fixed limit", got.tokens/best.tokens)
					}
				})
			})
		}
	}
}

// Replicas behind a load balancer get as much as they take, though each reports only its own
// gauges, before these are ignored and after.
func TestReplicas(t *testing.T) {
	t.Parallel()

	for _, slots := range []int{8, 64} {
		t.Run(fmt.Sprintf("%d slots each", slots), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := scenario{engine: engineWith(slots), least: 50, most: 150, replicas: 2}
				best := meanOf(drive(t, c, Fixed(2*slots+2), false, 60, nil)[10:]).tokens
				l := New(Config{})
				got := drive(t, c, l, true, 180, func(i int, _ *sim.Engine) {
					if i == 5 {
						l.IgnoreGauges()
					}
				})

				steady := meanOf(got[45:])
				t.Logf("%.3f of a fixed limit at %.1f, 90%% after %d s",
					steady.tokens/best, steady.limit, secondsUntil(got, 0.9*best))
				if steady.tokens < 0.95*best {
					t.Errorf("%.3f of a fixed limit", steady.tokens/best)
				}
			})
		})
	}
}

// Refusals that come at random, however slowly requests come, do not slow the requests.
func TestFutilePacing(t *testing.T) {
	t.Parallel()

	for _, gauges := range []bool{true, false} {
		t.Run(fmt.Sprintf("gauges=%v", gauges), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				c := scenario{engine: engineWith(64), least: 50, most: 150, unlucky: 0.4}
				best := meanOf(drive(t, c, Fixed(66), false, 60, nil)[10:]).tokens
				steady := meanOf(drive(t, c, New(Config{}), gauges, 240, nil)[60:])
				t.Logf("%.3f of a fixed limit at %.1f", steady.tokens/best, steady.limit)
				if steady.tokens < 0.9*best {
					t.Errorf("%.3f of a fixed limit", steady.tokens/best)
				}
			})
		})
	}
}
