package webhook

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// The states of a delivery.
const (
	Pending   = "pending"   // it is sent, now or later
	Delivered = "delivered" // the endpoint has taken it
	GivenUp   = "failed"    // it is not sent again by itself
)

// Delivery is an event for an endpoint.
type Delivery struct {
	Event Event `json:"event"`
	// Endpoint is the name of the endpoint, see [NameOf], and EndpointID its id.
	Endpoint   string `json:"endpoint"`
	EndpointID string `json:"endpoint_id"`
	// State is [Pending], [Delivered] or [GivenUp].
	State string `json:"state"`
	// Attempts counts the attempts since Since.
	Attempts int `json:"attempts"`
	// Since is the time at which the event was added, or was wanted again.
	Since time.Time `json:"since"`
	// NextAt is the earliest time of the next attempt, if the delivery is pending.
	NextAt time.Time `json:"next_attempt_at,omitzero"`
	// LastAt is the time of the latest attempt's answer, and Answer the answer in words. Status
	// is the HTTP status; 0: there was none.
	LastAt time.Time `json:"last_attempt_at,omitzero"`
	Answer string    `json:"last_answer,omitempty"`
	Status int       `json:"last_status,omitempty"`
	// DeliveredAt is the time at which the endpoint took it.
	DeliveredAt time.Time `json:"delivered_at,omitzero"`
	// ClaimedBy names the process that sends it now.
	ClaimedBy string `json:"claimed_by,omitempty"`
	// Test reports that a person wanted to see the answer. There is one attempt.
	Test bool `json:"test,omitempty"`
}

// key is the key of the delivery in the bucket.
func (d Delivery) key() string { return d.Event.ID + "." + d.EndpointID }

// encode returns the delivery as the bucket has it.
func (d Delivery) encode() []byte {
	data, err := json.Marshal(d)
	if err != nil {
		panic(err) // times of this century, texts and numbers
	}
	return data
}

// deliveryKey matches the key of a delivery.
var deliveryKey = regexp.MustCompile(`^evt_[A-Za-z0-9_-]{1,64}\.[0-9a-f]{16}$`)

// parseDelivery reads the value of a key. It counts as [proto.ErrFormat] if it is none.
func parseDelivery(key string, value []byte) (d Delivery, err error) {
	if err := json.Unmarshal(value, &d); err != nil {
		return d, fmt.Errorf("%w: webhook entry %s is not JSON: %w", proto.ErrFormat, proto.Excerpt(key), err)
	}

	switch {
	case !deliveryKey.MatchString(key) || d.key() != key:
		err = fmt.Errorf("%w: webhook entry %s is of another event", proto.ErrFormat, proto.Excerpt(key))
	case d.State != Pending && d.State != Delivered && d.State != GivenUp:
		err = fmt.Errorf("%w: webhook entry %s is in state %q", proto.ErrFormat, key, d.State)
	case d.Attempts < 0 || d.Attempts > 1e6:
		err = fmt.Errorf("%w: webhook entry %s has %d attempts", proto.ErrFormat, key, d.Attempts)
	}

	return d, err
}

// known is an endpoint that a process of the bus has: the entry of its key.
type known struct {
	// Name is the endpoint's name, see [NameOf].
	Name string `json:"name"`
	// Command reports that the endpoint is a command rather than a URL.
	Command bool `json:"command,omitempty"`
	// Since is the time at which the endpoint was there first. It gets no events of before.
	Since time.Time `json:"since"`
}

// knownPrefix begins the keys of endpoints.
const knownPrefix = "endpoint."
