package trial

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestDecide(t *testing.T) {
	t.Parallel()

	variant := func(name string, seconds int, requests int64, price float64) Variant {
		rng := rand.New(rand.NewPCG(1, 1))
		var flows []flow
		for range seconds {
			flows = append(flows, flow{1, requests + rng.Int64N(4), 0, 40})
		}

		v := Variant{Name: name, State: Running, Run: newRun(flows...)}
		if price > 0 {
			v.PricePerHour = &price
		}

		return v
	}
	slow, fast, faster := variant("slow", 40, 10, 1), variant("fast", 120, 40, 4), variant("faster", 120, 80, 16)
	cheap := variant("cheap", 40, 12, 1)
	unpriced := variant("unpriced", 120, 40, 0)
	failed := fast
	failed.State = Failed

	for _, tt := range []struct {
		name      string
		self      Variant
		others    []Variant
		precision float64
		goal      Goal
		want      Decision
	}{
		{"not begun", Variant{}, []Variant{fast}, 0.05, Throughput, Decision{State: Running}},
		{"precise", fast, []Variant{faster}, 0.5, Throughput, Decision{true, Measured, "its rate is known within 1"}},
		{"alone", slow, []Variant{{Name: "waits"}}, 1e-9, Throughput, Decision{State: Running}},
		{"by the best", slow, []Variant{fast, faster, {}}, 1e-9, Throughput,
			Decision{true, Beaten, "slower than faster for certain (99.9%): at most 13.0 requests/s against at least 81.0"}},
		{"not by one that failed", slow, []Variant{failed}, 1e-9, Throughput, Decision{State: Running}},
		{"not if quality counts", slow, []Variant{fast}, 1e-9, Best, Decision{State: Running}},
		{"by cost", faster, []Variant{slow, fast}, 1e-9, Cost, Decision{true, Beaten,
			"dearer than fast for certain (99.9%): at least 0.0542 per 1,000 answers against at most 0.0271"}},
		{"as cheap", slow, []Variant{cheap}, 1e-9, Cost, Decision{State: Running}},
		{"slower but cheaper", slow, []Variant{faster}, 1e-9, Cost, Decision{State: Running}},
		{"prices unknown", slow, []Variant{unpriced}, 1e-9, Cost, Decision{true, Beaten, "slower than unpriced"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Decide(tt.self, tt.others, tt.precision, tt.goal)
			if got.End != tt.want.End || got.State != tt.want.State || !strings.HasPrefix(got.Reason, tt.want.Reason) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	for f, want := range map[float64]string{0.01234: "0.0123", 0.5: "0.500", 1.234: "1.23", 12.34: "12.3", 123.4: "123"} {
		if got := formatFigure(f); got != want {
			t.Errorf("%v: %s, want %s", f, got, want)
		}
	}
}
