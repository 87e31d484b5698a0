package worker

import (
	"testing"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
)

// BenchmarkWorker measures the whole way of a shard with 32 requests through a worker: from the
// work stream to its acknowledgement, at a model server that answers at once.
func BenchmarkWorker(b *testing.B) {
	const requests = 32

	bed := newRunBed(b, answerAll(b, answered))
	bed.cfg.Limiter = limit.Fixed(16)

	for i := range uint32(b.N) {
		bed.publishShard(proto.ShardID(0, uint64(i)), chatRequests(i*requests, (i+1)*requests-1)...)
	}

	b.ReportAllocs()
	b.ResetTimer()

	w, stop := bed.startWorker()
	prototest.Poll(b, patience, "all shards to be acknowledged", func() bool {
		return w.stats.Shards.Load() == int64(b.N)
	})

	b.StopTimer()
	stop()

	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/requests, "ns/request")
}
