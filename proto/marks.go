package proto

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// HeaderDelivery makes a message on a shard's results subject a note of a worker to those
// who get the shard after it. It has no lines; who reads results passes over it.
const HeaderDelivery = "Pm-Delivery"

// DeliveryNote is a worker's note about a shard. Deliveries alone do not tell how a shard was
// lost: a worker that stops hands it back, one that dies leaves it.
type DeliveryNote struct {
	// Returned says that the worker handed the shard back, alive.
	Returned bool
	// Crashes are how often the model server died while it had a request, by number.
	Crashes map[uint32]int
	// Isolated is the request that the worker is about to run, and nothing else beside it;
	// -1: none. If no result follows, nor that the shard was handed back, it killed the
	// worker.
	Isolated int64
}

// EncodeDeliveryNote makes the message of a mark. Its header's value is "back" and the deaths
// as SEQ=COUNT, or "alone SEQ".
func EncodeDeliveryNote(run, shard string, m DeliveryNote) *nats.Msg {
	var b strings.Builder
	if m.Returned {
		b.WriteString("returned")
		for seq, n := range m.Crashes {
			fmt.Fprintf(&b, " %d=%d", seq, n)
		}
	} else {
		fmt.Fprintf(&b, "isolated %d", m.Isolated)
	}

	msg := nats.NewMsg(ResultsSubject(run, shard))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, shard)
	msg.Header.Set(HeaderDelivery, b.String())

	return msg
}

// maxDeaths is the most deaths of a model server that a mark may tell of one request.
const maxDeaths = 1000

// ParseDeliveryNote reads the mark of a shard that has the requests, in ascending order. Its error is
// of the type [FieldError] where the mark does not fit.
func (b Bounds) ParseDeliveryNote(shard, subject string, h nats.Header, requests []Request) (DeliveryNote, error) {
	if err := b.checkShard(ResultsSubject(b.Run, shard), subject, h); err != nil {
		return DeliveryNote{}, err
	}

	if v := h.Get(HeaderVersion); v != Version {
		return DeliveryNote{}, NewFieldError(HeaderVersion, "%q, this program reads %q", Excerpt(v), Version)
	}

	if id := h.Get(HeaderShard); id != shard {
		return DeliveryNote{}, NewFieldError(HeaderShard, "%q on the subject of shard %s", Excerpt(id), shard)
	}

	m, err := ParseDeliveryNote(h)
	if err != nil {
		return DeliveryNote{}, &FieldError{Field: HeaderDelivery, Why: err.Error()}
	}

	has := func(seq int64) bool {
		_, found := slices.BinarySearchFunc(requests, seq, func(r Request, seq int64) int {
			return cmp.Compare(int64(r.Index), seq)
		})
		return found
	}
	if !m.Returned && !has(m.Isolated) {
		return DeliveryNote{}, NewFieldError(HeaderDelivery, "shard %s has no request %d", shard, m.Isolated)
	}

	for seq, n := range m.Crashes {
		if !has(int64(seq)) || n > maxDeaths {
			return DeliveryNote{}, NewFieldError(HeaderDelivery, "%d deaths of request %d in shard %s", n, seq, shard)
		}
	}

	return m, nil
}

// IsDeliveryNote reports whether a message on a results subject is a mark.
func IsDeliveryNote(h nats.Header) bool { return h.Get(HeaderDelivery) != "" }

// ParseDeliveryNote reads a mark out of a message's header.
func ParseDeliveryNote(h nats.Header) (DeliveryNote, error) {
	text := h.Get(HeaderDelivery)
	kind, rest, _ := strings.Cut(text, " ")
	m := DeliveryNote{Returned: kind == "returned", Isolated: -1}
	switch kind {
	case "isolated":
		seq, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return DeliveryNote{}, fmt.Errorf("mark %q: %w: %w", Excerpt(text), ErrFormat, err)
		}
		m.Isolated = int64(seq)
	case "returned":
		m.Crashes = map[uint32]int{}
		for field := range strings.FieldsSeq(rest) {
			seq, count, _ := strings.Cut(field, "=")
			s, err := strconv.ParseUint(seq, 10, 32)
			n, countErr := strconv.ParseUint(count, 10, 16)
			if err != nil || countErr != nil {
				return DeliveryNote{}, fmt.Errorf("mark %q: %w", Excerpt(text), ErrFormat)
			}

			m.Crashes[uint32(s)] = int(n)
		}
	default:
		return DeliveryNote{}, fmt.Errorf("mark %q: %w: of no known kind", Excerpt(text), ErrFormat)
	}

	return m, nil
}
