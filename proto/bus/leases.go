package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// Leases keep each run to one collector. A lease stands in [proto.PresenceBucket], under the key
// collector.RUN, and ends by itself after [proto.PresenceTTL] unless it is acquired again.
type Leases struct {
	js jetstream.JetStream
}

// copyLag is the longest time that a copy of a bucket may be behind the others.
const copyLag = 5 * time.Second

// Acquire takes or renews the lease of a run. It returns an error that wraps
// [proto.ErrLeaseHeld] if another collector has it.
func (l *Leases) Acquire(ctx context.Context, run string, c proto.CollectorInfo) error {
	return l.Renew(ctx, run, proto.CollectorLease{CollectorInfo: c})
}

// Renew is [Leases.Acquire] of a collector that reports its progress.
func (l *Leases) Renew(ctx context.Context, run string, c proto.CollectorLease) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}

	for begin := time.Now(); ; {
		now, has, revision, err := l.findLease(ctx, run)
		switch {
		case err != nil:
			return err
		case has && now.CollectorInfo != c.CollectorInfo:
			return fmt.Errorf("%w: into %s", proto.ErrLeaseHeld, now.CollectorInfo)
		case revision > 0: // ours, or one that is unreadable
			err = updateEntry(ctx, l.js, proto.PresenceBucket, leaseKey(run), data, revision)
		default:
			err = createEntry(ctx, l.js, proto.PresenceBucket, leaseKey(run), data)
		}

		switch {
		case err == nil:
			return nil
		case !errors.Is(err, jetstream.ErrKeyExists) && !IsWrongSequence(err):
			return fmt.Errorf("announce the collector of run %s: %w", run, err)
		case time.Since(begin) > copyLag || Sleep(ctx, lookAgain) != nil:
			return fmt.Errorf("%w, since this moment", proto.ErrLeaseHeld)
		}
		// The lease of another collector, which shows in a moment; or ours, and the copy of the
		// bucket that answered is behind.
	}
}

// Release deletes the lease of a run.
func (l *Leases) Release(ctx context.Context, run string) error {
	return deleteEntry(ctx, l.js, proto.PresenceBucket, leaseKey(run), nil)
}

// Holder returns the collector that has the lease of a run, if there is one.
func (l *Leases) Holder(ctx context.Context, run string) (c proto.CollectorInfo, held bool, err error) {
	lease, held, err := l.Read(ctx, run)
	return lease.CollectorInfo, held, err
}

// Read returns the lease of a run, if a collector has it.
func (l *Leases) Read(ctx context.Context, run string) (lease proto.CollectorLease, held bool, err error) {
	lease, held, _, err = l.findLease(ctx, run)
	return lease, held, err
}

// List returns the leases of all runs that a collector has, by run. Leases that cannot be read are left out.
func (l *Leases) List(ctx context.Context) (map[string]proto.CollectorLease, error) {
	entries, _, err := entriesAfter(ctx, l.js, proto.PresenceBucket, leaseKey("*"), 0)
	if err != nil {
		return nil, fmt.Errorf("list the collectors: %w", err)
	}

	leases := map[string]proto.CollectorLease{}
	for _, e := range entries {
		if e.deleted {
			continue
		}

		if lease, err := proto.ParseCollectorLease(e.value); err == nil {
			lease.ReceivedAt = e.at
			leases[strings.TrimPrefix(e.key, leaseKey(""))] = lease
		}
	}

	return leases, nil
}

func leaseKey(run string) string { return "collector." + run }

// findLease returns the lease of a run and its revision. A lease that is unreadable keeps no
// collector away, and has a revision nevertheless.
func (l *Leases) findLease(
	ctx context.Context, run string,
) (c proto.CollectorLease, held bool, revision uint64, err error) {
	value, revision, err := lastEntry(ctx, l.js, proto.PresenceBucket, leaseKey(run))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return c, false, 0, nil
	case errors.Is(err, proto.ErrFormat):
		return c, false, revision, nil
	case err != nil:
		return c, false, 0, fmt.Errorf("look for the collector of run %s: %w", run, err)
	}

	c, err = proto.ParseCollectorLease(value)

	return c, err == nil, revision, nil
}
