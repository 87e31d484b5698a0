package tail_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A program reads the results of a run while they come, and returns when the run has ended.
// Here the run has ended, and the result of one request is not on the bus any more.
func ExampleReader() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	js, stopBus := testrun.StartBus()
	defer stopBus()

	manifest := fixture.Manifest(3)
	manifest.State = proto.StateCompleted

	limits := bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 1 << 20}
	if err := bus.CreateBuckets(ctx, js, limits); err != nil {
		log.Fatal(err)
	}

	if err := bus.EnsureStreams(ctx, js, manifest, limits); err != nil {
		log.Fatal(err)
	}

	if err := bus.New(js).Runs.Create(ctx, manifest); err != nil {
		log.Fatal(err)
	}

	lines := []byte(fixture.AllLines(0, 1))
	if _, err := js.PublishMsg(ctx, proto.EncodeResults("r", "0-0", []uint32{0, 1}, lines)); err != nil {
		log.Fatal(err)
	}

	r, err := tail.New(tail.Config{JS: js, Run: "r", Name: "dashboard"})
	if err != nil {
		log.Fatal(err)
	}

	missed, run, err := r.Run(ctx, func(lines []byte) error {
		fmt.Println("lines:", strings.Count(string(lines), "\n"))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println("the run is", run.State)
	fmt.Println("missed requests:", missed)

	// Output:
	// lines: 2
	// the run is completed
	// missed requests: {2}
}
