package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// endsWith is the key, in the metadata of the runs bucket, of the run with which the bus ends.
const endsWith = "promptmill_ends_with"

// SetEndsWith publishes that the bus ends with a run, and that its store is deleted then: other runs
// do not belong there. An empty run publishes that the bus ends with no run.
func (r *RunStore) SetEndsWith(ctx context.Context, run string) error {
	err := r.updateMetadata(ctx, func(metadata map[string]string) {
		if delete(metadata, endsWith); run != "" {
			metadata[endsWith] = run
		}
	})
	if err != nil {
		return fmt.Errorf("note with which run the bus ends: %w", err)
	}

	return nil
}

// EndsWith returns the run with which the bus ends, or an empty string if it stays up.
func (r *RunStore) EndsWith(ctx context.Context) (run string, err error) {
	bucket, err := FindStream(ctx, r.js, "KV_"+proto.RunsBucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read with which run the bus ends: %w", err)
	}

	return bucket.CachedInfo().Config.Metadata[endsWith], nil
}
