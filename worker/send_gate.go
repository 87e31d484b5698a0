package worker

import (
	"context"
	"time"
)

// sendGate holds requests back while the model server is down, while the meaning of its
// refusals is undecided, and while a proxy in front of it cuts answers off.
type sendGate struct {
	state      *serverState
	refusals   *refusals
	admissions *admissions
	cutoffs    *cutoffs
	changes    *broadcast // of whether it is open
}

// await waits until the gate is open and there is room for another request. It returns false if
// ctx ends, or if the server has been down long enough that waiting tasks go to other workers.
func (g *sendGate) await(ctx context.Context) bool {
	for ctx.Err() == nil {
		changed := g.changes.changed()
		if g.state.hasExpired(time.Now()) {
			return false
		}

		if g.isOpen() && !g.cutoffs.isFull() {
			return true
		}

		g.awaitChange(ctx, changed)
	}

	return false
}

// awaitChange waits for a change, or until a server that is down has been so for too long.
func (g *sendGate) awaitChange(ctx context.Context, changed <-chan struct{}) {
	var expired <-chan time.Time
	if d, ok := g.state.expiresIn(time.Now()); ok {
		timer := time.NewTimer(d)
		defer timer.Stop()
		expired = timer.C
	}

	select {
	case <-changed:
	case <-expired:
	case <-ctx.Done():
	}
}

// isOpen reports whether requests may be sent, if there is room for them.
func (g *sendGate) isOpen() bool {
	undecided := g.refusals.enough.Load() && g.admissions.isEmpty()
	return !g.state.isDown() && !undecided && !g.cutoffs.blocked.Load()
}
