package bus_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A collector makes the bucket of webhooks, and stores, changes and reads its values; no other role may
// write there.
func TestBucket(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	b := newBus(t)
	c := b.as(t, proto.RoleCollector)
	webhooks := bus.New(c).Webhooks

	if _, _, err := webhooks.State(ctx); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Fatalf("before it is made: %v", err)
	}

	for range 2 {
		must(t, webhooks.Make(ctx, limits))
	}

	must(t, webhooks.Create(ctx, "e.1", []byte("a")))
	if err := webhooks.Create(ctx, "e.1", []byte("b")); !errors.Is(err, jetstream.ErrKeyExists) {
		t.Errorf("a value is made twice: %v", err)
	}

	value, revision, err := webhooks.Get(ctx, "e.1")
	must(t, err)
	if string(value) != "a" {
		t.Errorf("value %q", value)
	}

	must(t, webhooks.Update(ctx, "e.1", []byte("c"), revision))
	if err := webhooks.Update(ctx, "e.1", []byte("d"), revision); !bus.IsWrongSequence(err) {
		t.Errorf("a value is changed that another process has changed: %v", err)
	}

	_, last, err := webhooks.Changes(ctx, 0)
	must(t, err)
	must(t, webhooks.Put(ctx, "e.2", []byte("x")))
	changed, last, err := webhooks.Changes(ctx, last)
	must(t, err)
	if diff := cmp.Diff([]bus.Entry{{Key: "e.2", Value: []byte("x")}}, changed); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}

	if _, now, err := webhooks.State(ctx); err != nil || now != last {
		t.Errorf("the last change is %d (%v), want %d", now, err, last)
	}

	if _, _, err := webhooks.Get(ctx, "nosuch"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("a key without a value: %v", err)
	}

	must(t, c.refused(t))

	for _, role := range slices.DeleteFunc(proto.Roles(), func(r proto.Role) bool { return r == proto.RoleCollector }) {
		other := b.as(t, role)
		must(t, other.Conn().Publish("$KV."+proto.WebhooksBucket+".e.1", []byte("forged")))
		if other.refused(t) == nil {
			t.Errorf("a %s may forge an event", role)
		}
	}
}
