package collector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

func TestServerLatency(t *testing.T) {
	t.Parallel()

	histogram := func(source string, bounds []float64, sum float64, counts ...int64) *proto.ServerLatency {
		return &proto.ServerLatency{TimeToFirstToken: &proto.Histogram{
			Bounds: bounds,
			Counts: counts,
			Sum:    sum,
			Source: source,
		}}
	}
	session := func(now, before *proto.ServerLatency) journal.WorkerSession {
		return journal.WorkerSession{
			Platform:      "vLLM 0.32.0",
			Since:         fixture.Created.Add(time.Minute),
			Usage:         &proto.RunUsage{Requests: 1},
			ServerLatency: now,
			LatencyBefore: before,
		}
	}

	bounds := []float64{1, 2, 4}
	older := session(histogram("", bounds, 9, 1, 1, 1, 0), nil)
	older.Since = fixture.Created.Add(-time.Hour)
	idle := session(histogram("", bounds, 9, 1, 1, 1, 0), nil)
	idle.Usage = nil

	for _, tt := range []struct {
		name     string
		sessions []journal.WorkerSession
		want     *metadata.ServerDistribution
	}{
		{"no worker", nil, nil},
		{"a server that measures nothing", []journal.WorkerSession{session(nil, nil)}, nil},
		{"no requests", []journal.WorkerSession{session(histogram("m", bounds, 0, 0, 0, 0, 0), nil)}, nil},
		{"one", []journal.WorkerSession{session(histogram("m", bounds, 140, 50, 40, 10, 0), nil)},
			&metadata.ServerDistribution{Count: 100, Mean: 1.4, P50: 1, P90: 2, P99: 3.8, Source: "m"}},
		{"another run before it", []journal.WorkerSession{
			session(histogram("", bounds, 1140, 50, 40, 10, 100), histogram("", bounds, 1000, 0, 0, 0, 100))},
			&metadata.ServerDistribution{Count: 100, Mean: 1.4, P50: 1, P90: 2, P99: 3.8, Source: "vLLM 0.32.0"}},
		{"above the last bound", []journal.WorkerSession{session(histogram("m", bounds, 900, 0, 0, 0, 100), nil)},
			&metadata.ServerDistribution{Count: 100, Mean: 9, P50: 4, P90: 4, P99: 4, Source: "m"}},
		{"all of them 0", []journal.WorkerSession{
			session(histogram("m", []float64{0, 1}, 0, 100, 0, 0), nil)},
			&metadata.ServerDistribution{Count: 100, Source: "m"}},
		{"two of one kind", []journal.WorkerSession{
			session(histogram("m", bounds, 50, 50, 0, 0, 0), nil),
			session(histogram("m", bounds, 90, 0, 40, 10, 0), nil)},
			&metadata.ServerDistribution{Count: 100, Mean: 1.4, P50: 1, P90: 2, P99: 3.8, Source: "m"}},
		{"two kinds", []journal.WorkerSession{
			session(histogram("m", bounds, 50, 50, 0, 0, 0), nil),
			session(histogram("l", []float64{2}, 50, 50, 0), nil)},
			&metadata.ServerDistribution{Count: 100, Mean: 1, P50: 2.0 / 3, P90: 1.6, P99: 1.96, Source: "l, m"}},
		{"what was before the run is unknown", []journal.WorkerSession{older}, nil},
		{"a worker without a part in it", []journal.WorkerSession{idle}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var r metadata.Results
			addServerLatency(&r, tt.sessions, fixture.Created)
			if diff := cmp.Diff(tt.want, r.TimeToFirstTokenSeconds, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
				t.Errorf("time to the first token (-want +got):\n%s", diff)
			}

			if r.TimePerOutputTokenSeconds != nil {
				t.Errorf("time per output token %+v", r.TimePerOutputTokenSeconds)
			}
		})
	}
}
