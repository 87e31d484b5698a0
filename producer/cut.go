package producer

import (
	"cmp"
	"slices"

	"github.com/promptmill/promptmill/proto"
)

// barrier is after how many requests all open shards are closed, so that a run with
// many models has points where publishing can go on, too.
const barrier = 4096

// cutter gathers requests into shards, one for each model at a time. Its shards are
// a pure function of the settings and the requests, so that a producer that starts
// over cuts the same ones.
type cutter struct {
	settings proto.Settings
	round    int
	index    uint64 // of the next shard
	left     int    // requests still to come
	open     map[string]*openShard
	order    []string // models with an open shard, oldest first
}

type openShard struct {
	requests []proto.Request
	bytes    int
	limit    int // requests
}

// cut is a finished shard.
type cut struct {
	model string
	index uint64
	shard proto.Shard
}

func newCutter(s proto.Settings, round, requests int) *cutter {
	return &cutter{
		settings: s.WithDefaults(),
		round:    round,
		left:     requests,
		open:     map[string]*openShard{},
	}
}

// add takes the next request and calls emit with each shard that it completes.
func (c *cutter) add(r proto.Request, model string, emit func(cut) error) error {
	size := len(r.Body) + len(r.CustomID)
	s := c.open[model]
	if s != nil && s.bytes+size > c.settings.ShardBytes {
		if err := c.close(model, emit); err != nil {
			return err
		}
		s = nil
	}

	if s == nil {
		s = &openShard{limit: c.limit()}
		c.open[model] = s
		c.order = append(c.order, model)
	}

	s.requests = append(s.requests, r)
	s.bytes += size
	c.left--
	if len(s.requests) >= s.limit || s.bytes >= c.settings.ShardBytes {
		if err := c.close(model, emit); err != nil {
			return err
		}
	}

	if c.left%barrier == 0 {
		return c.flush(emit)
	}

	return nil
}

// limit is the size of a shard that starts now: guided self-scheduling, so that
// toward the end no box is left with much more to do than the others. (Polychronopoulos
// and Kuck, 1987.)
func (c *cutter) limit() int {
	capacity := c.settings.Capacity
	if !c.settings.GroupByPrefix { // each shard reads its beginnings once more
		capacity *= 4 // leaves room for requests of very different lengths
	}
	return max(1, min(c.settings.ShardSize, c.left/capacity))
}

// flush closes all open shards.
func (c *cutter) flush(emit func(cut) error) error {
	for len(c.order) > 0 {
		if err := c.close(c.order[0], emit); err != nil {
			return err
		}
	}
	return nil
}

// clean reports whether no shard is open.
func (c *cutter) clean() bool { return len(c.order) == 0 }

func (c *cutter) close(model string, emit func(cut) error) error {
	s := c.open[model]
	delete(c.open, model)

	for i, m := range c.order {
		if m == model {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}

	// They may come in another order than that of the input: see [window].
	slices.SortFunc(s.requests, func(a, b proto.Request) int { return cmp.Compare(a.Index, b.Index) })
	done := cut{
		model: model,
		index: c.index,
		shard: proto.Shard{ID: proto.ShardID(c.round, c.index), Requests: s.requests},
	}

	c.index++

	return emit(done)
}
