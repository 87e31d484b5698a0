package sim

import (
	"container/list"
	"hash/fnv"
	"sync"
	"sync/atomic"
)

// block is how many tokens of a prompt are cached as one, as vLLM does.
const block = 16

// prefixCache is what a server keeps of the prompts that it has read: whole blocks, each
// known by all that comes before it. The blocks that were not used for the longest time
// make room for others.
type prefixCache struct {
	most int // blocks

	mu     sync.Mutex
	blocks map[uint64]*list.Element // by the hash of the prompt up to their end
	used   *list.List               // of these hashes, the latest first

	asked, hits atomic.Int64 // tokens of prompts, and those of them that were cached
}

func newPrefixCache(tokens int) *prefixCache {
	return &prefixCache{most: tokens / block, blocks: map[uint64]*list.Element{}, used: list.New()}
}

// read takes in a prompt, and returns how many of its tokens were there: never all, since
// the first token of the answer follows from the last of the prompt. As with vLLM, who
// comes next has the blocks while they are still being read.
func (c *prefixCache) read(prompt []byte) (cached int) {
	if c.most == 0 {
		return 0
	}
	tokens, missed := tokensOf(prompt), false
	c.mu.Lock()
	defer c.mu.Unlock()
	h := fnv.New64a()
	for ; len(prompt) >= block*bytesPerToken; prompt = prompt[block*bytesPerToken:] {
		h.Write(prompt[:block*bytesPerToken])
		known := c.keep(h.Sum64())
		missed = missed || !known
		if !missed {
			cached += block
		}
	}
	cached = min(cached, tokens-1)
	c.asked.Add(int64(tokens))
	c.hits.Add(int64(cached))
	return cached
}

// keep uses a block, and tells whether it was there.
func (c *prefixCache) keep(hash uint64) bool {
	if e, ok := c.blocks[hash]; ok {
		c.used.MoveToFront(e)
		return true
	}
	c.blocks[hash] = c.used.PushFront(hash)
	if c.used.Len() > c.most {
		delete(c.blocks, c.used.Remove(c.used.Back()).(uint64))
	}
	return false
}
