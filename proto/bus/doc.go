// Package bus is promptmill's client of NATS JetStream: it makes the streams and buckets of
// package proto, and stores and reads their entries.
//
// [Open] connects to it. A [Bus] has the stores that all runs share, and returns the stores of
// one run:
//
//	b, err := bus.Open(ctx, js)
//	b.Runs          manifests: Create, Update by compare-and-set, Watch
//	b.Leases        which collector has a run: Acquire, Release
//	b.Heartbeats    which workers there are: Send, Workers
//	b.Objects(run)  requests too large for a message, and the input
//	b.Answers(run)  answers too large for a message
//	b.Webhooks      the bucket of webhooks, which only a bus with webhooks has
//
// The owner of a bus makes its buckets with [CreateBuckets]. The process that begins a run
// makes its streams with [EnsureStreams], and then its manifest. A producer publishes into the
// work stream, workers pull from its consumers ([FindConsumer]), and the collector reads the
// results stream.
//
// A call that finds no leader in a cluster retries for 30 s, the time of an election. Messages are
// stored once, however often they are sent until a confirmation comes. Errors of the bus are
// recognised in one place ([IsNoLeader], [IsWrongSequence], [IsStreamFull], [IsNoStorage],
// [IsUnrecoverable]).
package bus
