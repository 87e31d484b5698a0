package proto

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// HeaderMark makes a message on a shard's results subject a note of a worker to those
// who get the shard after it. It has no lines; who reads results passes over it.
const HeaderMark = "Pm-Mark"

// Mark is a worker's note about a shard. Deliveries alone do not tell how a shard was
// lost: a worker that stops hands it back, one that dies leaves it.
type Mark struct {
	// Back says that the worker handed the shard back, alive.
	Back bool
	// Deaths are how often the model server died while it had a request, by number.
	Deaths map[uint32]int
	// Alone is the request that the worker is about to run, and nothing else beside it;
	// -1: none. If no result follows, nor that the shard was handed back, it killed the
	// worker.
	Alone int64
}

// EncodeMark makes the message of a mark. Its header's value is "back" and the deaths
// as SEQ=COUNT, or "alone SEQ".
func EncodeMark(run, shard string, m Mark) *nats.Msg {
	var b strings.Builder
	if m.Back {
		b.WriteString("back")
		for seq, n := range m.Deaths {
			fmt.Fprintf(&b, " %d=%d", seq, n)
		}
	} else {
		fmt.Fprintf(&b, "alone %d", m.Alone)
	}
	msg := nats.NewMsg(ResultsSubject(run, shard))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, shard)
	msg.Header.Set(HeaderMark, b.String())
	return msg
}

// maxDeaths is the most deaths of a model server that a mark may tell of one request.
const maxDeaths = 1000

// Mark reads the mark of a shard that has the requests, in ascending order. Its error is
// of the type [Unfit] where the mark does not fit.
func (b Bounds) Mark(shard, subject string, h nats.Header, requests []Request) (Mark, error) {
	if err := b.checkShard(ResultsSubject(b.Run, shard), subject, h); err != nil {
		return Mark{}, err
	}
	if v := h.Get(HeaderVersion); v != Version {
		return Mark{}, NewUnfit(HeaderVersion, "%q, this program reads %q", Excerpt(v), Version)
	}
	if id := h.Get(HeaderShard); id != shard {
		return Mark{}, NewUnfit(HeaderShard, "%q on the subject of shard %s", Excerpt(id), shard)
	}
	m, err := ParseMark(h)
	if err != nil {
		return Mark{}, &Unfit{Field: HeaderMark, Why: err.Error()}
	}

	has := func(seq int64) bool {
		_, found := slices.BinarySearchFunc(requests, seq, func(r Request, seq int64) int { return cmp.Compare(int64(r.Seq), seq) })
		return found
	}
	if !m.Back && !has(m.Alone) {
		return Mark{}, NewUnfit(HeaderMark, "shard %s has no request %d", shard, m.Alone)
	}
	for seq, n := range m.Deaths {
		if !has(int64(seq)) || n > maxDeaths {
			return Mark{}, NewUnfit(HeaderMark, "%d deaths of request %d in shard %s", n, seq, shard)
		}
	}
	return m, nil
}

// IsMark reports whether a message on a results subject is a mark.
func IsMark(h nats.Header) bool { return h.Get(HeaderMark) != "" }

// ParseMark reads a mark out of a message's header.
func ParseMark(h nats.Header) (Mark, error) {
	text := h.Get(HeaderMark)
	kind, rest, _ := strings.Cut(text, " ")
	m := Mark{Back: kind == "back", Alone: -1}
	switch kind {
	case "alone":
		seq, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return Mark{}, fmt.Errorf("mark %q: %w: %w", Excerpt(text), ErrFormat, err)
		}
		m.Alone = int64(seq)
	case "back":
		m.Deaths = map[uint32]int{}
		for field := range strings.FieldsSeq(rest) {
			seq, count, _ := strings.Cut(field, "=")
			s, err := strconv.ParseUint(seq, 10, 32)
			n, countErr := strconv.ParseUint(count, 10, 16)
			if err != nil || countErr != nil {
				return Mark{}, fmt.Errorf("mark %q: %w", Excerpt(text), ErrFormat)
			}
			m.Deaths[uint32(s)] = int(n)
		}
	default:
		return Mark{}, fmt.Errorf("mark %q: %w: of no known kind", Excerpt(text), ErrFormat)
	}
	return m, nil
}
