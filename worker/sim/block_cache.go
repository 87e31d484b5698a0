package sim

import (
	"container/list"
	"hash/fnv"
)

// block is the number of tokens that are cached as one, as in vLLM.
const block = 16

// blockCache shares whole blocks among all requests, each known by everything that comes before
// it. The blocks that were unused for the longest time make room for others.
//
// A block is there as soon as it is computed. With vLLM others share it before that: a
// request's blocks are entered when it is scheduled, and requests scheduled later are computed in
// the same step or a later one (vLLM 0.32, v1/core/kv_cache_manager.py, allocate_slots). SGLang
// enters them in its tree after the step.
type blockCache struct {
	most  int  // blocks
	early bool // a block is shared while it is computed

	blocks map[uint64]*list.Element // of *cachedBlock, by hash
	used   *list.List               // the latest first
}

// cachedBlock is a block in the cache.
type cachedBlock struct {
	hash uint64 // of the prompt up to its end
	by   *reading
}

// reading is the time that a job takes to read its prompt.
type reading struct {
	job  *job
	over bool // the job does not run any more
	lost bool // it stopped before the prompt was read
}

// timeLeft returns how much longer the prompt is read, as progress.
func (r *reading) timeLeft(progress float64) float64 {
	if r.over {
		return 0
	}
	return max(0, r.job.begin+r.job.ttft-progress-0.5)
}

// startJob implements promptCache.
func (c *blockCache) startJob(j *job, progress float64) (cached int, wait float64) {
	j.reading = &reading{job: j}
	h, missed := fnv.New64a(), false
	for text := j.text; len(text) >= block*bytesPerToken; text = text[block*bytesPerToken:] {
		h.Write(text[:block*bytesPerToken])
		by := c.touchBlock(h.Sum64(), j.reading)
		left := by.timeLeft(progress)
		missed = missed || by == j.reading || left > 0 && !c.early
		if !missed {
			cached += block
			wait = max(wait, left)
		}
	}

	return cached, wait
}

// touchBlock uses a block and returns the reading that computes it, or has. For a new block
// that is by.
func (c *blockCache) touchBlock(hash uint64, by *reading) *reading {
	e, ok := c.blocks[hash]
	if !ok {
		c.blocks[hash] = c.used.PushFront(&cachedBlock{hash, by})
		if c.used.Len() > c.most {
			delete(c.blocks, c.used.Remove(c.used.Back()).(*cachedBlock).hash)
		}
		return by
	}

	c.used.MoveToFront(e)

	b := e.Value.(*cachedBlock)
	if b.by.lost {
		b.by = by
	}

	return b.by
}

// endJob implements promptCache.
func (c *blockCache) endJob(j *job) {
	j.reading.over, j.reading.lost = true, j.answered == 0
}
