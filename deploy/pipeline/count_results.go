package pipeline

import (
	"context"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// countResults counts the requests that have no line in the journal, but a result on the
// bus: the worker stored the result, and the collector has not written it. The count is for people,
// so it is 0 for a bus that does not answer.
func countResults(ctx context.Context, js jetstream.JetStream, m proto.Manifest, state *journal.State) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	found, stream, bounds := roaring.New(), proto.ResultsStream(m.Run), m.Bounds()
	next := state.Position.Sequence + 1
	take := func(msg *jetstream.RawStreamMsg) {
		next = msg.Sequence + 1
		if proto.IsDeliveryNote(msg.Header) {
			return
		}

		// else the collector leaves it out, too
		if batch, err := bounds.ParseBatch(msg.Subject, msg.Header); err == nil {
			found.AddMany(batch.Indexes)
		}
	}

	// By direct gets, since a role may not make its own consumer.
	for {
		messages, err := jetstreamext.GetBatch(ctx, js, stream, 1024, jetstreamext.GetBatchSeq(next),
			jetstreamext.GetBatchMaxBytes(8<<20))
		if err != nil {
			break
		}

		before := next
		for msg, err := range messages {
			if err != nil || len(msg.Header[jetstream.SequenceHeader]) != 1 {
				break // the end, or a message that was published with the headers of an answer
			}
			bus.StripServerHeaders(msg.Header)
			take(msg)
		}

		if next > before {
			continue
		}

		msg, err := bus.NextMessage(ctx, js, stream, next, proto.ResultsSubject(m.Run, "*"))
		if err != nil {
			break
		}

		take(msg)
	}

	found.AndNot(state.Done)

	return int(found.GetCardinality())
}
