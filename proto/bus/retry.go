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

// electionTime is the longest time that a cluster takes to elect a leader. Its nodes wait 4 to
// 9 s for one that has died (nats-server, raft.go, minElectionTimeout). On busy machines a node
// that comes back delays the others for many seconds.
const electionTime = 30 * time.Second

// requestTimeout is the time after which a request counts as lost. Elections come on top of it,
// so it is short.
const requestTimeout = 2 * time.Second

// retryNoLeader retries ask while a cluster has no leader, for 30 s at most: its nodes drop
// requests meanwhile, and do not reply later. A slow server gets more time with each attempt.
func retryNoLeader(ctx context.Context, ask func(context.Context) error) error {
	begin := time.Now()
	return retryNoLeaderFor(ctx, electionTime,
		func() time.Duration { return max(requestTimeout, time.Since(begin)/3) }, ask)
}

// retryNoLeaderFor retries ask for up to most; each call gets its own timeout.
func retryNoLeaderFor(
	ctx context.Context, most time.Duration, each func() time.Duration, ask func(context.Context) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()

	for {
		next := time.After(250 * time.Millisecond) // at the earliest, since some refuse at once
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

// FindStream returns a stream, with its current state. A cluster that has no leader is waited for,
// 30 s.
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

// FindConsumer returns a consumer, as [FindStream] returns a stream.
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

// createStream makes a stream, unless there is one of its name, which stays as it is.
func createStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
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

// PurgeStream deletes messages of a stream. A cluster that has no leader is waited for, 30 s.
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

// AckTimeout returns the time to wait for the confirmation of a message of some bytes before it
// is sent again. since is the time since it was sent first. A message on its way to a node that
// died is never confirmed; nor is one that arrives while there is no leader, if other nodes
// listen. A large message takes its time over a slow line.
func AckTimeout(bytes int, since time.Duration) time.Duration {
	return max(2*requestTimeout+lineTime(bytes), since/3)
}

// lineTime returns the time that a number of bytes takes over a slow line.
func lineTime(bytes int) time.Duration {
	const slow = 64 << 10 // bytes a second
	return time.Duration(bytes) * time.Second / slow
}

// publishOnce stores a message once, however often it must be sent until that is confirmed. It
// retries for less time than a stream remembers ids, 2 minutes.
func publishOnce(ctx context.Context, js jetstream.JetStream, msg *nats.Msg, id string) error {
	const most = 100 * time.Second
	const always, wait = math.MaxInt, 250 * time.Millisecond // while there are no responders
	begin := time.Now()
	each := func() time.Duration { return max(requestTimeout+lineTime(len(msg.Data)), time.Since(begin)/3) }

	return retryNoLeaderFor(ctx, most, each, func(ctx context.Context) error {
		_, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(always),
			jetstream.WithRetryWait(wait))
		return err
	})
}
