package collector

import (
	"math"
	"testing"
	"time"
)

func TestResultRate(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }

	// steady has ten requests a second, stored in turn, and read with a delay.
	steady := func(r *resultRate, seconds int, delay func(i int) float64) {
		for i := range seconds * 10 {
			stored := float64(i) / 10
			r.add(at(stored), at(stored+delay(i)), 1)
		}
	}

	none := func(int) float64 { return 0 }
	for _, tt := range []struct {
		name string
		fill func(*resultRate)
		now  float64 // seconds
		want float64 // per second; -1: unknown
	}{
		{"nothing", func(*resultRate) {}, 5, -1},
		{"too short", func(r *resultRate) { steady(r, 1, none) }, 1, -1},
		{"steady", func(r *resultRate) { steady(r, 60, none) }, 60, 10},
		{"steady, by a bus whose clock is an hour behind", func(r *resultRate) {
			steady(r, 60, func(int) float64 { return 3600 })
		}, 3660, 10},
		{"found there, and read at once", func(r *resultRate) {
			steady(r, 60, func(i int) float64 { return 3600 - float64(i)/10 })
		}, 3600, 10},
		{"over for half the window", func(r *resultRate) { steady(r, 60, none) }, 75, 5},
		{"over for long", func(r *resultRate) { steady(r, 60, none) }, 600, 0},
		{"one in a minute", func(r *resultRate) {
			for i := range 4 {
				r.add(at(60*float64(i)), at(60*float64(i)), 1)
			}
		}, 180, 1. / 60},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var r resultRate
			tt.fill(&r)

			got := -1.0
			if p := r.perSecond(at(tt.now)); p != nil {
				got = *p
			}

			if math.Abs(got-tt.want) > 0.1*math.Abs(tt.want) {
				t.Errorf("%.3f requests per second, want %.3f", got, tt.want)
			}
		})
	}
}
