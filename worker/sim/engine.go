package sim

import (
	"container/heap"
	"container/list"
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// EngineConfig is how the simulated GPU works.
type EngineConfig struct {
	Slots int // requests that run at once; others wait, first in first out. Defaults to 256.
	// as many run at full speed; with more, each is slower, so that tokens/s stay flat. 0: no knee.
	Knee   int
	Thrash float64       // tokens/s even fall beyond the knee: by this fraction at twice the knee, and so on
	Jam    float64       // the part of its speed that it loses while requests wait
	TTFT   time.Duration // time to the first token, at full speed
	TPOT   time.Duration // time for each further token, at full speed
	KV     int           // tokens that the cache holds. 0: no bound.
	Queue  int           // requests that may wait; one more gets ErrBusy. 0: no bound.
}

// Load is how busy an engine is.
type Load struct {
	Running, Waiting int
	KVUsage          float64 // of the cache, 0 to 1; without a cache, of the slots

	// Counters. Tokens counts each token when it is generated, also those of
	// requests that are not done, and again those that a preemption threw away.
	// CachedTokens are those of the prompts that were not read, since they were cached.
	Preemptions, PromptTokens, CachedTokens, Tokens int64

	// Counters of the tokens of prompts of requests that began to run, and those of them
	// that were in the prompt cache.
	CacheQueries, CacheHits int64
}

var (
	// ErrBusy means that the queue is full.
	ErrBusy = errors.New("the queue is full")
	// ErrTooLong means that a request can never fit the cache.
	ErrTooLong = errors.New("the request is longer than the cache")
	// errDead means that the server has died.
	errDead = errors.New("the server has died")
)

// Engine is a simulated GPU that decodes many requests at once. All of them run at one
// speed, so that progress is a single number, the time that a request at full speed
// would have run for, and a request is known to be done when this reaches its end.
// Nothing but a timer for the next end runs meanwhile: thousands of requests cost no
// more than their arrivals and ends, in real as in synctest's time.
type Engine struct {
	mu      sync.Mutex
	cfg     EngineConfig
	cache   promptCache // nil: none
	hung    bool
	dead    bool
	running jobs       // by end
	waiting *list.List // of *job

	at       time.Time // until when the fields are up to date
	progress float64   // at that time, in ns
	check    time.Time // when the cache may be full
	timer    *time.Timer

	admitted                                        int64
	preemptions, promptTokens, cachedTokens, tokens int64 // without those of the running
	cacheQueries, cacheHits                         int64
}

// job is a request in the engine.
type job struct {
	prompt, completion int
	factor             float64 // of its times

	text     []byte   // of its prompt, for the cache
	cached   int      // tokens of the prompt that were there
	wait     float64  // for others of them, which another request computes
	reading  *reading // of the block cache
	slot     int      // of the slot cache
	answered int      // tokens of the answer when it last stopped

	place *list.Element // in the queue; nil while it runs
	index int           // in the heap
	order int64         // of admission

	begin, ttft, tpot, end float64 // as progress

	done chan struct{}
	err  error
}

// NewEngine returns an engine.
func NewEngine(cfg EngineConfig) *Engine {
	e := &Engine{waiting: list.New(), cfg: cfg}
	e.cfg.setDefaults()
	return e
}

func (c *EngineConfig) setDefaults() {
	if c.Slots <= 0 {
		c.Slots = 256
	}
	c.Thrash, c.Jam = min(max(0, c.Thrash), 1), min(max(0, c.Jam), 1)
}

// Run runs a request until its last token. It returns ErrBusy, ErrTooLong, or the
// context's cause when the client goes away first, which frees the slot.
//
// A request is admitted when a slot is free and its prompt and one token fit the
// cache. As its answer grows there may be no room for the next token: then the newest
// request is preempted. It loses its tokens and waits, as the first of the queue, to
// begin anew.
func (e *Engine) Run(ctx context.Context, promptTokens, completionTokens int) error {
	return e.runJob(ctx, &job{prompt: promptTokens, completion: completionTokens, factor: 1})
}

func (e *Engine) runJob(ctx context.Context, j *job) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	j.completion, j.factor = max(1, j.completion), max(0, j.factor)
	if done, err := e.enqueueJob(j); done {
		return err
	}

	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
	}

	e.mu.Lock()
	defer e.mu.Unlock()

	e.catchUp()
	select {
	case <-j.done:
		return j.err
	default:
	}

	e.removeJob(j)
	e.catchUp()

	return context.Cause(ctx)
}

// enqueueJob puts a request into the engine, and tells whether it is done already.
func (e *Engine) enqueueJob(j *job) (done bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()

	if e.dead {
		return true, errDead
	}

	if e.cfg.KV > 0 && j.prompt+j.completion > e.cfg.KV {
		return true, ErrTooLong
	}

	if e.cache == nil && len(e.running) == 0 && e.waiting.Len() == 0 && e.cfg.TTFT <= 0 && e.cfg.TPOT <= 0 && !e.hung {
		e.countJob(j, j.completion)
		return true, nil // for free: the usual case of a server without latency
	}

	e.catchUp() // as it was before
	j.done = make(chan struct{})
	j.place = e.waiting.PushBack(j)
	e.catchUp()
	if j.place != nil && e.cfg.Queue > 0 && e.waiting.Len() > e.cfg.Queue {
		e.removeJob(j)
		return true, ErrBusy
	}

	return false, nil
}

// Set changes how the engine works, also for those that run: their next tokens come at
// the new speed. With fewer slots than running requests, none is admitted for a while.
func (e *Engine) Set(change func(*EngineConfig)) {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.catchUp()
	change(&e.cfg)
	e.cfg.setDefaults()

	for _, j := range e.running {
		done := e.progress - j.begin
		share, further := min(1, done/max(j.ttft, 1)), max(0, done-j.ttft)/max(j.tpot, 1)
		e.setTimes(j)
		j.begin = e.progress - share*j.ttft - further*j.tpot
		j.end += j.begin
	}

	heap.Init(&e.running)
	e.catchUp()
}

// Load returns how busy the engine is now.
func (e *Engine) Load() Load {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.catchUp()

	load := Load{
		Running:      len(e.running),
		Waiting:      e.waiting.Len(),
		KVUsage:      float64(len(e.running)) / float64(2*e.cfg.Slots),
		Preemptions:  e.preemptions,
		PromptTokens: e.promptTokens,
		CachedTokens: e.cachedTokens,
		Tokens:       e.tokens,
		CacheQueries: e.cacheQueries,
		CacheHits:    e.cacheHits,
	}
	for _, j := range e.running {
		if n := e.generatedTokens(j); n > 0 {
			load.PromptTokens += int64(j.prompt)
			load.CachedTokens += int64(j.cached)
			load.Tokens += int64(n)
		}
	}

	if e.cfg.KV > 0 {
		load.KVUsage = min(1, float64(e.heldTokens())/float64(e.cfg.KV))
	}

	return load
}

// currentConfig is how the engine works now.
func (e *Engine) currentConfig() EngineConfig {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cfg
}

func (e *Engine) isHung() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hung
}

// setHung stops the engine, or lets it go on. It takes requests meanwhile.
func (e *Engine) setHung(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUp()
	e.hung = on
	e.catchUp()
}

// kill ends all requests, those to come too, with errDead.
func (e *Engine) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.catchUp()
	e.dead = true

	for len(e.running) > 0 {
		j := e.running[0]
		e.removeJob(j)
		e.finishJob(j, errDead)
	}

	for e.waiting.Len() > 0 {
		j := e.waiting.Front().Value.(*job)
		e.removeJob(j)
		e.finishJob(j, errDead)
	}

	e.catchUp()
}

// catchUp brings the engine up to now, event by event, so that it is as exact when its
// timer is late, and sets the timer for the next event.
func (e *Engine) catchUp() {
	now := time.Now()
	for {
		e.finishDone()
		e.admitWaiting()

		next, ok := e.nextEvent()
		if ok && next.After(now) {
			e.passTime(now)
			e.setTimer(next.Sub(now))
			return
		}

		if !ok {
			e.passTime(now)
			if e.timer != nil {
				e.timer.Stop()
			}
			return
		}

		e.passTime(next)
	}
}

// setTimer sets the timer. A ring too many does no harm.
func (e *Engine) setTimer(after time.Duration) {
	if e.timer != nil {
		e.timer.Reset(after)
		return
	}

	e.timer = time.AfterFunc(after, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.catchUp()
	})
}

// passTime lets time pass in which nothing happens.
func (e *Engine) passTime(to time.Time) {
	if len(e.running) > 0 && !e.hung {
		e.progress += float64(to.Sub(e.at)) * e.currentSpeed()
	}
	e.at = to
}

// currentSpeed is the part of full speed at which each request runs.
func (e *Engine) currentSpeed() float64 {
	n, knee, speed := float64(len(e.running)), float64(e.cfg.Knee), 1.0
	if e.waiting.Len() > 0 {
		speed -= e.cfg.Jam
	}
	if knee > 0 && n > knee {
		speed *= knee / n * math.Pow(1-e.cfg.Thrash, (n-knee)/knee)
	}

	return max(speed, 1e-4) // so that it ends some day
}

// nextEvent is when something happens: the first request is done, or the cache may be full.
func (e *Engine) nextEvent() (time.Time, bool) {
	if len(e.running) == 0 || e.hung {
		return time.Time{}, false
	}

	left := math.Ceil((e.running[0].end - e.progress) / e.currentSpeed())
	next := e.at.Add(time.Duration(max(0, left)))
	if e.cfg.KV > 0 && e.check.Before(next) {
		next = e.check
	}

	return next, true
}

// finishDone ends those that are done, to half a nanosecond.
func (e *Engine) finishDone() {
	for !e.hung && len(e.running) > 0 && e.running[0].end <= e.progress+0.5 {
		j := e.running[0]
		e.removeJob(j)
		e.finishJob(j, nil)
	}
}

func (e *Engine) finishJob(j *job, err error) {
	j.err = err
	close(j.done)
}

// step is how often the cache is looked at when it is about full.
const step = 10 * time.Millisecond

// admitWaiting makes room in the cache, and fills the free slots if there was room.
func (e *Engine) admitWaiting() {
	held, preempted := 0, false
	if e.cfg.KV > 0 {
		held = e.heldTokens()
		for held > e.cfg.KV {
			j := e.newestJob()
			held -= j.prompt + max(1, e.generatedTokens(j))
			e.removeJob(j)
			j.place = e.waiting.PushFront(j)
			e.preemptions++
			preempted = true
		}
	}

	for (!preempted || len(e.running) == 0) && e.waiting.Len() > 0 && len(e.running) < e.cfg.Slots {
		j := e.waiting.Front().Value.(*job)
		if e.cfg.KV > 0 && j.prompt+j.completion > e.cfg.KV { // it has shrunk
			e.removeJob(j)
			e.finishJob(j, ErrTooLong)
			continue
		}

		if e.cfg.KV > 0 && held+j.prompt+1 > e.cfg.KV {
			break
		}

		e.removeJob(j)
		held += j.prompt + 1
		e.consultCache(j)
		e.setTimes(j)
		j.begin = e.progress
		j.end += j.begin
		e.admitted++
		j.order = e.admitted
		heap.Push(&e.running, j)
	}

	if e.cfg.KV == 0 || len(e.running) == 0 {
		return
	}

	// All grow by a token at a time, so it cannot be full before.
	wait := time.Duration(float64(e.cfg.KV-held) / float64(len(e.running)) * float64(e.cfg.TPOT) / e.currentSpeed())
	if preempted {
		wait = 0
	}

	e.check = e.at.Add(max(wait, step))
}

// consultCache looks up how much of a request's prompt is there: never all, since the first
// token of the answer follows from the last of the prompt.
func (e *Engine) consultCache(j *job) {
	if e.cache == nil {
		return
	}
	cached, wait := e.cache.startJob(j, e.progress)
	j.cached, j.wait = min(cached, j.prompt-1), wait
	e.cacheQueries += int64(j.prompt)
	e.cacheHits += int64(j.cached)
}

// setTimes sets a request's times, its end as if it began at 0.
func (e *Engine) setTimes(j *job) {
	unread := 1 - float64(j.cached)/float64(max(1, j.prompt))
	j.ttft, j.tpot = max(j.wait, j.factor*unread*float64(e.cfg.TTFT)), j.factor*float64(e.cfg.TPOT)
	j.end = j.ttft + float64(j.completion-1)*j.tpot
}

// removeJob takes a request out of the queue or off the GPU.
func (e *Engine) removeJob(j *job) {
	if j.place != nil {
		e.waiting.Remove(j.place)
		j.place = nil
		return
	}

	j.answered = e.generatedTokens(j)
	e.countJob(j, j.answered)
	heap.Remove(&e.running, j.index)

	if e.cache != nil {
		e.cache.endJob(j)
	}
}

// countJob counts the tokens of a request that does not run any more.
func (e *Engine) countJob(j *job, generated int) {
	if generated > 0 {
		e.promptTokens += int64(j.prompt)
		e.cachedTokens += int64(j.cached)
		e.tokens += int64(generated)
	}
}

// generatedTokens is the number of tokens that a running request has.
func (e *Engine) generatedTokens(j *job) int {
	after := e.progress + 0.5 - j.begin - j.ttft
	switch {
	case e.hung && j.end <= e.progress+0.5: // it takes no time, but the engine hangs
		return 0
	case after < 0:
		return 0
	case j.tpot <= 0:
		return j.completion
	}

	return min(j.completion, 1+int(after/j.tpot))
}

// heldTokens is the number of tokens in the cache.
func (e *Engine) heldTokens() int {
	n := 0
	for _, j := range e.running {
		n += j.prompt + max(1, e.generatedTokens(j))
	}
	return n
}

func (e *Engine) newestJob() *job {
	last := e.running[0]
	for _, j := range e.running {
		if j.order > last.order {
			last = j
		}
	}
	return last
}

// jobs is a heap of running requests, that which ends first at the top.
type jobs []*job

func (h jobs) Len() int           { return len(h) }
func (h jobs) Less(i, j int) bool { return h[i].end < h[j].end }
func (h jobs) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *jobs) Push(x any) {
	j := x.(*job)
	j.index = len(*h)
	*h = append(*h, j)
}

func (h *jobs) Pop() any {
	last := len(*h) - 1
	j := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return j
}
