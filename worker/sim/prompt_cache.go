package sim

import "container/list"

// promptCache holds the prompts that a server keeps. The engine calls it under its lock.
type promptCache interface {
	// startJob takes the prompt of a job that begins to run. It returns how many of its tokens
	// are cached, and for how long, as progress, another job still computes others of them.
	startJob(j *job, progress float64) (cached int, wait float64)

	// endJob records that a job does not run any more; its answered is the number of tokens
	// that it has got.
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
