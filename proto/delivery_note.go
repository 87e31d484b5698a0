package proto

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// HeaderDelivery makes a message on a shard's results subject a worker's note to the workers
// that get the shard after it. It has no lines, and readers of results pass over it.
const HeaderDelivery = "Pm-Delivery"

// DeliveryNote is a worker's note about a shard. The number of deliveries alone does not show how
// a worker lost the shard: one that stops returns it, one that dies leaves it. The zero value is
// the note of a shard that was returned, with no crash.
type DeliveryNote struct {
	// Isolated reports that the worker is about to run one request of the shard and nothing beside
	// it. If neither its result follows nor a note that the shard was returned, the request
	// killed the worker. Otherwise the worker, alive, has returned the shard.
	Isolated bool
	// Index is the isolated request.
	Index uint32
	// Crashes counts, by request index, the crashes of the model server while the request was in
	// flight. Only the note of a returned shard has it.
	Crashes map[uint32]int
	// Sent are the requests, ascending, that the worker has sent to the model server until now; nil:
	// the note is another one. If the shard is lost, those that have no result were sent in vain.
	Sent []uint32
}

// Returned returns the note of a shard that the worker has returned, alive.
func Returned(crashes map[uint32]int) DeliveryNote { return DeliveryNote{Crashes: crashes} }

// Isolating returns the note of a request that the worker is about to run alone.
func Isolating(index uint32) DeliveryNote { return DeliveryNote{Isolated: true, Index: index} }

// Sending returns the note of the requests that the worker has sent to the model server until now,
// ascending. It has at least one.
func Sending(indexes []uint32) DeliveryNote { return DeliveryNote{Sent: indexes} }

// The first words of the header.
const (
	noteReturned = "returned"
	noteIsolated = "isolated"
	noteSent     = "sent"
)

// EncodeDeliveryNote makes the message of a note. Its header is "returned" and the crashes as
// INDEX=COUNT, or "isolated INDEX", or "sent" and the indexes as [FormatIndexes] writes them.
func EncodeDeliveryNote(run, shard string, n DeliveryNote) *nats.Msg {
	var b strings.Builder

	switch {
	case n.Isolated:
		fmt.Fprintf(&b, "%s %d", noteIsolated, n.Index)
	case len(n.Sent) > 0:
		b.WriteString(noteSent + " " + FormatIndexes(n.Sent))
	default:
		b.WriteString(noteReturned)
		for _, index := range slices.Sorted(maps.Keys(n.Crashes)) {
			fmt.Fprintf(&b, " %d=%d", index, n.Crashes[index])
		}
	}

	msg := nats.NewMsg(ResultsSubject(run, shard))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, shard)
	msg.Header.Set(HeaderDelivery, b.String())

	return msg
}

// IsDeliveryNote reports whether a message on a results subject is a delivery note.
func IsDeliveryNote(h nats.Header) bool { return h.Get(HeaderDelivery) != "" }

// ParseDeliveryNote reads a delivery note from a message's header.
func ParseDeliveryNote(h nats.Header) (DeliveryNote, error) {
	text := h.Get(HeaderDelivery)
	kind, rest, _ := strings.Cut(text, " ")
	switch kind {
	case noteIsolated:
		index, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return DeliveryNote{}, fmt.Errorf("delivery note %q: %w: %w", Excerpt(text), ErrFormat, err)
		}

		return Isolating(uint32(index)), nil

	case noteSent:
		indexes, err := ParseIndexes(rest, MaxShardSize)
		if err != nil || len(indexes) == 0 {
			return DeliveryNote{}, fmt.Errorf("delivery note %q: %w", Excerpt(text), ErrFormat)
		}

		return Sending(indexes), nil

	case noteReturned:
		crashes := map[uint32]int{}

		for field := range strings.FieldsSeq(rest) {
			index, count, _ := strings.Cut(field, "=")

			i, err := strconv.ParseUint(index, 10, 32)
			n, countErr := strconv.ParseUint(count, 10, 16)
			if err != nil || countErr != nil {
				return DeliveryNote{}, fmt.Errorf("delivery note %q: %w", Excerpt(text), ErrFormat)
			}

			crashes[uint32(i)] = int(n)
		}

		return Returned(crashes), nil
	}

	return DeliveryNote{}, fmt.Errorf("delivery note %q: %w: unknown kind", Excerpt(text), ErrFormat)
}

// maxCrashes is the most crashes that a note may count for one request.
const maxCrashes = 1000

// ParseDeliveryNote reads the note about a shard that has the requests, in ascending order. Its
// error is of the type [FieldError] where the note does not fit.
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

	n, err := ParseDeliveryNote(h)
	if err != nil {
		return DeliveryNote{}, &FieldError{Field: HeaderDelivery, Why: err.Error()}
	}

	if n.Isolated && !hasRequest(requests, n.Index) {
		return DeliveryNote{}, NewFieldError(HeaderDelivery, "shard %s has no request %d", shard, n.Index)
	}

	for _, index := range n.Sent {
		if !hasRequest(requests, index) {
			return DeliveryNote{}, NewFieldError(HeaderDelivery, "shard %s has no request %d", shard, index)
		}
	}

	for index, count := range n.Crashes {
		if !hasRequest(requests, index) || count > maxCrashes {
			return DeliveryNote{}, NewFieldError(HeaderDelivery, "%d crashes with request %d in shard %s",
				count, index, shard)
		}
	}

	return n, nil
}

// hasRequest reports whether a request is among requests in ascending order.
func hasRequest(requests []Request, index uint32) bool {
	_, found := slices.BinarySearchFunc(requests, index, func(r Request, index uint32) int {
		return cmp.Compare(r.Index, index)
	})

	return found
}
