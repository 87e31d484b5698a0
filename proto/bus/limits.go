package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// Limits bound what a run may take of the bus's disk.
type Limits struct {
	WorkBytes    int64 // shards waiting; a full stream is the back-pressure on the producer
	ResultsBytes int64 // results waiting for the collector, and readers' slack; -1: no bound
	Replicas     int   // copies in a cluster; 0 means 1
}

// The keys under which the runs bucket's metadata tell the limits, in bytes.
const (
	workLimit    = "promptmill_work_bytes"
	resultsLimit = "promptmill_results_bytes"
)

// SetLimits tells all who make the streams of runs how large each may be at most. A
// server sets that much aside for each, used or not, and only the process that has the
// disk knows how much there is.
func (r *RunStore) SetLimits(ctx context.Context, l Limits) error {
	bucket, err := r.js.Stream(ctx, "KV_"+proto.RunsBucket)
	if err != nil {
		return fmt.Errorf("tell the limits of runs: %w", err)
	}

	cfg := bucket.CachedInfo().Config
	if cfg.Metadata = maps.Clone(cfg.Metadata); cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}

	cfg.Metadata[workLimit] = strconv.FormatInt(l.WorkBytes, 10)
	cfg.Metadata[resultsLimit] = strconv.FormatInt(l.ResultsBytes, 10)

	if _, err := r.js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("tell the limits of runs: %w", err)
	}

	return nil
}

// leastLimit is the least that a limit counts for. In a smaller stream no run gets on.
const leastLimit = 1 << 20

// clamp lowers the limits to those that the bus tells, if it tells any.
func (l Limits) clamp(ctx context.Context, js jetstream.JetStream) (Limits, error) {
	bucket, err := FindStream(ctx, js, "KV_"+proto.RunsBucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("read the limits of runs: %w", err)
	}

	told := bucket.CachedInfo().Config.Metadata
	for key, bytes := range map[string]*int64{workLimit: &l.WorkBytes, resultsLimit: &l.ResultsBytes} {
		if most, err := strconv.ParseInt(told[key], 10, 64); err == nil && most > 0 {
			*bytes = min(*bytes, max(most, leastLimit))
		}
	}

	return l, nil
}
