package pipeline

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Two submits of the same run at the same time: one begins it, the other reports that.
func TestSubmitTwice(t *testing.T) {
	t.Parallel()

	l := startServer(t).as(t, proto.RoleProducer)
	opened, err := bus.Open(t.Context(), l.JS)
	if err != nil {
		t.Fatal(err)
	}

	s := &submission{Bus: opened, link: l}
	m := proto.Manifest{Schema: proto.ManifestSchema, Run: "r", State: proto.StateValidating, CreatedAt: time.Now()}
	if err := s.announce(t.Context(), m); err != nil {
		t.Fatal(err)
	}

	if err := s.announce(t.Context(), m); err != nil {
		t.Errorf("go on with it: %v", err)
	}

	err = s.Runs.Update(t.Context(), "r", func(now *proto.Manifest) error {
		now.State = proto.StateInProgress
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	if err := s.publish(t.Context(), m, false); !errors.Is(err, errTaken) {
		t.Errorf("a run that is in progress is submitted again: %v", err)
	}
}

// A wait that is stopped before it has reached the bus says that the run continues.
func TestAwaitEndStopped(t *testing.T) {
	t.Parallel()

	l := startServer(t).as(t, proto.RoleProducer)
	ctx, stop := context.WithCancel(t.Context())
	stop()

	_, err := AwaitEnd(ctx, l, proto.Manifest{Run: "r"}, Hooks{})
	if !errors.Is(err, ErrInterrupted) || exit.Code(err) != exit.CodeInterrupted ||
		exit.Hint(err) != "promptmill status r" {
		t.Errorf("got %v, exit code %d, hint %q", err, exit.Code(err), exit.Hint(err))
	}
}
