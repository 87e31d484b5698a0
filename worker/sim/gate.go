package sim

import (
	"sync"
	"time"
)

// Gate refuses requests as a proxy in front of a server does: requests beyond a number per second
// (nginx's limit_req with nodelay, a token bucket), and requests beyond a number at once
// (limit_conn). The zero Gate lets all in.
type Gate struct {
	mu     sync.Mutex
	rate   float64 // requests a second; 0: any number
	burst  int
	atOnce int // 0: any number

	spent  float64   // of the burst
	at     time.Time // until then
	inside int
}

// Limit sets the limits of the gate: a rate with a burst, and a number of requests at once. 0 is
// no limit.
func (g *Gate) Limit(rate float64, burst, atOnce int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rate, g.burst, g.atOnce = rate, burst, atOnce
}

// Enter reports whether a request is let in. Then it must call Leave.
func (g *Gate) Enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	if g.atOnce > 0 && g.inside >= g.atOnce {
		return false
	}

	if g.rate > 0 {
		now := time.Now()
		g.spent = max(0, g.spent-g.rate*now.Sub(g.at).Seconds())
		g.at = now
		if g.spent > float64(g.burst) {
			return false
		}

		g.spent++
	}

	g.inside++

	return true
}

// Leave ends a request that was let in.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
}
