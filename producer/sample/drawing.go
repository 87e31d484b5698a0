package sample

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto/jsonl"
)

// drawing chooses requests while the input is read.
type drawing struct {
	cfg    Config
	store  *lineStore
	fields fieldFinder

	// lengths are the lengths of all requests.
	lengths histogram
	// chosen are the requests with the smallest hashes so far, and some more. Once there are room of them, the
	// others go.
	chosen []candidate
	room   int
	// most is the largest hash that can be among the smallest ones.
	most uint64
	// line and answer are reused for each request.
	line, answer []byte
}

// candidate is a request that may be one of the sample.
type candidate struct {
	hash uint64
	// body is the length of its body.
	body int
	// at is the place of its line in the store, and behind it of the expected answer.
	at           int64
	line, answer int
	// known reports that the expected answer is known.
	known bool
}

// bytes returns how much of the store the candidate has.
func (c candidate) bytes() int64 { return int64(c.line) + int64(c.answer) }

// newDrawing returns a drawing that has not read anything.
func newDrawing(cfg Config) (*drawing, error) {
	if cfg.Size <= 0 {
		return nil, fmt.Errorf("sample: the size %d is not positive", cfg.Size)
	}

	store, err := newLineStore(cfg.Folder)
	if err != nil {
		return nil, err
	}

	const spare = 1024 // so that a small sample does not sort at each request

	return &drawing{
		cfg:   cfg,
		store: store,
		room:  cfg.Size + max(spare, min(cfg.Size, math.MaxInt-cfg.Size)),
		most:  math.MaxUint64,
	}, nil
}

// consider takes a request of the input.
func (d *drawing) consider(o producer.Original) error {
	d.lengths.add(len(o.Body))

	hash := producer.HashRow(int(o.Index) + 1)
	if hash > d.most {
		return nil
	}

	d.line = appendLine(d.line[:0], o.Request)
	if len(d.line) > jsonl.MaxLine+1 { // a short form of nearly 64 MiB, which has no room for the rest of the line
		return nil
	}

	known := false
	if d.cfg.Expect != "" {
		d.answer, known = d.fields.appendExpected(d.answer[:0], d.cfg.Expect, o)
	}

	at, err := d.store.add(d.line, d.answer)
	if err != nil {
		return err
	}

	d.chosen = append(d.chosen, candidate{
		hash:   hash,
		body:   len(o.Body),
		at:     at,
		line:   len(d.line),
		answer: len(d.answer),
		known:  known,
	})

	if len(d.chosen) >= d.room {
		d.drop()
		return d.store.compact(d.chosen)
	}

	return nil
}

// drop drops the candidates that cannot be among the smallest.
func (d *drawing) drop() {
	slices.SortFunc(d.chosen, func(a, b candidate) int { return cmp.Compare(a.hash, b.hash) })

	if len(d.chosen) > d.cfg.Size {
		d.chosen = d.chosen[:d.cfg.Size]
		d.most = d.chosen[d.cfg.Size-1].hash
	}
}

// finish returns the sample in its order, once the input was read.
func (d *drawing) finish() []candidate {
	d.drop()
	slices.SortFunc(d.chosen, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.body, b.body), cmp.Compare(a.hash, b.hash))
	})

	spread(d.chosen)

	return d.chosen
}
