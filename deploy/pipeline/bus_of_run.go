package pipeline

import (
	"context"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto/bus"
)

// checkStaysUp refuses to put a run on a bus that ends with another run. hint names
// another bus.
func checkStaysUp(ctx context.Context, l *busconn.Connection, hint string) error {
	asking, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()

	run, err := bus.New(l.JS).Runs.EndsWith(asking)
	switch {
	case err != nil:
		return l.Explain(err)
	case run == "":
		return nil
	}

	return exit.Usage(hint, "the bus at %s belongs to promptmill run, and ends with its run %s", l.Name, run)
}
