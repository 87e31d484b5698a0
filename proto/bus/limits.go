package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// DefaultStreamBytes is the size of a run's streams where [Limits] does not name another.
const DefaultStreamBytes = 512 << 20

// Limits bound how much of the bus's disk a run may take. The zero value has the defaults.
type Limits struct {
	// WorkBytes bounds the stream of shards that wait. A full stream is the back-pressure on the
	// producer. Defaults to [DefaultStreamBytes]; -1: no bound.
	WorkBytes int64
	// ResultsBytes bounds the stream of results that wait for the collector, and that readers may
	// lag behind. Defaults to [DefaultStreamBytes]; -1: no bound.
	ResultsBytes int64
	// Replicas is the number of copies in a cluster. Defaults to 1.
	Replicas int
}

// withDefaults returns the limits with defaults in place of zeros.
func (l Limits) withDefaults() Limits {
	l.WorkBytes = cmp.Or(l.WorkBytes, DefaultStreamBytes)
	l.ResultsBytes = cmp.Or(l.ResultsBytes, DefaultStreamBytes)
	l.Replicas = max(1, l.Replicas)

	return l
}

// The keys of the limits in the metadata of the runs bucket, in bytes.
const (
	workLimit    = "promptmill_work_bytes"
	resultsLimit = "promptmill_results_bytes"
)

// SetLimits publishes how large each stream of a run may be at most, for all that make them. A
// server reserves that much for each, used or not, and only the process that has the disk knows
// how much there is.
func (r *RunStore) SetLimits(ctx context.Context, l Limits) error {
	err := r.updateMetadata(ctx, func(metadata map[string]string) {
		metadata[workLimit] = strconv.FormatInt(l.WorkBytes, 10)
		metadata[resultsLimit] = strconv.FormatInt(l.ResultsBytes, 10)
	})
	if err != nil {
		return fmt.Errorf("set the limits of runs: %w", err)
	}

	return nil
}

// updateMetadata changes the metadata of the runs bucket.
func (r *RunStore) updateMetadata(ctx context.Context, change func(map[string]string)) error {
	bucket, err := r.js.Stream(ctx, "KV_"+proto.RunsBucket)
	if err != nil {
		return err
	}

	cfg := bucket.CachedInfo().Config
	had := cfg.Metadata
	if cfg.Metadata = maps.Clone(had); cfg.Metadata == nil {
		cfg.Metadata = map[string]string{}
	}

	change(cfg.Metadata)
	if maps.Equal(had, cfg.Metadata) {
		return nil
	}

	_, err = r.js.UpdateStream(ctx, cfg)

	return err
}

// minLimit is the lowest effective limit. In a smaller stream no run makes progress.
const minLimit = 1 << 20

// clampToBus lowers the limits to the limits of the bus, if it has any.
func (l Limits) clampToBus(ctx context.Context, js jetstream.JetStream) (Limits, error) {
	bucket, err := FindStream(ctx, js, "KV_"+proto.RunsBucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("read the limits of runs: %w", err)
	}

	metadata := bucket.CachedInfo().Config.Metadata
	for key, bytes := range map[string]*int64{workLimit: &l.WorkBytes, resultsLimit: &l.ResultsBytes} {
		if most, err := strconv.ParseInt(metadata[key], 10, 64); err == nil && most > 0 {
			*bytes = min(*bytes, max(most, minLimit))
		}
	}

	return l, nil
}
