package collector

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// EndOfResults returns the position of the newest message of a run's results stream, after
// which the results of a retry count.
func EndOfResults(ctx context.Context, js jetstream.JetStream, run string) (journal.Position, error) {
	stream, err := bus.FindStream(ctx, js, proto.ResultsStream(run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return journal.Position{}, nil
	}
	if err != nil {
		return journal.Position{}, err
	}

	info := stream.CachedInfo()

	return journal.Position{
		Created:  info.Created,
		Sequence: info.State.LastSeq,
		Time:     info.State.LastTime,
	}, nil
}

// CheckResultsKept returns [ErrResultsGone] if the oldest results of a run have left the bus.
func CheckResultsKept(ctx context.Context, js jetstream.JetStream, run string) error {
	stream, err := bus.FindStream(ctx, js, proto.ResultsStream(run))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return ErrResultsGone
	}
	if err != nil {
		return err
	}

	if state := stream.CachedInfo().State; state.Msgs == 0 || state.FirstSeq > 1 {
		return ErrResultsGone
	}

	return nil
}
