package sim

import (
	"context"
	"errors"
	"sync"
	"time"
)

// EngineConfig configures an [Engine].
type EngineConfig struct {
	// Slots is the number of requests that run at once; others wait, first in first out.
	// Defaults to 256.
	Slots int
	// Knee is the number of requests that run at full speed; with more, each is slower, so that
	// tokens per second stay flat. 0: no knee.
	Knee int
	// Thrash makes the tokens per second fall beyond the knee: by this fraction at twice the
	// knee, and so on.
	Thrash float64
	// Jam is the part of its speed that the engine loses while requests wait.
	Jam float64
	// TTFT is the time to the first token, at full speed.
	TTFT time.Duration
	// TPOT is the time for each further token, at full speed.
	TPOT time.Duration
	// KV is the number of tokens that the cache holds. 0: no bound.
	KV int
	// Queue is the number of requests that may wait; one more gets [ErrBusy]. 0: no bound.
	Queue int
}

// setDefaults replaces the zero and the impossible values.
func (c *EngineConfig) setDefaults() {
	if c.Slots <= 0 {
		c.Slots = 256
	}
	c.Thrash, c.Jam = min(max(0, c.Thrash), 1), min(max(0, c.Jam), 1)
}

// Load is the load of an engine.
type Load struct {
	Running, Waiting int
	// KVUsage is the used part of the cache, 0 to 1; without a cache, of the slots.
	KVUsage float64

	// Tokens counts each token when it is generated, also those of requests that are not done,
	// and again those that a preemption threw away. CachedTokens counts the tokens of the
	// prompts that were cached, and so not read.
	Preemptions, PromptTokens, CachedTokens, Tokens int64

	// CacheQueries counts the tokens of the prompts of requests that began to run, CacheHits
	// those of them that were in the prompt cache.
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

// Engine is a simulated GPU that decodes many requests at once. It is safe for concurrent use.
//
// Nothing but a timer for the next event runs meanwhile: thousands of requests cost no more
// than their arrivals and ends, in real as in synctest's time. What happens at an event is the
// scheduler's.
type Engine struct {
	mu    sync.Mutex // guards the scheduler
	sched scheduler
	timer *time.Timer
}

// NewEngine returns an engine.
func NewEngine(cfg EngineConfig) *Engine {
	cfg.setDefaults()
	return &Engine{sched: newScheduler(cfg)}
}

// Run runs a request until its last token. It returns ErrBusy, ErrTooLong, or the context's
// cause when the client leaves first, which frees the slot.
//
// A request is admitted when a slot is free and its prompt and one token fit the cache. As its
// answer grows there may be no room for the next token: then the newest request is preempted.
// It loses its tokens and waits, as the first of the queue, to start again.
func (e *Engine) Run(ctx context.Context, promptTokens, completionTokens int) error {
	return e.runJob(ctx, &job{prompt: promptTokens, completion: completionTokens, factor: 1})
}

// runJob is Run for a job.
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

	e.sched.removeJob(j)
	e.catchUp()

	return context.Cause(ctx)
}

// enqueueJob puts a request into the engine, and reports whether it is done already.
func (e *Engine) enqueueJob(j *job) (done bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()

	s := &e.sched
	if s.dead {
		return true, errDead
	}

	if !s.canFit(j) {
		return true, ErrTooLong
	}

	if s.takesNoTime() { // the usual case of a server without latency
		s.countJob(j, j.completion)
		s.firstToken.add(0, 1)
		s.interToken.add(0, j.completion-1)

		return true, nil
	}

	e.catchUp() // as it was before
	j.arrived = s.at
	j.done = make(chan struct{})
	j.place = s.waiting.PushBack(j)
	e.catchUp()

	if j.place != nil && s.cfg.Queue > 0 && s.waiting.Len() > s.cfg.Queue {
		s.removeJob(j)
		return true, ErrBusy
	}

	return false, nil
}

// Set changes the configuration, also for running requests: their next tokens come at the new
// speed. With fewer slots than running requests, none is admitted for a while.
func (e *Engine) Set(change func(*EngineConfig)) {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.catchUp()
	change(&e.sched.cfg)
	e.sched.cfg.setDefaults()
	e.sched.rescaleJobs()
	e.catchUp()
}

// Load returns how busy the engine is now.
func (e *Engine) Load() Load {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUp()
	return e.sched.load()
}

// latencies returns the times to the first token and of the further ones.
func (e *Engine) latencies() (firstToken, interToken histogram) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUp()
	return e.sched.firstToken.clone(), e.sched.interToken.clone()
}

// currentConfig returns the configuration.
func (e *Engine) currentConfig() EngineConfig {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sched.cfg
}

// isHung reports whether the engine hangs.
func (e *Engine) isHung() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sched.hung
}

// setHung stops the engine, or lets it continue. It takes requests meanwhile.
func (e *Engine) setHung(hung bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUp()
	e.sched.hung = hung
	e.catchUp()
}

// kill ends all requests, also later ones, with errDead.
func (e *Engine) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.catchUp()
	e.sched.killJobs()
	e.catchUp()
}

// catchUp brings the scheduler up to now, and sets the timer for the next event. The caller
// holds mu.
func (e *Engine) catchUp() {
	now := time.Now()
	next, ok := e.sched.advanceTo(now)
	switch {
	case !ok && e.timer != nil:
		e.timer.Stop()
	case !ok:
	case e.timer != nil:
		e.timer.Reset(next.Sub(now)) // one event too many does no harm
	default:
		e.timer = time.AfterFunc(next.Sub(now), func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.catchUp()
		})
	}
}
