package worker

import (
	"context"
	"sync"

	"github.com/promptmill/promptmill/worker/limit"
)

// attemptPool runs attempts, each beside the others, and waits for their end.
type attemptPool struct {
	run  func(attemptJob)
	jobs chan attemptJob // for loops that have nothing to do

	loops    sync.WaitGroup
	underway sync.WaitGroup
}

// attemptJob is an attempt to be made, in a slot of the limiter that it gives back.
type attemptJob struct {
	epoch context.Context // ends when the server is found to hang
	task  *task
	slot  limit.Slot
}

func newAttemptPool(run func(attemptJob)) *attemptPool {
	return &attemptPool{run: run, jobs: make(chan attemptJob)}
}

// start runs a job, and does not wait for its end.
func (p *attemptPool) start(job attemptJob) {
	p.underway.Add(1)

	select {
	case p.jobs <- job:
	default: // all loops are busy
		p.loops.Go(func() { p.loop(job) })
	}
}

// loop runs jobs, one after the other. A goroutine that stays has a stack that is large enough
// for an HTTP request: to grow a new one for each cost 7 % of the whole exchange.
func (p *attemptPool) loop(job attemptJob) {
	for more := true; more; job, more = <-p.jobs {
		p.run(job)
		p.underway.Done()
	}
}

// startOther runs an attempt that has no slot, and does not wait for its end.
func (p *attemptPool) startOther(attempt func()) { p.underway.Go(attempt) }

// wait waits until no attempt is under way.
func (p *attemptPool) wait() { p.underway.Wait() }

// close waits until no attempt is under way, and ends the loops.
func (p *attemptPool) close() {
	p.wait()
	close(p.jobs)
	p.loops.Wait()
}
