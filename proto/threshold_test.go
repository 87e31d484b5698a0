package proto

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseThreshold(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		text string
		want Threshold
	}{
		{"failed>1%", Threshold{Metric: MetricFailed, Value: 1, Percent: true}},
		{"failed>0.5%", Threshold{Metric: MetricFailed, Value: 0.5, Percent: true}},
		{"failed>=0.07%", Threshold{Metric: MetricFailed, OrEqual: true, Value: 0.07, Percent: true}},
		{"failed>0%", Threshold{Metric: MetricFailed, Percent: true}},
		{"failed>100%", Threshold{Metric: MetricFailed, Value: 100, Percent: true}},
		{"failed>0", Threshold{Metric: MetricFailed}},
		{"failed>1", Threshold{Metric: MetricFailed, Value: 1}},
		{"failed>=5000000", Threshold{Metric: MetricFailed, OrEqual: true, Value: 5e6}},
		{"truncated>10%", Threshold{Metric: MetricTruncated, Value: 10, Percent: true}},
	} {
		got, err := ParseThreshold(tt.text)
		if err != nil || got != tt.want || got.String() != tt.text {
			t.Errorf("%s: %+v, %v; as text: %s", tt.text, got, err, got)
		}
	}

	for text, want := range map[string]string{
		" failed > 1 % ":     "failed>1%",
		"failed >= 5k":       "failed>=5000",
		"truncated>1.0%":     "truncated>1%",
		"failed>0.0000001 %": "failed>0.0000001%",
	} {
		if got, err := ParseThreshold(text); err != nil || got.String() != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestParseThresholdRefuses(t *testing.T) {
	t.Parallel()

	const grammar = "want METRIC>VALUE or METRIC>=VALUE"
	for text, want := range map[string]string{
		"":              grammar,
		"failed":        grammar,
		"failed=1":      grammar,
		"failed<1%":     grammar,
		"1%":            grammar,
		">1%":           `"" is no metric: there are failed and truncated`,
		"fail>1%":       `"fail" is no metric: there are failed and truncated`,
		"Failed>1%":     `"Failed" is no metric: there are failed and truncated`,
		"latency>3s":    `"latency" is no metric: there are failed and truncated`,
		"failed>1,5%":   `"1,5%" is no percentage: write 1.5%`,
		"failed>1,5,5%": `"1,5,5%" is no percentage from 0% to 100%`,
		"failed>":       `"" is no whole number such as 500, 500k, 5M or 1e9`,
		"failed>%":      `"%" is no percentage from 0% to 100%`,
		"failed>-1%":    `"-1%" is no percentage from 0% to 100%`,
		"failed>101%":   `"101%" is no percentage from 0% to 100%`,
		"failed>1e1%":   `"1e1%" is no percentage from 0% to 100%`,
		"failed>NaN%":   `"NaN%" is no percentage from 0% to 100%`,
		"failed>1%%":    `"1%%" is no percentage from 0% to 100%`,
		"failed>>1%":    `">1%" is no percentage from 0% to 100%`,
		"failed>1.5":    `"1.5" is no whole number such as 500, 500k, 5M or 1e9`,
		"failed>-1":     `"-1" is no whole number such as 500, 500k, 5M or 1e9`,
		"failed>=0":     "failed>=0 is always true",
		"truncated>=0%": "truncated>=0% is always true",
	} {
		if got, err := ParseThreshold(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
}

// A policy has its thresholds as text, and a manifest with a broken one is refused.
func TestThresholdJSON(t *testing.T) {
	t.Parallel()

	want := RunPolicy{FailIf: []Threshold{{Metric: MetricFailed, Value: 1, Percent: true}}, MaxTokens: 5e6}
	text, err := json.Marshal(want)
	if err != nil || string(text) != `{"keep_seconds":0,"fail_if":["failed\u003e1%"],"max_tokens":5000000}` {
		t.Errorf("%s, %v", text, err)
	}

	var got RunPolicy
	if err := json.Unmarshal(text, &got); err != nil || !cmp.Equal(want, got) {
		t.Errorf("read again: %s, %v", cmp.Diff(want, got), err)
	}

	_, err = ParseManifest("r", []byte(`{"schema":3,"run":"r","state":"paused","policy":{"fail_if":["failed>-1"]}}`))
	if err == nil || !strings.Contains(err.Error(), `"-1" is no whole number`) {
		t.Errorf("a broken threshold: %v", err)
	}

	_, err = ParseManifest("r", []byte(`{"schema":3,"run":"r","state":"paused","policy":{"max_tokens":-1}}`))
	if err == nil || !strings.Contains(err.Error(), "policy.max_tokens") {
		t.Errorf("a negative limit of tokens: %v", err)
	}
}

func TestParseAmount(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]int64{
		"0":                0,
		"5":                5,
		"500000":           500_000,
		"500k":             500_000,
		"500K":             500_000,
		"5M":               5_000_000,
		"1.1M":             1_100_000,
		"0.0023k":          -1,
		"2G":               2_000_000_000,
		"1e9":              1_000_000_000,
		"1E+9":             1_000_000_000,
		"2.5e3":            2_500,
		"9007199254740991": 9_007_199_254_740_991,
		"9007199254740994": -1,
		"1e400":            -1,
		"1e10M":            -1,
		"":                 -1,
		"k":                -1,
		"5q":               -1,
		"5m":               -1,
		"5kM":              -1,
		"-5":               -1,
		"1.5":              -1,
		"0x10":             -1,
		"1_000":            -1,
		"1,000":            -1,
		"Inf":              -1,
		" 5":               -1,
	} {
		got, err := ParseAmount(text)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

// Whatever a person types, a threshold that is read is read again from its own text.
func FuzzParseThreshold(f *testing.F) {
	for _, text := range []string{"failed>1%", "truncated>=50", "failed > 5k", "failed>=0.07%", "failed", ">", "x>1e9"} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseThreshold(text)
		if err != nil {
			return
		}

		if err := got.Validate(); err != nil {
			t.Errorf("%q is read as %+v: %v", text, got, err)
		}

		if again, err := ParseThreshold(got.String()); err != nil || again != got {
			t.Errorf("%q is read as %+v, and %q as %+v, %v", text, got, got, again, err)
		}
	})
}
