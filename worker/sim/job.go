package sim

import (
	"container/list"
	"time"
)

// job is a request in the engine.
type job struct {
	prompt, completion int     // tokens
	factor             float64 // of its times

	// For the prompt cache.
	text     []byte   // of its prompt
	cached   int      // tokens of the prompt that were cached
	wait     float64  // for tokens that another request still computes
	reading  *reading // of the block cache
	slot     int      // of the slot cache
	answered int      // tokens of the answer when it last stopped

	generated int // tokens of all its answers, also of those that a preemption threw away

	place *list.Element // in the queue; nil while it runs
	index int           // in the heap
	order int64         // of admission

	begin, ttft, tpot, end float64 // as progress

	arrived   time.Time
	firstAt   time.Time // of the first token; zero: it has none, in this turn on the GPU
	seenFirst bool      // it had one, perhaps in an earlier turn

	done chan struct{} // closed at its end, after err is set
	err  error
}

// finish ends a job that is neither in the queue nor on the GPU.
func (j *job) finish(err error) {
	j.err = err
	close(j.done)
}

// jobHeap holds the running jobs, with the one that ends first at the top.
type jobHeap []*job

func (h jobHeap) Len() int           { return len(h) }
func (h jobHeap) Less(i, j int) bool { return h[i].end < h[j].end }
func (h jobHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *jobHeap) Push(x any) {
	j := x.(*job)
	j.index = len(*h)
	*h = append(*h, j)
}

func (h *jobHeap) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return j
}
