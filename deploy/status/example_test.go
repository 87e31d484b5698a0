package status_test

import (
	"os"
	"time"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

func ExamplePrintWorkers() {
	status.PrintWorkers(os.Stdout, nil)
	status.PrintRuns(os.Stdout, []status.Run{{
		Manifest: proto.Manifest{
			Run:       "r-1",
			State:     proto.StateInProgress,
			Input:     proto.Input{Requests: 10, Models: map[string]int{"m": 10}},
			Counts:    proto.Counts{Done: 4, Failed: 1},
			CreatedAt: time.Now().Add(-3 * time.Minute),
		},
		Problem: "no worker serves m",
	}})
	// Output:
	// no workers
	// RUN  STATE        DONE  FAILED  PRIORITY  MODELS  AGE
	// r-1  in_progress  4/10  1       0         m       3m
	// ! r-1: no worker serves m
}
