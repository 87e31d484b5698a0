package tail_test

import (
	"fmt"
	"testing"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
)

// A run's results from the first to the last, as a reader that comes late reads them.
func BenchmarkReader(b *testing.B) {
	const requests, length = 16 << 10, 1200
	for _, size := range []int{1, proto.MaxBatch} {
		b.Run(fmt.Sprintf("lines=%d", size), func(b *testing.B) {
			bench := testrun.New(b, requests, 64<<20)
			pad := length - len(fixture.Line(0, 0))
			for indexes := fixture.Indexes(requests); len(indexes) > 0; indexes = indexes[size:] {
				var lines []byte
				for _, index := range indexes[:size] {
					lines = append(lines, fixture.Line(index, pad)...)
				}
				_, err := bench.JS.PublishMsgAsync(proto.EncodeResults("r", "0-0", indexes[:size], lines))
				fixture.Must(b, err)
			}

			testrun.Await(b, bench.JS.PublishAsyncComplete(), "the results")
			bench.SetState(proto.StateCompleted)

			bytes := 0
			for b.Loop() {
				reader, err := tail.New(tail.Config{JS: bench.JS, Run: "r"})
				fixture.Must(b, err)

				missed, _, err := reader.Run(b.Context(), func(lines []byte) error {
					bytes += len(lines)
					return nil
				})
				if err != nil || !missed.IsEmpty() {
					b.Fatalf("missed %v (%v)", missed, err)
				}
			}

			b.SetBytes(int64(bytes / b.N))
			b.ReportMetric(float64(requests*b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
