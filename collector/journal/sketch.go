package journal

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"

	"github.com/promptmill/promptmill/collector/metadata"
)

// Sketch is the distribution of a quantity over requests, in memory that does not grow with
// their number. Count, sum, minimum and maximum are exact, quantiles within 1%. The values
// are whole numbers, and so are the quantiles. Sketches of parts merge into the sketch of
// the whole. (Masson, Rim, Lee, DDSketch, VLDB 2019.)
//
// A nil Sketch is empty.
type Sketch struct {
	sketch *ddsketch.DDSketchWithExactSummaryStatistics
}

// sketchAccuracy is the relative error of a quantile before it is rounded.
const sketchAccuracy = 0.005

var sketchMapping, _ = mapping.NewLogarithmicMapping(sketchAccuracy)

func newSketch() *Sketch {
	return &Sketch{ddsketch.NewDDSketchWithExactSummaryStatistics(sketchMapping, store.DefaultProvider)}
}

// addValue adds a value to a sketch, which it creates if it is nil.
func addValue(s **Sketch, value float64) {
	if *s == nil {
		*s = newSketch()
	}
	(*s).sketch.Add(value) // fails for NaN and for values that are too large
}

// mergeSketch adds another sketch to a sketch, which it creates if it is nil.
func mergeSketch(s **Sketch, other *Sketch) {
	if other == nil {
		return
	}
	if *s == nil {
		*s = newSketch()
	}
	(*s).sketch.MergeWith(other.sketch) // fails for another mapping, and there is only one
}

// Count returns the number of values.
func (s *Sketch) Count() int64 {
	if s == nil {
		return 0
	}
	return int64(s.sketch.GetCount())
}

// Sum returns the sum of the values.
func (s *Sketch) Sum() float64 {
	if s == nil {
		return 0
	}
	return s.sketch.GetSum()
}

// Distribution returns the mean and quantiles, divided by unit. It returns nil if fewer
// than requests values were added.
func (s *Sketch) Distribution(unit float64, requests int) *metadata.Distribution {
	if requests == 0 || s.Count() < int64(requests) {
		return nil
	}

	q, err := s.sketch.GetValuesAtQuantiles([]float64{0.5, 0.9, 0.99})
	if err != nil {
		return nil
	}

	highest, err := s.sketch.GetMaxValue()
	if err != nil {
		return nil
	}

	lowest, _ := s.sketch.GetMinValue()
	for i := range q {
		q[i] = min(max(math.Round(q[i]), lowest), highest)
	}

	return &metadata.Distribution{
		Mean: s.Sum() / float64(s.Count()) / unit,
		P50:  q[0] / unit,
		P90:  q[1] / unit,
		P99:  q[2] / unit,
		Max:  highest / unit,
	}
}

// MarshalJSON writes the library's own encoding, which is compact, in base64.
func (s *Sketch) MarshalJSON() ([]byte, error) {
	var b []byte
	s.sketch.Encode(&b, true)
	return json.Marshal(b)
}

// UnmarshalJSON reads the output of MarshalJSON.
func (s *Sketch) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}

	sketch, err := ddsketch.DecodeDDSketchWithExactSummaryStatistics(b, store.DefaultProvider, sketchMapping)
	if err != nil {
		return fmt.Errorf("sketch: %w", err)
	}

	s.sketch = sketch

	return nil
}
