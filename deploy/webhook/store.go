package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto/bus"
)

// Store lists the deliveries of a bus, and changes them. The sender of a serving process
// notices that within seconds.
type Store struct{ bucket Bucket }

// NewStore returns the deliveries in a bucket, which need not be there.
func NewStore(b Bucket) *Store { return &Store{b} }

// ErrNone is returned where no process has had a webhook.
var ErrNone = errors.New("no process on this bus has had a webhook")

// KnownEndpoint is an endpoint of a process.
type KnownEndpoint struct {
	ID, Name string
	// Command reports that it is a command rather than a URL.
	Command bool
}

// List returns all deliveries, the latest events first, and the endpoints of the bus. Entries
// that cannot be read, of another version, are left out. The error wraps [ErrNone] if the bus
// has no webhooks.
func (s *Store) List(ctx context.Context) (list []Delivery, endpoints []KnownEndpoint, err error) {
	if _, _, err := s.bucket.State(ctx); err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = ErrNone
		}
		return nil, nil, err
	}

	entries, _, err := s.bucket.Changes(ctx, 0)
	if err != nil {
		return nil, nil, err
	}

	for _, entry := range entries {
		if id, ok := strings.CutPrefix(entry.Key, knownPrefix); ok && !entry.Deleted {
			var k known
			if json.Unmarshal(entry.Value, &k) == nil {
				endpoints = append(endpoints, KnownEndpoint{id, k.Name, k.Command})
			}
			continue
		}

		if d, err := parseDelivery(entry.Key, entry.Value); err == nil && !entry.Deleted {
			list = append(list, d)
		}
	}

	slices.SortFunc(list, func(a, b Delivery) int {
		return cmp.Or(b.Event.At.Compare(a.Event.At), cmp.Compare(a.key(), b.key()))
	})

	return list, endpoints, nil
}

// Redeliver has a delivery sent again, from its first attempt on. It returns the delivery as it
// is then.
func (s *Store) Redeliver(ctx context.Context, d Delivery) (Delivery, error) {
	return s.change(ctx, d, func(d *Delivery) {
		now := time.Now().UTC()
		*d = newDelivery(d.Event, d.EndpointID, d.Endpoint, now)
	})
}

// change changes a delivery by compare-and-set.
func (s *Store) change(ctx context.Context, d Delivery, change func(*Delivery)) (Delivery, error) {
	for {
		value, revision, err := s.bucket.Get(ctx, d.key())
		if err != nil {
			return d, fmt.Errorf("read event %s: %w", d.Event.ID, err)
		}

		now, err := parseDelivery(d.key(), value)
		if err != nil {
			return d, err
		}

		change(&now)

		err = s.bucket.Update(ctx, now.key(), now.encode(), revision)
		if !bus.IsWrongSequence(err) {
			return now, err
		}
	}
}

// NewTestEvent returns an event that is about nothing. Receivers see a batch that was completed.
func NewTestEvent() Event {
	return Event{
		ID:      "evt_test_" + strings.ToLower(rand.Text()),
		Type:    Completed,
		BatchID: "batch_test",
		At:      time.Now().UTC(),
	}
}

// Test has the sender of an endpoint send an event, once, and waits for the answer until ctx
// ends. Then the event is given up.
func (s *Store) Test(ctx context.Context, to KnownEndpoint, e Event) (Delivery, error) {
	d := newDelivery(e, to.ID, to.Name, time.Now().UTC())
	d.Test = true
	if err := s.bucket.Create(ctx, d.key(), d.encode()); err != nil {
		return d, fmt.Errorf("add event %s: %w", e.ID, err)
	}

	for {
		if bus.Sleep(ctx, testEvery) != nil {
			break
		}

		value, _, err := s.bucket.Get(ctx, d.key())
		if err != nil {
			continue
		}

		if d, err = parseDelivery(d.key(), value); err != nil || d.State != Pending {
			return d, err
		}
	}

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()

	return s.change(ending, d, func(d *Delivery) {
		if d.State == Pending {
			d.State, d.Answer, d.NextAt = GivenUp, "no promptmill serve on this bus has sent it", time.Time{}
		}
	})
}

// testEvery is the interval at which a test looks for the answer.
const testEvery = 200 * time.Millisecond
