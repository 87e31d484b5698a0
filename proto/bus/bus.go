package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// Bus has promptmill's stores on a NATS server: the buckets that all runs share, and the stores of
// each run. It holds nothing but the handle, and is safe for concurrent use.
type Bus struct {
	// Runs has the manifests of all runs.
	Runs *RunStore
	// Leases has the leases of the runs' collectors.
	Leases *Leases
	// Heartbeats has the announcements of the workers.
	Heartbeats *Heartbeats
	// Webhooks has the events for webhooks. Only a bus with webhooks has that bucket, see [Bucket.Make].
	Webhooks *Bucket

	js jetstream.JetStream
}

// New returns the bus behind a JetStream handle, without a check that it is one.
func New(js jetstream.JetStream) *Bus {
	return &Bus{
		Runs:       &RunStore{js: js},
		Leases:     &Leases{js: js},
		Heartbeats: &Heartbeats{js: js},
		Webhooks:   &Bucket{js: js, name: proto.WebhooksBucket},
		js:         js,
	}
}

// Open returns the bus behind a JetStream handle. It fails if the buckets that all runs share are
// not there, which [CreateBuckets] makes. A cluster that has no leader is waited for, 30 s.
func Open(ctx context.Context, js jetstream.JetStream) (*Bus, error) {
	for _, bucket := range []string{proto.RunsBucket, proto.PresenceBucket} {
		err := retryNoLeader(ctx, func(ctx context.Context) error {
			_, err := js.KeyValue(ctx, bucket)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("open bucket %s: %w", bucket, err)
		}
	}

	return New(js), nil
}

// Objects returns the object store of a run.
func (b *Bus) Objects(run string) *ObjectStore { return &ObjectStore{js: b.js, run: run} }

// Answers returns the large answers of a run.
func (b *Bus) Answers(run string) *AnswerStore { return &AnswerStore{js: b.js, run: run} }

// Sleep waits for a time, such as that between two attempts. It returns the cause of ctx's end
// if that comes first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()

	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ErrNoAck is returned when a stream does not confirm a message in time. The message may be
// stored, and the stream itself says whether it is.
var ErrNoAck = errors.New("no confirmation from the server")

// AwaitAck waits until a stream confirms a message, for a time at most. It returns the stream's
// refusal, [ErrNoAck] or the cause of ctx's end. An ack that is nil, of a message that could not
// be sent, is never confirmed.
func AwaitAck(ctx context.Context, ack jetstream.PubAckFuture, most time.Duration) error {
	if ack == nil {
		return ErrNoAck
	}

	timeout := time.NewTimer(most)
	defer timeout.Stop()

	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-timeout.C:
		return ErrNoAck
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
