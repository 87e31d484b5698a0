package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/schema"
)

// activeRun is a run that this worker works for: it is in progress, or paused since.
type activeRun struct {
	id     string
	bounds proto.Bounds
	models []string

	// grouped is set if requests with the same prefix share a prompt cache.
	grouped bool

	// maxShardRequests is the most requests in a shard of the run.
	maxShardRequests int

	// objects has the requests that do not fit into a message, answers the results.
	objects *bus.ObjectStore
	answers *bus.AnswerStore

	// schema has to match each answer; nil: any answer will do.
	schema *schema.Schema

	// moreTokens is the factor for the token limit after an answer that reached it; 0: such an
	// answer stays as it is.
	moreTokens float64

	// requests is the parent context of its requests at the model server. It ends with the run.
	requests       context.Context
	cancelRequests context.CancelFunc
	inEpoch        atomic.Pointer[epochRequests]

	// published is set once all shards of the run are on the bus.
	published atomic.Bool

	paused atomic.Bool

	// ended is set once the run has ended or was deleted.
	ended atomic.Bool

	// priority is guarded by the lock of activeRuns.
	priority int

	// fetch is used by the fetch loop alone.
	fetch fetchState
}

// epochRequests is the parent context of a run's requests at the model server in an epoch of
// the server. It ends with the epoch or with the run.
type epochRequests struct {
	epoch    context.Context
	requests context.Context
}

// requestsIn returns the parent context of requests in an epoch. It is kept for the next
// request, since to watch the epoch for each of them costs more than all else that starts an
// attempt.
func (r *activeRun) requestsIn(epoch context.Context) context.Context {
	if kept := r.inEpoch.Load(); kept != nil && kept.epoch == epoch {
		return kept.requests
	}

	requests, cancel := context.WithCancel(r.requests)
	stop := context.AfterFunc(epoch, cancel) // a hung server answers nothing
	context.AfterFunc(r.requests, func() { stop() })
	r.inEpoch.Store(&epochRequests{epoch, requests})

	return requests
}

// readPayload returns the payload of a shard. It reads the shard's own object alone: a shard
// that names another one is refused when it is parsed.
func (r *activeRun) readPayload(ctx context.Context, msg jetstream.Msg) ([]byte, error) {
	name := msg.Headers().Get(proto.HeaderObject)
	if name == "" || name != proto.ShardObject(msg.Headers().Get(proto.HeaderShard)) {
		return msg.Data(), nil
	}
	return r.objects.Get(ctx, name)
}

// readBatch reads a message of results and splits it into lines.
func (r *activeRun) readBatch(
	ctx context.Context, msg *jetstream.RawStreamMsg,
) (batch proto.Batch, lines [][]byte, err error) {
	batch, err = r.bounds.ParseBatch(msg.Subject, msg.Header)
	if err != nil {
		return batch, nil, err
	}

	payload, err := r.answers.Payload(ctx, msg.Header, msg.Data)
	if err != nil {
		return batch, nil, err
	}

	lines, err = batch.SplitLines(payload)

	return batch, lines, err
}

// checkSchema returns the error of an answer that does not match the schema of the run; nil if it does, or if the run
// has none.
func (r *activeRun) checkSchema(c classification) *proto.ResultError {
	if r.schema == nil {
		return nil
	}

	err := errors.New("the answer has no text")
	if c.content.Text != nil {
		err = r.schema.Check(c.content.Text)
	}
	if err == nil {
		return nil
	}

	return &proto.ResultError{Code: proto.CodeSchemaMismatch, Message: err.Error()}
}

// activeRuns are the runs that this worker works for. They follow the manifests on the bus.
type activeRuns struct {
	js      jetstream.JetStream
	log     zerolog.Logger
	usage   *usage
	budgets *retryBudgets

	// latencies has those of the runs, and costs what becomes of their requests when the worker leaves.
	latencies *runLatencies
	costs     *departureCosts

	// only is the one run to work for; empty: all runs.
	only string

	// changed wakes the fetch loop after the runs have changed.
	changed signal

	// handBackWaiting hands back the waiting tasks for which gone is true.
	handBackWaiting func(gone func(*task) bool)

	// mu guards the fields below.
	mu   sync.Mutex
	byID map[string]*activeRun
}

// followManifests keeps the runs as the manifests in store are, until the intake ends or the
// connection is closed.
func (a *activeRuns) followManifests(l lifetimes, store *bus.RunStore) {
	for manifests, err := range store.WatchAll(l.intake) {
		if err != nil {
			return
		}
		a.applyManifests(manifests, l.requests)
	}
}

// applyManifests begins, pauses and ends runs as their manifests are now.
func (a *activeRuns) applyManifests(manifests map[string]proto.Manifest, requests context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.stopPausedAndEnded(manifests)

	// A run that is being finalized stays: the collector waits for the last report of the
	// run's cost.
	unfinished := func(id string) bool { m, there := manifests[id]; return there && !m.State.Ended() }
	a.usage.retainRuns(unfinished)
	a.budgets.retain(unfinished)
	a.latencies.retainRuns(unfinished)
	a.costs.retainRuns(unfinished)

	for id, m := range manifests {
		if m.State != proto.StateInProgress || a.only != "" && a.only != id {
			continue
		}

		run := a.byID[id]
		if run == nil {
			run = newActiveRun(a.js, a.log, m)
			run.requests, run.cancelRequests = context.WithCancel(requests)
			a.byID[id] = run
			a.log.Debug().Str("run", id).Msg("working for run")
		}

		run.priority = m.Policy.Priority
		run.paused.Store(false)
		run.published.Store(m.Publish.Done)
	}

	a.changed.notify()
}

// stopPausedAndEnded stops work for the runs that are not in progress any more. The caller
// holds the lock.
func (a *activeRuns) stopPausedAndEnded(manifests map[string]proto.Manifest) {
	for id, run := range a.byID {
		m, there := manifests[id]
		switch {
		case there && m.State == proto.StateInProgress:
			continue
		case there && m.State == proto.StatePaused:
			run.paused.Store(true)
		default: // the run has ended or was deleted, and its answers have no reader
			run.paused.Store(true)
			run.ended.Store(true)
			run.cancelRequests()
			delete(a.byID, id)
		}

		a.handBackWaiting(func(t *task) bool { return t.shard.run == run })
	}
}

// newActiveRun returns the run of a manifest.
func newActiveRun(js jetstream.JetStream, log zerolog.Logger, m proto.Manifest) *activeRun {
	run := &activeRun{
		id:               m.Run,
		bounds:           m.Bounds(),
		models:           m.Models(),
		grouped:          m.Settings.GroupByPrefix,
		maxShardRequests: m.Settings.WithDefaults().ShardSize,
		objects:          bus.New(js).Objects(m.Run),
		answers:          bus.New(js).Answers(m.Run),
		moreTokens:       m.Settings.RetryTruncated,
		fetch:            fetchState{sources: map[string]*shardSource{}},
	}

	if len(m.Settings.Schema) > 0 {
		compiled, err := schema.Compile(m.Settings.Schema)
		if err != nil { // the command that made the run has checked it
			log.Error().Err(err).Str("run", m.Run).Msg("the run's schema cannot be used; its answers are not checked")
		}

		run.schema = compiled
	}

	return run
}
