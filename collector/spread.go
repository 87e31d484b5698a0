package collector

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"

	"github.com/promptmill/promptmill/collector/metadata"
)

// spread is how a quantity is spread over requests, in memory that does not grow with
// their number: count, sum, least and most are exact, quantiles within 1%. The values
// are whole numbers, and so are the quantiles. Those of parts merge into that of the
// whole. (Masson, Rim, Lee, DDSketch, VLDB 2019.)
type spread struct {
	sketch *ddsketch.DDSketchWithExactSummaryStatistics
}

const spreadAccuracy = 0.005

var spreadMapping, _ = mapping.NewLogarithmicMapping(spreadAccuracy)

func newSpread() *spread {
	return &spread{ddsketch.NewDDSketchWithExactSummaryStatistics(spreadMapping, store.DefaultProvider)}
}

// addTo adds a value to a spread, which it makes if need be.
func addTo(s **spread, value float64) {
	if *s == nil {
		*s = newSpread()
	}
	(*s).sketch.Add(value) // fails for what is no number, or too large for one
}

// mergeTo adds what another spread, which may be nil, has.
func mergeTo(s **spread, other *spread) {
	if other == nil {
		return
	}
	if *s == nil {
		*s = newSpread()
	}
	(*s).sketch.MergeWith(other.sketch) // fails for another mapping, of which there is none
}

// count and sum are exact. s may be nil.
func (s *spread) count() int64 {
	if s == nil {
		return 0
	}
	return int64(s.sketch.GetCount())
}

func (s *spread) sum() float64 {
	if s == nil {
		return 0
	}
	return s.sketch.GetSum()
}

// distribution is the spread in a unit of so many of ours, or nil if it does not have
// all of a number of requests.
func (s *spread) distribution(unit float64, requests int) *metadata.Distribution {
	if requests == 0 || s.count() < int64(requests) {
		return nil
	}

	q, err := s.sketch.GetValuesAtQuantiles([]float64{0.5, 0.9, 0.99})
	if err != nil {
		return nil
	}

	most, err := s.sketch.GetMaxValue()
	if err != nil {
		return nil
	}

	least, _ := s.sketch.GetMinValue()
	for i := range q {
		q[i] = min(max(math.Round(q[i]), least), most)
	}

	return &metadata.Distribution{
		Mean: s.sum() / float64(s.count()) / unit,
		P50:  q[0] / unit,
		P90:  q[1] / unit,
		P99:  q[2] / unit,
		Max:  most / unit,
	}
}

// MarshalJSON writes the library's own encoding, which is compact, in base64.
func (s *spread) MarshalJSON() ([]byte, error) {
	var b []byte
	s.sketch.Encode(&b, true)
	return json.Marshal(b)
}

// UnmarshalJSON reads what MarshalJSON has written.
func (s *spread) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}

	sketch, err := ddsketch.DecodeDDSketchWithExactSummaryStatistics(b, store.DefaultProvider, spreadMapping)
	if err != nil {
		return fmt.Errorf("spread of a quantity: %w", err)
	}

	s.sketch = sketch

	return nil
}
