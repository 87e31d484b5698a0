// Package proto is the wire between promptmill's parts: the messages on the bus, and the lines of
// the files. Producer, worker and collector know each other only through it. It imports no
// JetStream; README.md beside it describes the same for other languages.
//
// A [Request] is a line of the input, and its index is its place in the run. Requests for one
// model travel together in a [Shard]:
//
//	producer ── EncodeShard ──► pm.RUN.work.MODEL.SHARD ──── Bounds.ParseShard ──► worker
//	worker ── EncodeResults ──► pm.RUN.results.SHARD ─────── Bounds.ParseBatch ──► collector
//
// A [Result] becomes an output line ([AppendResult]), which [ParseLine] reads again; a [Batch] is
// a message of such lines. A [DeliveryNote] on the same subject is for the next worker that gets
// the shard. Each message from the bus is compared with the [Bounds] of its run, and refused
// with a [FieldError].
//
// The [Manifest] is all that the parts of a run agree on. A [WorkerInfo] is a worker's
// announcement, a [CollectorInfo] a collector's lease. A [Digest] proves that each line answers
// its own request. A [Role] decides the rights of a connection, a [Join] is the string that
// grants it.
//
// The packages in this module use one another in one direction: jsonscan (JSON without decoding) ◄
// openai (answers) ◄ proto ◄ bus (the JetStream client) ◄ prototest (a bus for tests). jsonl reads
// files of JSON lines, and stands alone.
package proto
