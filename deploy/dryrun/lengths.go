package dryrun

import (
	"encoding/json"
	"slices"
)

// Lengths are the lengths of prompts in characters. The zero value has none.
type Lengths struct {
	// Requests is the number of prompts.
	Requests int
	// Characters is the sum of their lengths.
	Characters int64
	// Shortest and Longest are the least and the greatest length.
	Shortest, Longest int

	// counts counts the prompts by their length: counts[i] from bounds[i] up to the next bound.
	counts []int
}

// Bucket is the number of prompts whose lengths are in a range.
type Bucket struct {
	// From and To are the least and the greatest length.
	From int `json:"from"`
	To   int `json:"to"`
	// Requests is the number of prompts.
	Requests int `json:"requests"`
}

// bounds are the least lengths of the buckets: 0, 10, 20, 50, 100, 200, 500 and so on.
var bounds = func() []int {
	list := []int{0}
	for n := 10; n < 1e9; n *= 10 {
		list = append(list, n, 2*n, 5*n)
	}
	return list
}()

// add adds the length of a prompt.
func (l *Lengths) add(n int) {
	if l.counts == nil {
		l.counts = make([]int, len(bounds))
	}

	if l.Requests == 0 {
		l.Shortest = n
	}

	l.Requests++
	l.Characters += int64(n)
	l.Shortest, l.Longest = min(l.Shortest, n), max(l.Longest, n)

	i, exact := slices.BinarySearch(bounds, n)
	if !exact {
		i--
	}

	l.counts[i]++
}

// Buckets returns the histogram, from the first bucket with a prompt to the last one.
func (l Lengths) Buckets() (buckets []Bucket) {
	for i, n := range l.counts {
		to := l.Longest
		if i+1 < len(bounds) {
			to = bounds[i+1] - 1
		}
		if to >= l.Shortest && bounds[i] <= l.Longest {
			buckets = append(buckets, Bucket{From: bounds[i], To: to, Requests: n})
		}
	}

	return buckets
}

// MarshalJSON implements [json.Marshaler]. It has the buckets as histogram.
func (l Lengths) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Characters int64    `json:"characters"`
		Shortest   int      `json:"shortest"`
		Longest    int      `json:"longest"`
		Histogram  []Bucket `json:"histogram"`
	}{l.Characters, l.Shortest, l.Longest, l.Buckets()})
}
