package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// deliveryHistory is what became of a shard before this worker got it.
type deliveryHistory struct {
	done     map[uint32]bool
	crashes  map[uint32]int // of model servers, while they had a request
	isolated map[uint32]int // how often a request was run alone and never ended
	unacked  int            // deliveries after which the worker gave no sign of life
}

// crashCount is how often a server, or a worker, died while it had a request. A worker
// that vanishes once proves nothing: boxes do. But the third chance of a request is
// alone, and so is the one after a worker has vanished with it.
func (p deliveryHistory) crashCount(seq uint32) int {
	n := p.crashes[seq]
	if p.isolated[seq] > 0 {
		n = max(n, aloneAfter)
	}
	if p.unacked >= aloneAfter {
		n = max(n, p.unacked)
	}

	return n
}

// findMissing returns the requests that have no result on the bus yet, and what else is
// told of the shard there. Every shard is asked about: neither a delivery count nor a
// fresh connection proves that nobody worked on it before, and the question costs one
// round trip for a whole shard.
func (h *shardJob) findMissing(ctx context.Context, requests []proto.Request) ([]proto.Request, deliveryHistory, error) {
	p := deliveryHistory{done: map[uint32]bool{}, crashes: map[uint32]int{}, isolated: map[uint32]int{}}
	if meta, err := h.msg.Metadata(); err == nil {
		p.unacked = int(meta.NumDelivered) - 1 // a hint: a server that was killed forgets it
	}

	select {
	case h.w.lookups <- struct{}{}:
		defer func() { <-h.w.lookups }()
	case <-ctx.Done():
		return requests, p, context.Cause(ctx)
	}

	js, stream := h.w.cfg.JS, proto.ResultsStream(h.run.id)
	subject := proto.ResultsSubject(h.run.id, h.id)
	last, err := withTimeout(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return bus.LastMessage(ctx, js, stream, subject)
	})

	fresh := errors.Is(err, jetstream.ErrMsgNotFound)
	if err != nil && !fresh {
		return requests, p, fmt.Errorf("look for results of shard %s: %w", h.id, err)
	}

	if !fresh || p.unacked > 0 {
		h.w.stats.Redelivered.Add(1)
		h.w.usage.countRedelivery(h.run.id)
	}

	if fresh {
		return requests, p, nil
	}

	for at := uint64(1); at <= last.Sequence; {
		msg, err := withTimeout(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
			return bus.NextMessage(ctx, js, stream, at, subject)
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return requests, p, fmt.Errorf("read results of shard %s: %w", h.id, err)
		}

		at = msg.Sequence + 1
		if err := h.applyMessage(ctx, &p, msg, requests); err != nil {
			return requests, p, fmt.Errorf("read results of shard %s: %w", h.id, err)
		}
	}

	return slices.DeleteFunc(slices.Clone(requests), func(r proto.Request) bool { return p.done[r.Index] }), p, nil
}

// applyMessage takes in a message of the shard's results subject. What it says keeps requests from
// being run, so it is held against the shard, and what the collector drops counts for
// nothing. It returns an error if the message could be read another time.
func (h *shardJob) applyMessage(ctx context.Context, p *deliveryHistory, msg *jetstream.RawStreamMsg, requests []proto.Request) error {
	if proto.IsDeliveryNote(msg.Header) {
		mark, err := h.run.bounds.ParseDeliveryNote(h.id, msg.Subject, msg.Header, requests)
		if err != nil {
			h.countDropped(msg.Subject, nil, err)
			return nil
		}

		p.applyNote(mark)
		return nil
	}

	batch, lines, err := h.openBatch(ctx, msg)
	if bus.IsUnrecoverable(err) {
		h.countDropped(msg.Subject, nil, err)
		return nil
	}
	if err != nil {
		return err
	}

	var scan jsonscan.Scanner
	for i, seq := range batch.Indexes {
		line, err := batch.ParseLine(&scan, i, lines[i])
		if err == nil {
			err = checkResult(requests, seq, line)
		}
		if err != nil {
			h.countDropped(msg.Subject, line.Worker, err)
			continue
		}

		p.done[seq] = true
	}

	return nil
}

// openBatch reads a message of results, as far as its lines.
func (h *shardJob) openBatch(ctx context.Context, msg *jetstream.RawStreamMsg) (batch proto.Batch, lines [][]byte, err error) {
	batch, err = h.run.bounds.ParseBatch(msg.Subject, msg.Header)
	if err != nil {
		return batch, nil, err
	}

	payload, err := h.run.answers.Payload(ctx, msg.Header, msg.Data)
	if err != nil {
		return batch, nil, err
	}

	lines, err = batch.SplitLines(payload)

	return batch, lines, err
}

// checkResult says why a line cannot be the result of a request of the shard, or nil.
func checkResult(requests []proto.Request, seq uint32, line proto.Line) error {
	i, found := slices.BinarySearchFunc(requests, seq, func(r proto.Request, seq uint32) int {
		return cmp.Compare(r.Index, seq)
	})
	switch {
	case !found:
		return &proto.FieldError{Field: proto.HeaderIndexes, Why: fmt.Sprintf("the shard has no request %d", seq)}
	case !jsonscan.SameText(line.CustomID, requests[i].CustomID):
		return &proto.FieldError{Field: "custom_id", Why: fmt.Sprintf("that of another request than %d", seq)}
	case line.RequestHash != requests[i].Hash():
		return &proto.FieldError{
			Field: "promptmill.request_hash",
			Why:   fmt.Sprintf("that of another request than %d", seq),
		}
	}

	return nil
}

// countDropped counts a message, or a line of one, that does not fit. The first of a kind and a
// worker is logged.
func (h *shardJob) countDropped(subject string, worker []byte, err error) {
	if h.w.dropped.Add(proto.ErrorField(err), string(worker)) {
		h.w.cfg.Log.Warn().Err(err).Str("subject", subject).Str("worker", string(worker)).
			Msg("ignored earlier results of a shard that do not fit it; more of this kind are only counted")
	}
}

// applyNote takes in a note of a worker that had the shard before.
func (p *deliveryHistory) applyNote(m proto.DeliveryNote) {
	if !m.Returned {
		p.isolated[uint32(m.Isolated)]++
		return
	}

	p.unacked--
	clear(p.isolated)

	for seq, n := range m.Crashes {
		// Whatever it says, the request gets the chance that decides: alone, here.
		p.crashes[seq] = max(p.crashes[seq], min(n, aloneAfter))
	}
}

// isPoison reports whether workers died of a request alone. One may only have been away for
// a while, and be at work on it still.
func (p deliveryHistory) isPoison(seq uint32) bool { return p.isolated[seq] >= 2 }

// returnShard hands a shard back to the bus, after a wait, and notes that nobody died of
// it, but for the deaths of model servers. The note is a hint, and not waited for.
func (w *Worker) returnShard(run string, msg jetstream.Msg, shard string, deaths map[uint32]int, wait time.Duration) {
	if shard != "" {
		if _, err := w.cfg.JS.PublishMsgAsync(
			proto.EncodeDeliveryNote(run, shard, proto.DeliveryNote{Returned: true, Crashes: deaths}),
		); err != nil {
			w.cfg.Log.Debug().Err(err).Str("shard", shard).Msg("note that a shard was handed back")
		}
	}

	if wait > 0 {
		msg.NakWithDelay(wait)
	} else {
		msg.Nak()
	}
}
