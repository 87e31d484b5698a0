package onend_test

import (
	"context"
	"fmt"
	"time"

	"github.com/promptmill/promptmill/deploy/onend"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/proto"
)

// A command at the end of a run.
func ExampleCommand_Run() {
	now := time.Now()
	command := onend.Command{
		Script: `echo "$PROMPTMILL_END_RUN is $PROMPTMILL_END_STATE"; exit 1`,
		Host:   "head",
		Print:  func(line string) { fmt.Println(line) },
	}

	err := command.Run(context.Background(), webhook.NewRunEvent(proto.Manifest{
		Run:       "nightly",
		State:     proto.StateCompleted,
		CreatedAt: now,
		EndedAt:   &now,
	}))

	fmt.Println(err)
	// Output:
	// nightly is completed
	// exit status 1: nightly is completed
}
