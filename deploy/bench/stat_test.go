package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStat(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		values []float64
		want   Stat
		text   string
	}{
		{"one value has no spread", []float64{3}, Stat{3, 3, 3, []float64{3}}, "3"},
		{"the middle of three, in any order", []float64{300, 100, 200}, Stat{200, 100, 300, []float64{300, 100, 200}},
			"200 (100-300)"},
		{"between the middle two of four", []float64{1, 2, 4, 50}, Stat{3, 1, 50, []float64{1, 2, 4, 50}}, "3 (1-50)"},
		{"a spread too small to be seen", []float64{1234.1, 1234.2, 1234.3},
			Stat{1234.2, 1234.1, 1234.3, []float64{1234.1, 1234.2, 1234.3}}, "1234"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got := newStat(tt.values)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("stat (-want +got):\n%s", diff)
			}

			if got.String() != tt.text {
				t.Errorf("text %q, want %q", got, tt.text)
			}
		})
	}
}

func TestFigureHasThreeDigits(t *testing.T) {
	t.Parallel()

	for v, want := range map[float64]string{
		0:        "0",
		0.004:    "0.00",
		0.25:     "0.25",
		1.234:    "1.23",
		9.994:    "9.99",
		9.996:    "10.0",
		12.34:    "12.3",
		99.94:    "99.9",
		99.96:    "100",
		123456.7: "123457",
		64:       "64",
	} {
		if got := formatFigure(v); got != want {
			t.Errorf("figure(%g) = %q, want %q", v, got, want)
		}
	}
}
