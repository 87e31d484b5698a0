// Package producer reads the input of a run, validates it, cuts it into shards and publishes them.
//
// [Validate] reads the whole input before a run begins, and describes it for the manifest. A
// [Producer] then publishes it, round after round: the whole input first, and then the requests
// that the collector finds missing.
//
//	files ─► Reader ─► window ─► cutter ─► shardPublisher ─► pm_RUN_work ─► workers
//	           │     (only with grouping)        ▲
//	         Parser                              └── the stream's last sequence
//
// A [Reader] turns lines into requests with a [Parser]. A roundPublisher owns the steps of one
// round, which run one after the other in one goroutine; a second watches the manifest, and ends
// the round when the run ends. Shards are a pure function of the input and the settings, and each
// is published with the sequence that it must get in the work stream. So a producer may be killed
// at any moment: the next asks the stream which shards it has, and continues behind them.
package producer
