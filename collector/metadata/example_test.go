package metadata_test

import (
	"fmt"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

func ExampleRead() {
	run, err := metadata.Read("testdata/seed.meta.json")
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Println(run.Model, "on", run.Platform)
	fmt.Println(run.Results.SuccessCount, "of", run.Test.NumRequests, "requests were answered")
	fmt.Printf("%.1f requests/s\n", *run.Results.ThroughputRequestsPerSec)

	// Output:
	// olmo-3-7b on vllm
	// 10 of 10 requests were answered
	// 1.4 requests/s
}

// Intervals double where a series would have more than MaxPoints.
func ExampleSeries_Add() {
	var series metadata.Series
	began := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for second := range metadata.MaxPoints + 1 {
		series.Add(began.Add(time.Duration(second)*time.Second), metadata.Point{Requests: 3})
	}

	fmt.Printf("%d intervals of %d s, %d requests in the first\n",
		series.Len(), series.IntervalSeconds, series.At(0).Requests)

	// Output:
	// 1001 intervals of 2 s, 6 requests in the first
}
