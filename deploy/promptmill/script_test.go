package main

import (
	"context"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func TestScripts(t *testing.T) {
	t.Parallel()

	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PROMPTMILL_STATE", e.WorkDir+"/state")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"drift": changeConsumer},
	})
}

// changeConsumer changes the consumer of a run on the script's bus, as a user might by
// hand: drift RUN MODEL.
func changeConsumer(ts *testscript.TestScript, _ bool, args []string) {
	state := ts.Getenv("PROMPTMILL_STATE")
	id, err := localbus.LoadIdentity(state)
	ts.Check(err)
	l, err := busconn.Join(id.Join(proto.RoleCollector, []string{localbus.List(state)[0].LocalAddress()}),
		zerolog.Nop())
	ts.Check(err)
	defer l.Close()

	ctx, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()

	cfg := bus.ConsumerConfig(args[0], args[1])
	cfg.AckWait = time.Hour
	_, err = l.JS.UpdateConsumer(ctx, proto.WorkStream(args[0]), cfg)
	ts.Check(err)
}
