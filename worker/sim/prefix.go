package sim

import (
	"container/list"
	"hash/fnv"
	"slices"
)

// promptCache is what a server keeps of the prompts that it has read. The engine calls it
// under its lock.
type promptCache interface {
	// startJob takes in the prompt of a request that begins to run. It returns how many of its
	// tokens are there, and for how long, as progress, others of them are still computed by
	// another request.
	startJob(j *job, progress float64) (cached int, wait float64)

	// endJob notes that a request does not run any more. Its answered is how far it came.
	endJob(j *job)
}

// newPromptCache returns the cache of a flavour, nil for none.
func newPromptCache(flavour Flavour, tokens, slots int) promptCache {
	switch {
	case tokens <= 0:
		return nil
	case flavour == LlamaCPP:
		return &slotCache{slots: make([]promptSlot, slots), similar: slotSimilarity, most: tokens}
	case flavour == Ollama:
		return &slotCache{slots: make([]promptSlot, slots)}
	}

	return &blockCache{
		most:   tokens / block,
		early:  flavour == VLLM,
		blocks: map[uint64]*list.Element{},
		used:   list.New(),
	}
}

// block is how many tokens of a prompt are cached as one, as vLLM does.
const block = 16

// blockCache shares whole blocks among all requests, each known by all that comes before
// it. The blocks that were not used for the longest time make room for others.
//
// A block is there as soon as it is computed. With vLLM others share it before that: a
// request's blocks are entered when it is scheduled, and whoever is scheduled later is
// computed in the same step or a later one (vLLM 0.32, v1/core/kv_cache_manager.py,
// allocate_slots). SGLang enters them in its tree after the step.
type blockCache struct {
	most  int  // blocks
	early bool // a block is shared while it is computed

	blocks map[uint64]*list.Element // of *cachedBlock, by hash
	used   *list.List               // the latest first
}

type cachedBlock struct {
	hash uint64 // of the prompt up to its end
	by   *reading
}

// reading is a request's time with its prompt.
type reading struct {
	job  *job
	over bool // the job does not run any more
	lost bool // it stopped before the prompt was read
}

// timeLeft is how much longer the prompt is read, as progress.
func (r *reading) timeLeft(progress float64) float64 {
	if r.over {
		return 0
	}
	return max(0, r.job.begin+r.job.ttft-progress-0.5)
}

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

// touchBlock uses a block and returns who computes it, or has. If nobody has, it is by.
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

func (c *blockCache) endJob(j *job) {
	j.reading.over, j.reading.lost = true, j.answered == 0
}

// slotSimilarity is the part of a prompt that a slot of llama.cpp must have to be taken
// for it (--slot-prompt-similarity).
const slotSimilarity = 0.1

// slotCache has each slot keep its last prompt. A request takes the idle slot that has most
// of its prompt; what a busy slot has is of no use to it.
//
// Where it has a host-memory cache, idle slots are copied there when a request begins, and a
// slot that is taken for another prompt loads from there what fits best (llama.cpp's
// tools/server/server-context.cpp, get_available_slot, and server-task.cpp,
// server_prompt_cache, of b11434; --cache-ram, --cache-idle-slots). Ollama has none, and
// takes the slot with the longest common beginning however short that is
// (runner/ollamarunner/cache.go, findLongestCacheSlot).
type slotCache struct {
	slots   []promptSlot
	similar float64 // part of a prompt that a slot must have
	most    int     // tokens of host memory; 0: none
	clock   int     // of uses

	host []cachedPrompt // the oldest first
}

// promptSlot is a sequence of the server's.
type promptSlot struct {
	cachedPrompt
	busy bool
	used int // when it was idle again
}

// cachedPrompt is a prompt with its answer. The next prompt differs from it where the answer
// begins at the latest.
type cachedPrompt struct {
	text   []byte
	answer int // tokens
}

func (k cachedPrompt) tokenCount() int {
	if len(k.text) == 0 {
		return 0
	}
	return countTokens(k.text) + k.answer
}

// commonTokens is how many tokens two prompts share from their beginning.
func (k cachedPrompt) commonTokens(text []byte) int {
	n := min(len(k.text), len(text))
	for i := range n {
		if k.text[i] != text[i] {
			return i / bytesPerToken
		}
	}
	return n / bytesPerToken
}

func (c *slotCache) startJob(j *job, _ float64) (cached int, wait float64) {
	at, common := c.chooseSlot(j.text)
	if at < 0 { // the engine has more slots than it began with
		c.slots = append(c.slots, promptSlot{})
		at = len(c.slots) - 1
	}

	s := &c.slots[at]
	if common == 0 || 2*common < s.tokenCount() { // most of what it has would be lost
		c.saveToHost(s.cachedPrompt)
		c.loadFromHost(s, j.text)
	}

	cached = s.commonTokens(j.text)
	s.cachedPrompt, s.busy = cachedPrompt{text: j.text}, true
	j.slot = at

	for _, other := range c.slots {
		if !other.busy {
			c.saveToHost(other.cachedPrompt)
		}
	}

	return cached, 0
}

// chooseSlot returns the idle slot for a prompt, and how much of it that has; 0 for one that
// was not used for the longest time. It returns -1 if there is none.
func (c *slotCache) chooseSlot(text []byte) (at, common int) {
	at, oldest, most := -1, -1, c.similar*float64(countTokens(text))
	for i, s := range c.slots {
		if s.busy {
			continue
		}

		if n := s.commonTokens(text); float64(n) > most {
			at, common, most = i, n, float64(n)
		}

		if oldest < 0 || s.used < c.slots[oldest].used {
			oldest = i
		}
	}

	if at < 0 {
		at = oldest
	}

	return at, common
}

// saveToHost copies a prompt to the host's memory.
func (c *slotCache) saveToHost(k cachedPrompt) {
	if k.tokenCount() == 0 || k.tokenCount() > c.most {
		return
	}

	has := func(a, b cachedPrompt) bool {
		return len(a.text) >= len(b.text) && string(a.text[:len(b.text)]) == string(b.text)
	}
	if slices.ContainsFunc(c.host, func(other cachedPrompt) bool { return has(other, k) }) {
		return
	}

	c.host = slices.DeleteFunc(c.host, func(other cachedPrompt) bool { return has(k, other) })
	total := k.tokenCount()
	for _, other := range c.host {
		total += other.tokenCount()
	}

	for total > c.most {
		total -= c.host[0].tokenCount()
		c.host = c.host[1:]
	}

	c.host = append(c.host, k)
}

// loadFromHost moves the prompt that fits best from the host's memory to a slot, if it fits
// better than the slot's. One of which little would be used stays.
func (c *slotCache) loadFromHost(s *promptSlot, text []byte) {
	share := func(k cachedPrompt) (used, fits float64) {
		n := float64(k.commonTokens(text))
		return n / float64(max(1, k.tokenCount())), n / float64(countTokens(text))
	}

	best := -1
	bestUsed, bestFits := share(s.cachedPrompt)
	for i, k := range c.host {
		if used, fits := share(k); used >= 0.25 && used > bestUsed && fits > bestFits {
			best, bestUsed, bestFits = i, used, fits
		}
	}

	if best >= 0 {
		s.cachedPrompt = c.host[best]
		c.host = slices.Delete(c.host, best, best+1)
	}
}

func (c *slotCache) endJob(j *job) {
	s := &c.slots[j.slot]
	c.clock++
	s.answer, s.busy, s.used = j.answered, false, c.clock
	if j.answered == 0 { // the prompt was not read to its end
		s.cachedPrompt = cachedPrompt{}
	}
}
