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
			ElapsedS:     180,

			RemainingS:     new(120.0),
			RemainingLowS:  new(100.0),
			RemainingHighS: new(150.0),
		},
		AgeS:    180,
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
		HeardAgoS: 12.4,
	}}, 70)
	// Output:
	// RUN  LABEL    INPUT          STATE        DONE      FAILED  RATE   LEFT       AGE  COLLECTOR  MODELS  PRIORITY
	// r-1  nightly  tickets.jsonl  in_progress  4/10 40%  1       0.1/s  100-150 s  3m   -          m       0
	// ! r-1: no worker serves m
	// WORKER  STATE  HEARD     IN FLIGHT  RATE  DONE  MODELS  HOST  GPU
	// gpu1    ready  12 s ago  9/16       17/s  120   m       box   -
	// ! gpu1: last heard 12 s ago; a worker reports every 3 s, and is gone after 15 s of silence
}
