package journal

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
)

// The latencies of a run are the same in one piece and in frames, and within 2%.
func TestLatenciesOfParts(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	for _, length := range []time.Duration{time.Second, time.Hour, 40 * time.Hour, 2000 * time.Hour} {
		var (
			direct, merged, part Latencies
			series               metadata.Series
			values               = map[int][]float64{}
		)
		series.Add(fixture.Created, metadata.Point{})
		direct.interval(fixture.Created)
		merged.interval(fixture.Created)

		ats := make([]time.Time, 3000)
		for i := range ats {
			ats[i] = fixture.Created.Add(time.Duration(random.Int64N(int64(length))))
			series.Add(ats[i], metadata.Point{Requests: 1})
		}

		slices.SortFunc(ats, time.Time.Compare)

		for i, at := range ats {
			ms := random.Int64N(1 << random.IntN(24))
			direct.Add(at, ms)
			part.Add(at, ms)

			j := int(at.Sub(series.Start)/time.Second) / series.IntervalSeconds
			values[j] = append(values[j], float64(ms)/1000)

			if i%100 == 99 || i+1 == len(ats) || ats[i+1].Sub(part.start) > 1000*time.Second {
				text, err := json.Marshal(&part)
				fixture.Must(t, err)
				var read Latencies
				fixture.Must(t, json.Unmarshal(text, &read))
				merged.Merge(&read)
				part = Latencies{}
			}
		}

		var got, want metadata.Series
		got, want = *series.Clone(), *series.Clone()
		merged.FillSeries(&got)
		direct.FillSeries(&want)

		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: latencies of parts (-whole +parts):\n%s", length, diff)
		}

		for i := range series.Len() {
			list := values[i]
			slices.Sort(list)
			for q, got := range map[float64]*float64{0.5: want.LatencyP50Seconds[i], 0.99: want.LatencyP99Seconds[i]} {
				if len(list) == 0 && got == nil {
					continue
				}
				if len(list) == 0 || got == nil {
					t.Fatalf("%s: interval %d of %d latencies has %v", length, i, len(list), got)
				}
				if exact := list[int(q*float64(len(list)-1))]; math.Abs(*got-exact) > 0.001+0.02*exact {
					t.Errorf("%s: quantile %v of interval %d is %v, want %v", length, q, i, *got, exact)
				}
			}
		}
	}
}

// A quantile of some of the requests of an interval is not one of all.
func TestLatenciesOfSome(t *testing.T) {
	t.Parallel()

	var (
		l      Latencies
		series metadata.Series
	)
	at := fixture.Created
	series.Add(at, metadata.Point{Requests: 3, Failed: 1})
	series.Add(at.Add(time.Second), metadata.Point{Requests: 3})
	series.Add(at.Add(2*time.Second), metadata.Point{})

	for range 2 {
		l.Add(at, 40)
		l.Add(at.Add(time.Second), 50)
	}

	l.FillSeries(&series)
	if diff := cmp.Diff([]*float64{new(0.04), nil, nil}, series.LatencyP50Seconds); diff != "" {
		t.Errorf("p50 (-want +got):\n%s", diff)
	}
}

// After a retry the latencies of the earlier output are still there, about.
func TestLatenciesOfHistory(t *testing.T) {
	t.Parallel()

	series := &metadata.Series{}
	series.Add(fixture.Created, metadata.Point{Requests: 200})
	series.Add(fixture.Created.Add(time.Second), metadata.Point{Requests: 1})
	series.Add(fixture.Created.Add(2*time.Second), metadata.Point{Requests: 5})
	series.LatencyP50Seconds = []*float64{new(2.0), new(4.0), nil}
	series.LatencyP99Seconds = []*float64{new(9.0), new(4.0), nil}

	var l Latencies
	l.addHistory(series)
	got := series.Clone()
	l.FillSeries(got)

	for i := range got.Len() {
		for _, both := range [][2]*float64{
			{series.LatencyP50Seconds[i], got.LatencyP50Seconds[i]},
			{series.LatencyP99Seconds[i], got.LatencyP99Seconds[i]},
		} {
			if (both[0] == nil) != (both[1] == nil) || both[0] != nil && math.Abs(*both[0] / *both[1] - 1) > 0.02 {
				t.Errorf("interval %d has %v, want %v", i, both[1], both[0])
			}
		}
	}
}
