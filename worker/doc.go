// Package worker runs the requests of shards at an OpenAI-compatible model server and publishes
// the answers.
//
// A [Worker] belongs to one model server. It works for all runs on the bus that need a model of
// that server, or for the one in [Config].Run. Any number of workers may work for a run; each takes
// the work it has room for, and the bus gives a shard to another worker when one is gone.
//
//	 work stream                                         results stream
//	      |                                                    ^
//	   fetcher         pulls shards while there is room        |  publish, then ack
//	      |                                                    |
//	   shardJob        queues the requests without a result, and gathers the results
//	      |                                                    ^
//	 requestQueue      decides which request is next           |
//	      |                                                    |
//	  dispatcher       waits for an open gate and a slot       |  finish: a result
//	      |                                                    |  handBack: another worker runs it
//	attemptRunner ---> model server ---> classify, rule -------+
//	                                           |
//	                                           +---> again, after a wait: requestQueue
//	                                           +---> set aside: refusals, cutoffs, stalledTask,
//	                                                 quarantine
//
// The life of a request:
//
//   - fetch: the fetcher pulls a shard when the worker has room for it. It is the only goroutine
//     that decides which run is next (activeRuns), which models have their turn (modelTurns), and
//     which requests faster workers finish sooner (peers).
//   - queue: the shardJob reads the shard's deliveryHistory from the results stream, and queues a
//     task for each request that has no result. The requestQueue is first in, first out, except for
//     requests that wait for their next attempt, and those of a run that is grouped by prefix
//     (prefixGroups).
//   - attempt: the dispatcher waits until the model server takes requests (sendGate) and the limiter
//     has a slot. The attemptRunner sends the request.
//   - rule: classify and the rulings decide the meaning of an answer. The answer is the result, or the
//     request is queued again, or it is set aside until other requests show its meaning:
//     a server that refuses everything (refusals), a time limit of a proxy (cutoffs), a server that
//     may hang (stalledTask), a request that crashes servers (quarantine).
//   - publish: the shardJob gathers the results and its resultPublisher stores them, several lines in
//     a message.
//   - ack: after the bus has confirmed a result for each request of the shard, the shardJob
//     acknowledges the shard. A shard with requests that were handed back is returned to the bus, and
//     its next worker runs only those.
//
// Ownership:
//
//   - The fetcher owns the state of fetching. Only its goroutine uses it, so there is no lock.
//   - shardJobs own the shards in hand. Each shardJob has one goroutine, the only one that publishes
//     its results and settles its message; a heartbeat keeps the shard while the job lives. Every
//     other part ends a task with task.finish or task.handBack, exactly once.
//   - The serverSide owns all that faces the model server: whether the server takes requests
//     (serverState), its condition (serverHealth, loadWatch), the attempts, and the requests that are
//     set aside.
//   - The announcer shows this worker and its state to other workers and the collector.
//
// A worker that is asked to leave ([Worker.Leave]) goes on until its deadline with what ends in time:
// the departurePlan decides that for the fetcher and the dispatcher, by the runLatencies, and
// departureCosts counts what it costs.
//
// [Worker.Run] ends in three steps, named by lifetimes: first no more work is taken, then requests
// in flight have the grace period, then the last results are stored. It waits for every goroutine.
package worker
