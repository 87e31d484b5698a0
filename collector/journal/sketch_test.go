package journal

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/promptmill/promptmill/collector/internal/fixture"
)

// Equal is for cmp: two sketches are equal if they report the same.
func (s *Sketch) Equal(o *Sketch) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.Count() == o.Count() && math.Abs(s.Sum()-o.Sum()) < 1e-6*(1+s.Sum()) &&
		*s.Distribution(1, int(s.Count())) == *o.Distribution(1, int(o.Count()))
}

// Small numbers of tokens are exact.
func TestSketchOfSmallNumbers(t *testing.T) {
	t.Parallel()

	for v := range 100 {
		var s *Sketch
		addValue(&s, float64(v))
		addValue(&s, float64(v))
		addValue(&s, 1000)
		if d := s.Distribution(1, 3); d.P50 != float64(v) {
			t.Errorf("the median of %d, %d and 1000 is %v", v, v, d.P50)
		}
	}
}

// A Sketch that is merged from parts, some of them written and read, has the quantiles of
// all values within the promised error.
func TestSketch(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(3, 4))
	for name, draw := range map[string]func() float64{
		"one value":    func() float64 { return 7 },
		"uniform":      func() float64 { return math.Floor(random.Float64() * 5000) },
		"heavy tailed": func() float64 { return math.Floor(math.Exp(4 + 2*random.NormFloat64())) },
		"mostly 0":     func() float64 { return math.Floor(max(0, random.NormFloat64()-1)) },
	} {
		t.Run(name, func(t *testing.T) {
			var whole *Sketch
			var values []float64
			for part := range 40 {
				var s *Sketch
				for range 50 {
					v := draw()
					values = append(values, v)
					addValue(&s, v)
				}

				if part%2 == 0 {
					text, err := json.Marshal(s)
					fixture.Must(t, err)
					s = new(Sketch)
					fixture.Must(t, json.Unmarshal(text, s))
				}

				mergeSketch(&whole, s)
			}

			mergeSketch(&whole, nil)
			slices.Sort(values)

			sum := 0.0
			for _, v := range values {
				sum += v
			}

			d := whole.Distribution(2, len(values))
			if math.Abs(d.Mean*2-sum/float64(len(values))) > 1e-6 || d.Max*2 != values[len(values)-1] {
				t.Errorf("mean %v and most %v, want %v and %v",
					d.Mean*2, d.Max*2, sum/float64(len(values)), values[len(values)-1])
			}

			for q, got := range map[float64]float64{0.5: d.P50, 0.9: d.P90, 0.99: d.P99} {
				want := values[int(q*float64(len(values)-1))]
				if math.Abs(2*got-want) > 1.01*sketchAccuracy*want {
					t.Errorf("quantile %v is %v, want %v", q, 2*got, want)
				}
			}
		})
	}

	var none *Sketch
	if none.Distribution(1, 0) != nil || none.Distribution(1, 5) != nil || none.Count() != 0 || none.Sum() != 0 {
		t.Error("nothing has a distribution")
	}
}

func FuzzSketch(f *testing.F) {
	var s *Sketch
	addValue(&s, 0)
	addValue(&s, 12)

	text, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}

	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		var got Sketch
		if json.Unmarshal(text, &got) != nil || got.sketch == nil {
			return
		}
		mergeSketch(&s, &got)
		got.Distribution(1, int(got.Count()))
	})
}
