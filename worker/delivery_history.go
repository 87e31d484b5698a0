package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// deliveryHistory records the outcome of a shard's earlier deliveries. The maps are by request
// index, and nil while they are empty.
type deliveryHistory struct {
	// done are the requests that have a result.
	done map[uint32]bool

	// crashes counts the crashes of model servers while they had a request.
	crashes map[uint32]int

	// isolated counts how often a request ran alone and never ended.
	isolated map[uint32]int

	// sent are the requests that a worker sent to its model server and neither returned nor, unless
	// they are done, stored.
	sent map[uint32]bool

	// unacked is the number of deliveries after which the worker gave no sign of life.
	unacked int
}

// crashCount returns how often a server, or a worker, crashed while it had a request. A worker
// that vanishes once proves nothing: boxes do. But the third chance of a request is
// alone, and so is the one after a worker has vanished with it.
func (h deliveryHistory) crashCount(index uint32) int {
	n := h.crashes[index]
	if h.isolated[index] > 0 {
		n = max(n, isolateAfter)
	}
	if h.unacked >= isolateAfter {
		n = max(n, h.unacked)
	}

	return n
}

// isPoison reports whether workers died of a request that ran alone. One death is not enough:
// that worker may only have been away for a while, and be at work on the request still.
func (h deliveryHistory) isPoison(index uint32) bool { return h.isolated[index] >= 2 }

// unfinished returns the requests that have no result.
func (h deliveryHistory) unfinished(requests []proto.Request) []proto.Request {
	if len(h.done) == 0 {
		return requests
	}
	return slices.DeleteFunc(slices.Clone(requests), func(r proto.Request) bool { return h.done[r.Index] })
}

// applyNote takes in the note of a worker that had the shard before.
func (h *deliveryHistory) applyNote(n proto.DeliveryNote) {
	if n.Isolated {
		if h.isolated == nil {
			h.isolated = map[uint32]int{}
		}
		h.isolated[n.Index]++
		return
	}

	if len(n.Sent) > 0 {
		if h.sent == nil {
			h.sent = map[uint32]bool{}
		}
		for _, index := range n.Sent {
			h.sent[index] = true
		}
		return
	}

	h.unacked--
	clear(h.isolated)
	clear(h.sent)

	if h.crashes == nil && len(n.Crashes) > 0 {
		h.crashes = map[uint32]int{}
	}

	for index, crashes := range n.Crashes {
		// Whatever the note says, the request gets the chance that decides: alone, here.
		h.crashes[index] = max(h.crashes[index], min(crashes, isolateAfter))
	}
}

// setDone notes that a request has a result.
func (h *deliveryHistory) setDone(index uint32) {
	if h.done == nil {
		h.done = map[uint32]bool{}
	}
	h.done[index] = true
}

// loadHistory reads from the bus which requests have a result, and the notes of workers that
// had the shard before. It does so for every shard: neither a delivery count nor a fresh
// connection proves that no worker had the shard before, and the lookup costs one round trip
// for a whole shard.
func (j *shardJob) loadHistory(ctx context.Context, requests []proto.Request) (deliveryHistory, error) {
	var history deliveryHistory
	if meta, err := j.msg.Metadata(); err == nil {
		history.unacked = int(meta.NumDelivered) - 1 // a hint: a server that was killed forgets it
	}

	jobs := j.jobs
	select {
	case jobs.lookups <- struct{}{}:
		defer func() { <-jobs.lookups }()
	case <-ctx.Done():
		return history, context.Cause(ctx)
	}

	stream, subject := proto.ResultsStream(j.run.id), proto.ResultsSubject(j.run.id, j.id)
	last, err := withTimeout(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return bus.LastMessage(ctx, jobs.js, stream, subject)
	})

	isFirst := errors.Is(err, jetstream.ErrMsgNotFound)
	if err != nil && !isFirst {
		return history, fmt.Errorf("look up results of shard %s: %w", j.id, err)
	}

	if !isFirst || history.unacked > 0 {
		jobs.stats.Redelivered.Add(1)
		jobs.usage.countRedelivery(j.run.id)
	}

	if isFirst {
		return history, nil
	}

	for at := uint64(1); at <= last.Sequence; {
		msg, err := withTimeout(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
			return bus.NextMessage(ctx, jobs.js, stream, at, subject)
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return history, fmt.Errorf("read results of shard %s: %w", j.id, err)
		}

		at = msg.Sequence + 1
		if err := j.applyMessage(ctx, &history, msg, requests); err != nil {
			return history, fmt.Errorf("read results of shard %s: %w", j.id, err)
		}
	}

	return history, nil
}

// applyMessage takes in a message of the shard's results subject. The message may keep requests
// from being run, so it is checked against the shard, and a message that the collector would drop
// is ignored. It returns an error only if reading the message may succeed another time.
func (j *shardJob) applyMessage(
	ctx context.Context, history *deliveryHistory, msg *jetstream.RawStreamMsg, requests []proto.Request,
) error {
	if proto.IsDeliveryNote(msg.Header) {
		note, err := j.run.bounds.ParseDeliveryNote(j.id, msg.Subject, msg.Header, requests)
		if err != nil {
			j.countDropped(nil, err)
			return nil
		}

		history.applyNote(note)
		return nil
	}

	batch, lines, err := j.run.readBatch(ctx, msg)
	if bus.IsUnrecoverable(err) {
		j.countDropped(nil, err)
		return nil
	}
	if err != nil {
		return err
	}

	var scan jsonscan.Scanner
	for i, index := range batch.Indexes {
		line, err := batch.ParseLine(&scan, i, lines[i])
		if err == nil {
			err = checkResult(requests, index, line)
		}
		if err != nil {
			j.countDropped(line.Worker, err)
			continue
		}

		history.setDone(index)
	}

	return nil
}

// checkResult returns why a line cannot be the result of a request of the shard, or nil.
func checkResult(requests []proto.Request, index uint32, line proto.Line) error {
	i, found := slices.BinarySearchFunc(requests, index, func(r proto.Request, index uint32) int {
		return cmp.Compare(r.Index, index)
	})

	var field, why string
	switch {
	case !found:
		field, why = proto.HeaderIndexes, fmt.Sprintf("the shard has no request %d", index)
	case !jsonscan.SameText(line.CustomID, requests[i].CustomID):
		field, why = "custom_id", fmt.Sprintf("belongs to another request than %d", index)
	case line.RequestHash != requests[i].Hash():
		field, why = "promptmill.request_hash", fmt.Sprintf("belongs to another request than %d", index)
	default:
		return nil
	}

	return &proto.FieldError{Field: field, Why: why}
}

// countDropped counts a message, or a line of one, that does not fit. The first one of a kind
// and a worker is logged.
func (j *shardJob) countDropped(worker []byte, err error) {
	if j.jobs.dropped.Add(proto.ErrorField(err), string(worker)) {
		j.jobs.log.Warn().Err(err).Str("run", j.run.id).Str("shard", j.id).Str("worker", string(worker)).
			Msg("ignored earlier results of a shard that do not fit it; more of this kind are only counted")
	}
}
