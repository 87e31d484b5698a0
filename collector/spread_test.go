package collector

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Equal is for cmp: two spreads are equal if they tell the same.
func (s *spread) Equal(o *spread) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.count() == o.count() && math.Abs(s.sum()-o.sum()) < 1e-6*(1+s.sum()) &&
		*s.distribution(1, int(s.count())) == *o.distribution(1, int(o.count()))
}

// Small numbers of tokens are told as they are.
func TestSpreadOfSmallNumbers(t *testing.T) {
	t.Parallel()

	for v := range 100 {
		var s *spread
		addTo(&s, float64(v))
		addTo(&s, float64(v))
		addTo(&s, 1000)
		if d := s.distribution(1, 3); d.P50 != float64(v) {
			t.Errorf("the median of %d, %d and 1000 is %v", v, v, d.P50)
		}
	}
}

// The quantiles of a spread that was put together of parts, some of which were written
// and read, are those of all values, as near as promised.
func TestSpread(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(3, 4))
	for name, draw := range map[string]func() float64{
		"one value":    func() float64 { return 7 },
		"uniform":      func() float64 { return math.Floor(random.Float64() * 5000) },
		"heavy tailed": func() float64 { return math.Floor(math.Exp(4 + 2*random.NormFloat64())) },
		"mostly 0":     func() float64 { return math.Floor(max(0, random.NormFloat64()-1)) },
	} {
		t.Run(name, func(t *testing.T) {
			var whole *spread
			var values []float64
			for part := range 40 {
				var s *spread
				for range 50 {
					v := draw()
					values = append(values, v)
					addTo(&s, v)
				}

				if part%2 == 0 {
					text, err := json.Marshal(s)
					must(t, err)
					s = new(spread)
					must(t, json.Unmarshal(text, s))
				}

				mergeTo(&whole, s)
			}

			mergeTo(&whole, nil)
			slices.Sort(values)

			sum := 0.0
			for _, v := range values {
				sum += v
			}

			d := whole.distribution(2, len(values))
			if math.Abs(d.Mean*2-sum/float64(len(values))) > 1e-6 || d.Max*2 != values[len(values)-1] {
				t.Errorf("mean %v and most %v, want %v and %v",
					d.Mean*2, d.Max*2, sum/float64(len(values)), values[len(values)-1])
			}

			for q, got := range map[float64]float64{0.5: d.P50, 0.9: d.P90, 0.99: d.P99} {
				want := values[int(q*float64(len(values)-1))]
				if math.Abs(2*got-want) > 1.01*spreadAccuracy*want {
					t.Errorf("quantile %v is %v, want %v", q, 2*got, want)
				}
			}
		})
	}

	var none *spread
	if none.distribution(1, 0) != nil || none.distribution(1, 5) != nil || none.count() != 0 || none.sum() != 0 {
		t.Error("nothing has a distribution")
	}
}

func FuzzSpread(f *testing.F) {
	var s *spread
	addTo(&s, 0)
	addTo(&s, 12)

	text, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}

	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		var got spread
		if json.Unmarshal(text, &got) != nil || got.sketch == nil {
			return
		}
		mergeTo(&s, &got)
		got.distribution(1, int(got.count()))
	})
}
