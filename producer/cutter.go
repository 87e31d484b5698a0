package producer

import (
	"cmp"
	"slices"

	"github.com/promptmill/promptmill/proto"
)

// barrier is the number of requests after which all open shards are closed, so that a run with
// many models has checkpoints too.
const barrier = 4096

// cutter gathers requests into shards, one for each model at a time. Its shards are
// a pure function of the settings and the requests, so that a producer that starts
// over cuts the same shards.
type cutter struct {
	settings proto.Settings
	round    int
	// index is the index of the next shard.
	index uint64
	// left counts the requests still to come.
	left int
	open map[string]*openShard
	// order has the models with an open shard, oldest first.
	order  []string
	closed []modelShard
}

// openShard gathers requests for a model.
type openShard struct {
	requests []proto.Request
	bytes    int
	// limit is the most requests of the shard.
	limit int
}

// modelShard is a shard, its model and its index in the round.
type modelShard struct {
	model string
	index uint64
	shard proto.Shard
}

// newCutter returns the cutter of a round with this number of requests.
func newCutter(s proto.Settings, round, requests int) *cutter {
	return &cutter{
		settings: s.WithDefaults(),
		round:    round,
		left:     requests,
		open:     map[string]*openShard{},
	}
}

// add takes the next request, and closes the shards that it completes.
func (c *cutter) add(r proto.Request, model string) {
	size := len(r.Body) + len(r.CustomID)

	s := c.open[model]
	if s != nil && s.bytes+size > c.settings.ShardBytes {
		c.closeShard(model)
		s = nil
	}

	if s == nil {
		s = &openShard{limit: c.maxRequests()}
		c.open[model] = s
		c.order = append(c.order, model)
	}

	s.requests = append(s.requests, r)
	s.bytes += size
	c.left--

	if len(s.requests) >= s.limit || s.bytes >= c.settings.ShardBytes {
		c.closeShard(model)
	}

	if c.left%barrier == 0 {
		c.closeAll()
	}
}

// takeClosed returns the shards that were closed since the last call, in order. They are valid
// until the next request is added.
func (c *cutter) takeClosed() []modelShard {
	closed := c.closed
	c.closed = c.closed[:0]

	return closed
}

// shardsPerWorker is the least number of shards that are left for each worker when a shard starts.
// With 4, a worker whose requests take four times as long as those of others, or four times as many
// workers as the run counts with, still end together.
const shardsPerWorker = 4

// maxRequests is the size of a shard that starts now: guided self-scheduling (Polychronopoulos and
// Kuck, 1987), so that toward the end no worker is left with much more to do than the others. A
// worker takes what fits its free slots, so workers are counted, not slots: the last shard holds
// up a worker only by the requests of it that find no free slot.
func (c *cutter) maxRequests() int {
	s := c.settings

	shards := shardsPerWorker * s.Workers
	if s.Workers == 0 {
		shards = shardsByCapacity(s)
	}

	return max(1, min(s.ShardSize, c.left/shards))
}

// shardsByCapacity returns the least number of shards that are left when a shard starts, for a run
// that began when slots were counted. It must be cut as it began.
func shardsByCapacity(s proto.Settings) int {
	if s.GroupByPrefix {
		return s.Capacity
	}
	return 4 * s.Capacity
}

// closeAll closes all open shards.
func (c *cutter) closeAll() {
	for len(c.order) > 0 {
		c.closeShard(c.order[0])
	}
}

// isEmpty reports whether no shard is open.
func (c *cutter) isEmpty() bool { return len(c.order) == 0 }

// closeShard closes the open shard of a model.
func (c *cutter) closeShard(model string) {
	s := c.open[model]
	delete(c.open, model)

	i := slices.Index(c.order, model)
	c.order = slices.Delete(c.order, i, i+1)

	// The requests may come in another order than in the input: see [window].
	slices.SortFunc(s.requests, func(a, b proto.Request) int { return cmp.Compare(a.Index, b.Index) })

	c.closed = append(c.closed, modelShard{
		model: model,
		index: c.index,
		shard: proto.Shard{ID: proto.ShardID(c.round, c.index), Requests: s.requests},
	})

	c.index++
}
