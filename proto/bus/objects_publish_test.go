package bus

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// A part of an object whose confirmation was lost is sent again, and stored once.
func TestObjectsPublishOnce(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	store, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: proto.ObjectsBucket("r")})
	if err != nil {
		t.Fatal(err)
	}

	for _, id := range []string{"x-1", "x-1", "x-2", "x-1"} {
		msg := nats.NewMsg("$O." + proto.ObjectsBucket("r") + ".C.x")
		msg.Data = []byte(id)
		if err := publishOnce(t.Context(), js, msg, id); err != nil {
			t.Fatal(err)
		}
	}

	status, err := store.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	if n := status.(*jetstream.ObjectBucketStatus).StreamInfo().State.Msgs; n != 2 {
		t.Errorf("%d messages are stored, want 2", n)
	}
}
