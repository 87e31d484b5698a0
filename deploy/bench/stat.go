package main

import (
	"slices"
	"strconv"
)

// Stat is a figure over some rounds.
type Stat struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"` // in the order of the rounds
}

// newStat sums up values, of which there is at least one.
func newStat(values []float64) Stat {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}

	return Stat{
		Median: median,
		Min:    sorted[0],
		Max:    sorted[len(sorted)-1],
		Values: values,
	}
}

// String is the median, and the spread if there is one.
func (s Stat) String() string {
	text := formatFigure(s.Median)
	if low, high := formatFigure(s.Min), formatFigure(s.Max); low != high {
		text += " (" + low + "-" + high + ")"
	}
	return text
}

// formatFigure prints a number to three digits, and whole numbers beyond them in full.
func formatFigure(v float64) string {
	switch {
	case v >= 99.95 || v == float64(int64(v)):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
