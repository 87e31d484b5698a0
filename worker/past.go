package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// past is what became of a shard before this worker got it.
type past struct {
	done   map[uint32]bool
	deaths map[uint32]int // of model servers, while they had a request
	alone  map[uint32]int // how often a request was run alone and never ended
	lost   int            // deliveries after which the worker gave no sign of life
}

// deathsOf is how often a server, or a worker, died while it had a request. A worker
// that vanishes once proves nothing: boxes do. But the third chance of a request is
// alone, and so is the one after a worker has vanished with it.
func (p past) deathsOf(seq uint32) int {
	n := p.deaths[seq]
	if p.alone[seq] > 0 {
		n = max(n, aloneAfter)
	}
	if p.lost >= aloneAfter {
		n = max(n, p.lost)
	}
	return n
}

// missing returns the requests that have no result on the bus yet, and what else is
// told of the shard there. Every shard is asked about: neither a delivery count nor a
// fresh connection proves that nobody worked on it before, and the question costs one
// round trip for a whole shard.
func (h *held) missing(ctx context.Context, requests []proto.Request) ([]proto.Request, past, error) {
	p := past{done: map[uint32]bool{}, deaths: map[uint32]int{}, alone: map[uint32]int{}}
	if meta, err := h.msg.Metadata(); err == nil {
		p.lost = int(meta.NumDelivered) - 1 // a hint: a server that was killed forgets it
	}
	stream := h.feed.results
	subject := proto.ResultsSubject(h.feed.run, h.id)
	last, err := withTimeout(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return stream.GetLastMsgForSubject(ctx, subject)
	})
	fresh := errors.Is(err, jetstream.ErrMsgNotFound)
	if err != nil && !fresh {
		return requests, p, fmt.Errorf("look for results of shard %s: %w", h.id, err)
	}
	if !fresh || p.lost > 0 {
		h.w.stats.Redelivered.Add(1)
		h.w.shares.redelivered(h.feed.run)
	}
	if fresh {
		return requests, p, nil
	}
	for at := uint64(1); at <= last.Sequence; {
		msg, err := withTimeout(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
			return stream.GetMsg(ctx, at, jetstream.WithGetMsgSubject(subject))
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return requests, p, fmt.Errorf("read results of shard %s: %w", h.id, err)
		}
		at = msg.Sequence + 1
		p.read(msg)
	}
	return slices.DeleteFunc(slices.Clone(requests), func(r proto.Request) bool { return p.done[r.Seq] }), p, nil
}

// read takes in a message of the shard's results subject.
func (p *past) read(msg *jetstream.RawStreamMsg) {
	if !proto.IsMark(msg.Header) {
		seqs, err := proto.ResultSeqs(msg.Header)
		if err != nil {
			return // the collector drops it too
		}
		for _, seq := range seqs {
			p.done[seq] = true
		}
		return
	}
	mark, err := proto.ParseMark(msg.Header)
	switch {
	case err != nil: // of a later version: it says no more than we know
	case mark.Back:
		p.lost--
		clear(p.alone)
		for seq, n := range mark.Deaths {
			p.deaths[seq] = max(p.deaths[seq], n)
		}
	default:
		p.alone[uint32(mark.Alone)]++
	}
}

// poison reports whether workers died of a request alone. One may only have been away for
// a while, and be at work on it still.
func (p past) poison(seq uint32) bool { return p.alone[seq] >= 2 }

// giveBack hands a shard back to the bus, after a wait, and notes that nobody died of
// it, but for the deaths of model servers. The note is a hint, and not waited for.
func (w *Worker) giveBack(run string, msg jetstream.Msg, shard string, deaths map[uint32]int, wait time.Duration) {
	if shard != "" {
		if _, err := w.cfg.JS.PublishMsgAsync(proto.EncodeMark(run, shard, proto.Mark{Back: true, Deaths: deaths})); err != nil {
			w.cfg.Log.Debug().Err(err).Str("shard", shard).Msg("note that a shard was handed back")
		}
	}
	if wait > 0 {
		msg.NakWithDelay(wait)
	} else {
		msg.Nak()
	}
}
