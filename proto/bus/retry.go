package bus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// electionTime is how long a cluster may take to agree on a leader. Its nodes wait 4 to 9 s
// for one that has died (nats-server, raft.go, minElectionTimeout). On busy machines a node
// that comes back holds up the others for many seconds.
const electionTime = 30 * time.Second

// requestTimeout is how long an answer may take until the question counts as lost. Elections come
// on top of it, so it is short.
const requestTimeout = 2 * time.Second

// retryNoLeader asks again for as long as a cluster has no leader, 30 s at most: its nodes
// drop questions meanwhile, and do not answer later. A server that is slow has more time
// with each question.
func retryNoLeader(ctx context.Context, ask func(context.Context) error) error {
	begin := time.Now()
	return retryNoLeaderFor(ctx, electionTime,
		func() time.Duration { return max(requestTimeout, time.Since(begin)/3) }, ask)
}

// retryNoLeaderFor is untilLed for so long, where the answer to the next question may take as long
// as each says.
func retryNoLeaderFor(
	ctx context.Context, most time.Duration, each func() time.Duration, ask func(context.Context) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()

	for {
		next := time.After(250 * time.Millisecond) // at the earliest: some refuse at once
		asking, stop := context.WithTimeout(ctx, each())
		err := ask(asking)
		stop()
		if err == nil || ctx.Err() != nil || !IsNoLeader(err) {
			return err
		}

		select {
		case <-next:
		case <-ctx.Done():
			return err
		}
	}
}

// FindStream looks a stream up, with its state as it is now. A cluster that has no leader
// now is waited for, 30 s.
func FindStream(ctx context.Context, js jetstream.JetStream, name string) (stream jetstream.Stream, err error) {
	err = retryNoLeader(ctx, func(ctx context.Context) error {
		stream, err = js.Stream(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", name, err)
	}

	return stream, nil
}

// FindConsumer looks a consumer up, as [FindStream] does a stream.
func FindConsumer(
	ctx context.Context, js jetstream.JetStream, stream, name string,
) (consumer jetstream.Consumer, err error) {
	err = retryNoLeader(ctx, func(ctx context.Context) error {
		consumer, err = js.Consumer(ctx, stream, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for consumer %s of stream %s: %w", name, stream, err)
	}

	return consumer, nil
}

// makeStream makes a stream, unless there is one of its name, which stays as it is.
func makeStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	err := retryNoLeader(ctx, func(ctx context.Context) error {
		_, err := js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = js.CreateStream(ctx, cfg)
		}
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil // made by another process, just now
	}

	return err
}

// PurgeStream takes messages out of a stream. A cluster that has no leader now is waited
// for, 30 s.
func PurgeStream(ctx context.Context, js jetstream.JetStream, name string, opts ...jetstream.StreamPurgeOpt) error {
	err := retryNoLeader(ctx, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return err
		}
		return stream.Purge(ctx, opts...)
	})
	if err != nil {
		return fmt.Errorf("purge stream %s: %w", name, err)
	}

	return nil
}

// DeleteStream deletes a stream. It is no error if there is none. A cluster that has no
// leader now is waited for, 30 s.
func DeleteStream(ctx context.Context, js jetstream.JetStream, name string) error {
	err := retryNoLeader(ctx, func(ctx context.Context) error { return js.DeleteStream(ctx, name) })
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("delete stream %s: %w", name, err)
	}
	return nil
}

// AckTimeout is how long the confirmation of a message with so many bytes may take, which was
// sent for the first time so long ago, until it is sent again. What was on its way to a node
// that died is never confirmed; nor is what comes while there is no leader, if others listen.
// What goes over a thin line takes its time.
func AckTimeout(bytes int, since time.Duration) time.Duration {
	return max(2*requestTimeout+lineTime(bytes), since/3)
}

// lineTime is how long so many bytes take over a thin line.
func lineTime(bytes int) time.Duration {
	const thin = 64 << 10 // bytes a second
	return time.Duration(bytes) * time.Second / thin
}

// publishOnce stores a message once, however often it must be sent until that is confirmed. It
// goes on for less time than a stream remembers ids, 2 minutes.
func publishOnce(ctx context.Context, js jetstream.JetStream, msg *nats.Msg, id string) error {
	const most = 100 * time.Second
	const always, wait = math.MaxInt, 250 * time.Millisecond // while nobody listens
	begin := time.Now()
	each := func() time.Duration { return max(requestTimeout+lineTime(len(msg.Data)), time.Since(begin)/3) }

	return retryNoLeaderFor(ctx, most, each, func(ctx context.Context) error {
		_, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(always),
			jetstream.WithRetryWait(wait))
		return err
	})
}
