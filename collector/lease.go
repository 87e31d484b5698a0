package collector

import (
	"context"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// renewInterval is the interval at which the lease is renewed and the workers' announcements
// are read.
const renewInterval = proto.PresenceTTL / 5

// lease is the collector's claim of a run on the bus: no other process collects the run
// meanwhile. It ends by itself when it is not renewed.
type lease struct {
	leases  *bus.Leases
	run     string
	holder  proto.CollectorInfo
	renewed time.Time
}

func newLease(leases *bus.Leases, run string, holder proto.CollectorInfo) *lease {
	return &lease{leases: leases, run: run, holder: holder}
}

// acquire takes the lease. It returns an error that wraps proto.ErrLeaseHeld if another process
// has it. The lease is renewed with the progress soon.
func (l *lease) acquire(ctx context.Context) error {
	return l.leases.Acquire(ctx, l.run, l.holder)
}

// renewIfDue renews the lease if it is time, with the progress of the collector.
func (l *lease) renewIfDue(ctx context.Context, progress func() *proto.CollectorProgress) error {
	if time.Since(l.renewed) < renewInterval {
		return nil
	}

	l.renewed = time.Now()

	return l.leases.Renew(ctx, l.run, proto.CollectorLease{CollectorInfo: l.holder, Progress: progress()})
}

// release lets another process collect the run. It does not take long: the lease ends by
// itself.
func (l *lease) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()

	holder, held, err := l.leases.Holder(ctx, l.run)
	if err != nil || !held || holder != l.holder {
		return err
	}

	return l.leases.Release(ctx, l.run)
}
