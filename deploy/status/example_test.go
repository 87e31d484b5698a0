package status_test

import (
	"os"
	"time"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

func ExamplePrintRuns() {
	status.PrintRuns(os.Stdout, []status.Run{{
		Manifest: proto.Manifest{
			Run:   "r-1",
			Label: "nightly",
			State: proto.StateInProgress,
			Input: proto.Input{Requests: 10, Models: map[string]int{"m": 10}},
		},
		InputName: "tickets.jsonl",
		Progress: status.Progress{
			Total:        10,
			Done:         4,
			Failed:       1,
			RequestsPerS: new(0.05),
			RemainingS:   new(120.0),
			ElapsedS:     180,
		},
		Problem: "no worker serves m",
	}}, 0)

	status.PrintWorkers(os.Stdout, []status.Worker{{
		WorkerInfo: proto.WorkerInfo{
			Name:        "gpu1",
			Host:        "box",
			Ready:       true,
			InFlight:    9,
			Concurrency: 16,
			PerSecond:   16.7,
			Done:        120,
			Models:      []string{"m"},
			Since:       time.Now().Add(-time.Hour),
		},
		HeardAt: time.Now().Add(-12 * time.Second),
	}}, 70)
	// Output:
	// RUN  LABEL    INPUT          STATE        DONE      FAILED  RATE   LEFT  TIME  MODELS  PRIORITY
	// r-1  nightly  tickets.jsonl  in_progress  4/10 40%  1       0.1/s  ~2m   3m    m       0
	// ! r-1: no worker serves m
	// WORKER  STATE  IN FLIGHT  RATE  DONE  HEARD    MODELS  HOST  GPU
	// gpu1    ready  9/16       17/s  120   12s ago  m       box   -
}
