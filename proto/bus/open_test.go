package bus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto/bus"
)

// isNoLeader is a cluster that drops the first questions.
type isNoLeader struct {
	jetstream.JetStream
	drops int
}

func (l *isNoLeader) KeyValue(ctx context.Context, _ string) (jetstream.KeyValue, error) {
	if l.drops--; l.drops >= 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, nil
}

// A question that was dropped is asked again, and not for ever.
func TestOpenAsksAgain(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name  string
		drops int
		after time.Duration
		err   error
	}{
		{"a leader is elected", 3, 6 * time.Second, nil},
		{"no server answers", 1000, 30 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()

				_, err := bus.Open(t.Context(), &isNoLeader{drops: test.drops})
				if !errors.Is(err, test.err) || time.Since(begin) != test.after {
					t.Errorf("Open: %v after %s", err, time.Since(begin))
				}
			})
		})
	}
}
