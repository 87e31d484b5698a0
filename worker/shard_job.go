package worker

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/openai"
)

// shardJob is a shard that this worker works on. Its one goroutine gathers the results,
// stores them on the bus, and acknowledges the shard at the end.
type shardJob struct {
	jobs      *shardJobs
	run       *activeRun
	msg       jetstream.Msg
	heartbeat *heartbeat
	id        string
	model     string
	results   resultPublisher

	// outcomes gets one element for each request that was queued.
	outcomes chan outcome

	// sent are the requests that the model server got.
	sent sentRequests
}

// outcome is the end of one request of a shard: an output line, or none if it was handed back.
type outcome struct {
	index uint32

	// line is the output line; nil: the request was handed back.
	line []byte

	// crashes counts the crashes of the model server during a request that is handed back, and wait is the time
	// for which no worker should take it.
	crashes int
	wait    time.Duration
}

// handedBack is what is left of a shard whose requests were not all answered.
type handedBack struct {
	requests int
	crashes  map[uint32]int // of model servers during them, by index
	wait     time.Duration  // the shortest of any of them
}

// add takes in a request.
func (h *handedBack) add(o outcome) {
	if h.requests == 0 || o.wait < h.wait {
		h.wait = o.wait
	}

	h.requests++
	if o.crashes > 0 {
		h.crashes[o.index] = o.crashes
	}
}

// runRequests works on the shard until each request has a stored result or was handed back.
func (j *shardJob) runRequests(ctx context.Context, requests []proto.Request) {
	defer j.heartbeat.stop()

	jobs := j.jobs
	history, err := j.loadHistory(ctx, requests)
	todo := history.unfinished(requests)
	jobs.held.add(len(todo) - len(requests)) // a request that has its result already takes no room
	if err != nil {
		jobs.queue.noteOpened()
		jobs.held.add(-len(todo))

		if ctx.Err() == nil {
			jobs.log.Warn().Err(err).Str("run", j.run.id).Str("shard", j.id).
				Msg("failed to look up which results a shard has; returned it to the bus")
		}

		jobs.returnShard(j.run.id, j.msg, j.id, nil, time.Second)

		return
	}

	j.queueRequests(todo, history)
	jobs.queue.noteOpened()

	rest := j.publishResults(ctx, len(todo))
	if !j.results.awaitStored(ctx) {
		return // the shard comes back after the ack wait, and the missing requests run then
	}

	if rest.requests > 0 {
		jobs.returnShard(j.run.id, j.msg, j.id, rest.crashes, rest.wait)
		return
	}

	j.ackShard(ctx)
}

// queueRequests queues the requests. A refused request has its result at once.
func (j *shardJob) queueRequests(requests []proto.Request, history deliveryHistory) {
	j.outcomes = make(chan outcome, len(requests))

	now := time.Now()
	tasks := make([]*task, len(requests))
	for i, r := range requests {
		tasks[i] = &task{
			Request: r,
			hash:    r.Hash(),
			single:  !openai.NeedsRequest(r.URL, r.Body),
			shard:   j,
			arrived: now,
			crashes: history.crashCount(r.Index),
			rerun:   history.sent[r.Index],
		}
	}

	queue := j.jobs.queue
	if j.run.grouped {
		queue.registerTasks(tasks)
	}

	for _, t := range tasks {
		switch {
		case t.Refused != "":
			refused := &proto.ResultError{Code: proto.CodeInvalidRequest, Message: t.Refused}
			t.finish(proto.Result{Err: refused}, attemptCost{})
		case history.isPoison(t.Index):
			t.failPoisoned("the worker", max(history.unacked, history.isolated[t.Index]))
		case t.crashes > 0:
			j.jobs.isolate(t)
		case !queue.push(t):
			t.handBack()
		}
	}

	if j.run.paused.Load() { // perhaps only now: the pause has not reached these tasks
		j.jobs.handBackWaiting(func(t *task) bool { return t.shard == j })
	}
}

// publishResults publishes the results of n requests as they come. It returns what was handed back
// instead.
func (j *shardJob) publishResults(ctx context.Context, n int) handedBack {
	rest := handedBack{crashes: map[uint32]int{}}

	notes := time.NewTicker(sentNoteEvery)
	defer notes.Stop()

	var flush <-chan time.Time
	for n > 0 {
		select {
		case o := <-j.outcomes:
			n--
			j.jobs.held.add(-1)

			if o.line == nil {
				rest.add(o)
				continue
			}

			j.jobs.stats.Done.Add(1)
			if j.results.addLine(o) {
				j.results.flushBatch(ctx)
				flush = nil
			} else if flush == nil {
				flush = time.After(lingerFor(j.jobs.latency.mean()))
			}
		case <-flush:
			j.results.flushBatch(ctx)
			flush = nil
		case <-notes.C:
			j.publishSent()
		}
	}

	j.results.flushBatch(ctx)

	return rest
}

// publishSent publishes which requests the model server got, for the worker that gets the shard
// next, should this one die. The note is a hint, and nothing waits for its confirmation.
func (j *shardJob) publishSent() {
	note, ok := j.sent.takeNote()
	if !ok {
		return
	}

	if _, err := j.jobs.js.PublishMsgAsync(proto.EncodeDeliveryNote(j.run.id, j.id, note)); err != nil {
		j.jobs.log.Debug().Err(err).Str("run", j.run.id).Str("shard", j.id).
			Msg("failed to publish the note of the requests that were sent")
	}
}

// ackShard removes the shard from the bus, and waits until that is certain. If it fails, the
// shard comes back, and the worker that gets it then acknowledges it.
func (j *shardJob) ackShard(ctx context.Context) {
	if err := callWithTimeout(ctx, j.msg.DoubleAck); err != nil {
		j.jobs.log.Debug().Err(err).Str("run", j.run.id).Str("shard", j.id).Msg("failed to acknowledge shard")
		return
	}

	j.jobs.stats.Shards.Add(1)
}

// markIsolated stores the note that a request runs alone, for the worker that gets the shard
// next, should this one die of it. It returns false if the note cannot be stored.
func (j *shardJob) markIsolated(ctx context.Context, index uint32) bool {
	note := proto.EncodeDeliveryNote(j.run.id, j.id, proto.Isolating(index))

	err := callWithTimeout(ctx, func(ctx context.Context) error {
		_, err := j.jobs.js.PublishMsg(ctx, note)
		return err
	})
	if err != nil {
		j.jobs.log.Warn().Err(err).Str("run", j.run.id).Str("shard", j.id).
			Msg("failed to store the note that a request runs alone; returning the request to the bus")
		bus.Sleep(ctx, time.Second)
	}

	return err == nil
}
