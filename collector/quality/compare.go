package quality

import (
	"fmt"
	"math"
)

// Measure is what a difference of two runs is of.
type Measure string

// The measures.
const (
	ByExpected Measure = "expected" // answers that equal the expected ones
	ByScore    Measure = "score"    // scores
	BySchema   Measure = "schema"   // answers that match the schema
)

// measures are all measures. Of two runs, the first one that both have counts.
var measures = []Measure{ByExpected, ByScore, BySchema}

// value returns the value of a measure for a request. It is not ok if the request has none.
func (m Measure) value(v verdict) (value float64, ok bool) {
	of := v.right
	switch m {
	case ByScore:
		return v.score, !math.IsNaN(v.score)
	case BySchema:
		of = v.matched
	}

	if of == yes {
		value = 1
	}

	return value, of != unknown
}

// Compare compares two runs of one sample by the files of their verdicts. It refuses runs of different samples or
// expected answers, or whose answers are read in different ways. The error wraps [proto.ErrFormat] if a file is
// damaged.
func Compare(verdictsA, verdictsB string) (Comparison, error) {
	a, err := readVerdicts(verdictsA)
	if err != nil {
		return Comparison{}, err
	}

	b, err := readVerdicts(verdictsB)
	if err != nil {
		return Comparison{}, err
	}

	var other string
	switch {
	case a.sample != b.sample || len(a.list) != len(b.list):
		other = "samples"
	case a.mode != b.mode:
		other = "settings of --match or --schema"
	case a.expected != b.expected:
		other = "expected answers"
	}
	if other != "" {
		return Comparison{}, fmt.Errorf("%s and %s are of different %s: only runs of the same trial can be compared",
			verdictsA, verdictsB, other)
	}

	return compare(a.list, b.list), nil
}

// compare compares two lists of verdicts of the same requests.
func compare(a, b []verdict) Comparison {
	var (
		c          Comparison
		same, both int
	)
	differences := make([]sums, len(measures))

	for i := range a {
		if a[i].outcome == notRun || b[i].outcome == notRun {
			continue
		}
		c.Common++

		if a[i].outcome == answered && b[i].outcome == answered {
			both++
			if a[i].answer == b[i].answer {
				same++
			}
		}

		for k, m := range measures {
			x, known := m.value(a[i])
			y, alsoKnown := m.value(b[i])
			if known && alsoKnown {
				differences[k].add(x - y)
			}
		}
	}

	if both > 0 {
		c.Agreement = NewShare(same, both)
	}

	for k := range measures {
		if differences[k].n > 0 {
			c.By, c.Difference = measures[k], differences[k].difference()
			break
		}
	}

	return c
}
