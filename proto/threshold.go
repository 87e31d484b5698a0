package proto

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Metric is a count of requests that a [Threshold] bounds.
type Metric string

// The metrics of thresholds.
const (
	// MetricFailed counts the requests that failed. Refused input lines, and requests that were
	// cancelled or expired, were never sent, and do not count.
	MetricFailed Metric = "failed"
	// MetricTruncated counts the answers that were cut off at their token limit.
	MetricTruncated Metric = "truncated"
)

var metrics = []Metric{MetricFailed, MetricTruncated}

// validate returns an error if there is no such metric.
func (m Metric) validate() error {
	if !slices.Contains(metrics, m) {
		return fmt.Errorf("%q is no metric: there are failed and truncated", Excerpt(string(m)))
	}
	return nil
}

// Threshold is a bound on a count of requests. The zero value is not valid; [ParseThreshold] makes
// a threshold of its text, such as "failed>1%".
type Threshold struct {
	// Metric is the count.
	Metric Metric
	// OrEqual reports that the operator is >= instead of >.
	OrEqual bool
	// Value is the bound: a number of requests, or a percentage of the requests that have ended.
	Value float64
	// Percent reports that Value is a percentage.
	Percent bool
}

var errThreshold = errors.New("want METRIC>VALUE or METRIC>=VALUE")

// ParseThreshold reads a threshold: a metric, > or >=, and a count or a percentage, such as
// "failed>1%", "failed>=50" and "truncated>0.5%". [ParseAmount] reads the count.
func ParseThreshold(text string) (Threshold, error) {
	metric, value, found := strings.Cut(text, ">")
	if !found {
		return Threshold{}, errThreshold
	}

	t := Threshold{Metric: Metric(strings.TrimSpace(metric))}
	if err := t.Metric.validate(); err != nil {
		return Threshold{}, err
	}

	value, t.OrEqual = strings.CutPrefix(value, "=")
	value, t.Percent = strings.CutSuffix(strings.TrimSpace(value), "%")

	var err error
	if t.Value, err = parseBound(strings.TrimSpace(value), t.Percent); err != nil {
		return Threshold{}, err
	}

	return t, t.Validate()
}

// parseBound reads the value of a threshold.
func parseBound(text string, percent bool) (float64, error) {
	if !percent {
		n, err := ParseAmount(text)
		return float64(n), err
	}

	value, err := strconv.ParseFloat(text, 64)
	if err == nil && strings.Trim(text, "0123456789.") == "" {
		return value, nil
	}

	if point := strings.Replace(text, ",", ".", 1); point != text {
		if _, err := parseBound(point, true); err == nil {
			return 0, fmt.Errorf("%q is no percentage: write %s", Excerpt(text)+"%", Excerpt(point)+"%")
		}
	}

	return 0, fmt.Errorf("%q is no percentage from 0%% to 100%%", Excerpt(text)+"%")
}

// Validate returns an error if the threshold cannot be used.
func (t Threshold) Validate() error {
	if err := t.Metric.validate(); err != nil {
		return err
	}

	switch {
	case t.Percent && !(t.Value >= 0 && t.Value <= 100):
		return fmt.Errorf("\"%g%%\" is no percentage from 0%% to 100%%", t.Value)
	case !t.Percent && !(t.Value >= 0 && t.Value <= maxAmount && t.Value == math.Trunc(t.Value)):
		return fmt.Errorf("%g is no number of requests", t.Value)
	case t.OrEqual && t.Value == 0:
		return fmt.Errorf("%s is always true", t)
	}

	return nil
}

// String returns the text that [ParseThreshold] reads.
func (t Threshold) String() string {
	operator, unit := ">", ""
	if t.OrEqual {
		operator = ">="
	}
	if t.Percent {
		unit = "%"
	}

	return string(t.Metric) + operator + strconv.FormatFloat(t.Value, 'f', -1, 64) + unit
}

// MarshalText implements [encoding.TextMarshaler].
func (t Threshold) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Threshold) UnmarshalText(text []byte) (err error) {
	*t, err = ParseThreshold(string(text))
	return err
}

// isReached reports whether counts reach the threshold.
func (t Threshold) isReached(c Counts) bool {
	count, bound := float64(t.count(c)), t.Value
	if t.Percent {
		count, bound = 100*count, bound*float64(c.Executed())
	}

	excess := count - bound
	if math.Abs(excess) < 1e-9*bound { // 0.07 * 10000 is 700.0000000000001
		excess = 0
	}

	return excess > 0 || t.OrEqual && excess == 0 && count > 0
}

// count returns the count of the metric.
func (t Threshold) count(c Counts) int {
	if t.Metric == MetricTruncated {
		return c.Truncated
	}
	return c.Failed - c.Skipped
}

// maxAmount is the largest amount. Each whole number up to there is a float64.
const maxAmount = 1 << 53

// amountUnits are the suffixes of amounts.
var amountUnits = map[byte]float64{'k': 1e3, 'K': 1e3, 'M': 1e6, 'G': 1e9}

// ParseAmount reads a number of requests or tokens, such as 500000, 500k, 0.5M or 5e5.
func ParseAmount(text string) (int64, error) {
	number, factor := text, 1.0
	if last := len(text) - 1; last > 0 && amountUnits[text[last]] > 0 {
		number, factor = text[:last], amountUnits[text[last]]
	}

	value, err := strconv.ParseFloat(number, 64)
	value *= factor
	whole := math.Round(value) // 1.1M is 1100000.0000000002

	if err != nil || strings.Trim(number, "0123456789.eE+") != "" || math.Abs(value-whole) > 1e-6 || whole > maxAmount {
		return 0, fmt.Errorf("%q is no whole number such as 500, 500k, 5M or 1e9", Excerpt(text))
	}

	return int64(whole), nil
}
