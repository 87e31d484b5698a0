package estimate_test

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/estimate"
)

// A server answers 50 requests/s, 100 at once, and each takes 2 s.
func ExampleOf() {
	run := estimate.Run{
		Requests:    3000,
		Concurrency: 100,
		Workers:     1,
		MeanLatency: 2,
		MaxLatency:  2.5,
	}
	for range 60 {
		run.Points = append(run.Points, estimate.Point{Seconds: 1, Done: 50, InFlight: 100})
	}

	e := estimate.Of(run, 200_000, 2)
	fmt.Printf("%d requests on %d workers: about %.0f s\n", e.Requests, e.Workers, e.Median)
	fmt.Println("within the interval:", e.Low <= e.Median && e.Median <= e.High)

	e = estimate.Of(estimate.Run{Requests: 10, Seconds: 1}, 200_000, 1)
	fmt.Printf("from 10 requests: %s, %d would do\n", e.Problem, e.Needed)

	// Output:
	// 200000 requests on 2 workers: about 2000 s
	// within the interval: true
	// from 10 requests: too few requests, 100 would do
}

// A server answers 50 requests/s, a few more in one second and fewer in the next.
func ExampleRateOf() {
	run := estimate.Run{Requests: 3000, Concurrency: 100, MeanLatency: 2}
	for i := range 60 {
		run.Points = append(run.Points, estimate.Point{Seconds: 1, Done: float64(45 + 10*(i%2)), InFlight: 100})
	}

	r := estimate.RateOf(run, 0.9)
	fmt.Printf("about %.0f requests/s\n", r.Median)
	fmt.Println("within the interval:", r.Low <= r.Median && r.Median <= r.High)

	// Output:
	// about 50 requests/s
	// within the interval: true
}
