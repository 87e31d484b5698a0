package worker

import (
	"time"

	"github.com/promptmill/promptmill/proto"
)

// task is a request on its way to a result.
type task struct {
	proto.Request

	shard *shardJob

	// hash is the hash of the request as it came, whatever is sent later.
	hash uint64

	// single is set if the body does not say how many parts the answer has.
	single bool

	// rerun is set if a worker that has died since had sent the request before.
	rerun bool

	// arrived is the time at which the worker queued the request. firstBegin is the time at which
	// the first attempt that reached the server began, and lastEnd the one at which the last one
	// ended; both are zero before that.
	arrived    time.Time
	firstBegin time.Time
	lastEnd    time.Time

	// notBefore is the time before which the next attempt does not begin; zero: it may begin now. The lock of
	// the queue guards it while the task waits there.
	notBefore time.Time

	// cost is the cost of all attempts so far.
	cost attemptCost

	// attempts is the number of attempts so far; overloads of them were refused by a server that has
	// too many requests, and doubted had an answer that may have been that of another request.
	attempts  int
	overloads int
	doubted   int

	// reasons has the reason of each failed attempt.
	reasons []string

	// observed has all attempts if the worker has an observer.
	observed []Attempt

	// loadingSince is the first time at which the server was loading the model of this request. It
	// is zero unless the request waits for that.
	loadingSince time.Time

	// crashes counts the crashes of the model server, or of the worker, while it had this request.
	crashes int

	// spared is the number of attempts for which a proxy may have had no server.
	spared int

	// cutOffs is the number of attempts that something in front of the server cut off.
	cutOffs int

	// malformed is the JSON error of the last attempt's answer, if it was no JSON.
	malformed string

	// mismatched is set after an answer that does not match the schema.
	mismatched bool

	// truncated is an answer that reached its token limit. It becomes the result if no later
	// attempt succeeds.
	truncated     *proto.Result
	truncatedCost attemptCost

	// The fields below are used where requests are grouped by prefix. The lock of the queue
	// guards them.

	// prefixes are the prefixes of the prompt, each longer than the one before; nil: the request is
	// in no group.
	prefixes []*promptPrefix

	// busy is set while the task counts as busy in its prefixes.
	busy bool

	// follows is set for a task that waited for one that has ended, and may go now.
	follows bool

	// filler is the prefix that the task would wait for, if there were another task to take the
	// free slot.
	filler *promptPrefix
}

// kind returns the requests that are expected to take as long as this one.
func (t *task) kind() requestKind { return requestKind{t.shard.run.id, t.shard.model} }

// countedBody returns the body that an answer is compared with, or nil if there is nothing to
// compare.
func (t *task) countedBody() []byte {
	if t.single {
		return nil
	}
	return t.Body
}

// overloadsPerAttempt is the number of refusals that count as one attempt. A server that has too
// many requests says nothing about this one, and takes it a moment later.
const overloadsPerAttempt = 4

// attemptsUsed returns how many of its attempts the task has used up.
func (t *task) attemptsUsed() int {
	return t.attempts - t.doubted - t.overloads + t.overloads/overloadsPerAttempt
}

// recordAttempt records an attempt that has ended.
func (t *task) recordAttempt(cost attemptCost, begin, end time.Time) {
	if cost.attempts == 0 {
		return
	}

	if t.firstBegin.IsZero() {
		t.firstBegin = begin
		if t.rerun {
			t.shard.jobs.usage.countRerun(t.shard.run.id)
			t.shard.jobs.stats.Rerun.Add(1)
		}
	}

	t.lastEnd = end
	t.cost.add(cost)
}

// finish ends the task with its result. used is the cost of the attempt that the result is from;
// zero: it is from none, since all that was sent was lost.
func (t *task) finish(r proto.Result, used attemptCost) {
	jobs := t.shard.jobs
	jobs.endTask(t)
	t.endObserved(&r)

	r.Run, r.Index, r.CustomID, r.RequestHash = t.shard.run.id, t.Index, t.CustomID, t.hash
	r.Worker, r.Attempts, r.Reasons = jobs.workerName, t.attempts, t.reasons
	r.Latency = used.time
	if !t.firstBegin.IsZero() {
		r.Queued, r.Total = t.firstBegin.Sub(t.arrived), t.lastEnd.Sub(t.firstBegin)
	}

	wasted := t.cost.without(used)
	r.Discarded = wasted.discarded()
	jobs.stats.addDiscarded(wasted)

	if r.Err != nil || r.Status < 200 || r.Status >= 300 {
		jobs.stats.Failed.Add(1)
	}

	jobs.costs.countFinished(t.shard.run.id, t.lastEnd, used.time)

	if t.attempts > 0 || t.crashes > 0 {
		jobs.usage.countRequest(t.shard.run.id, wasted)
	}

	size := len(r.Body) + len(r.CustomID) + len(r.Run) + len(r.RequestID) + len(r.Worker) + 256
	t.shard.outcomes <- outcome{index: t.Index, line: proto.AppendResult(make([]byte, 0, size), r)}
}

// maxReturnWait is the longest time for which a request that waits for its next attempt is kept from all workers when
// it is handed back. The wait keeps the worker that hands it back from taking it again, and sending it too soon.
const maxReturnWait = 5 * time.Second

// handBack ends the task without a result, so that another worker runs it.
func (t *task) handBack() { t.handBackAfter(0) }

// handBackAfter is handBack for a request that no worker takes before a wait is over.
func (t *task) handBackAfter(wait time.Duration) {
	t.shard.jobs.endTask(t)
	t.endObserved(nil)
	t.shard.jobs.costs.countHandedBack(t.shard.run.id)
	t.shard.jobs.usage.countDiscarded(t.shard.run.id, t.cost)
	t.shard.jobs.stats.addDiscarded(t.cost)
	t.shard.outcomes <- outcome{
		index:   t.Index,
		crashes: t.crashes,
		wait:    max(0, wait),
	}
}
