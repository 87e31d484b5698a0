package sim

import "slices"

// slotSimilarity is the part of a prompt that a slot of llama.cpp must have to be chosen for it
// (--slot-prompt-similarity).
const slotSimilarity = 0.1

// slotCache has each slot keep its last prompt. A request takes the idle slot that has most of
// its prompt; the prompt of a busy slot is of no use to it.
//
// With a host-memory cache, idle slots are copied there when a request begins, and a slot that
// is taken for another prompt loads from there the prompt that fits best (llama.cpp's
// tools/server/server-context.cpp, get_available_slot, and server-task.cpp,
// server_prompt_cache, of b11434; --cache-ram, --cache-idle-slots). Ollama has no such cache,
// and takes the slot with the longest common beginning however short that is
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
	used int // when it became idle
}

// cachedPrompt is a prompt with its answer. The next prompt differs from it where the answer
// begins at the latest.
type cachedPrompt struct {
	text   []byte
	answer int // tokens
}

// tokenCount returns the number of tokens of the prompt and its answer.
func (k cachedPrompt) tokenCount() int {
	if len(k.text) == 0 {
		return 0
	}
	return countTokens(k.text) + k.answer
}

// commonTokens returns how many tokens two prompts share from their beginning.
func (k cachedPrompt) commonTokens(text []byte) int {
	n := min(len(k.text), len(text))
	for i := range n {
		if k.text[i] != text[i] {
			return i / bytesPerToken
		}
	}
	return n / bytesPerToken
}

// startJob implements promptCache.
func (c *slotCache) startJob(j *job, _ float64) (cached int, wait float64) {
	at, common := c.chooseSlot(j.text)
	if at < 0 { // the engine has more slots than it began with
		c.slots = append(c.slots, promptSlot{})
		at = len(c.slots) - 1
	}

	s := &c.slots[at]
	if common == 0 || 2*common < s.tokenCount() { // most of its prompt would be lost
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

// chooseSlot returns the idle slot for a prompt, and how many of its tokens that has; 0 for the
// slot that was unused for the longest time. It returns -1 if no slot is idle.
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
// better than the slot's. A prompt of which little would be used stays.
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

// endJob implements promptCache.
func (c *slotCache) endJob(j *job) {
	s := &c.slots[j.slot]
	c.clock++
	s.answer, s.busy, s.used = j.answered, false, c.clock
	if j.answered == 0 { // the prompt was not read to its end
		s.cachedPrompt = cachedPrompt{}
	}
}
