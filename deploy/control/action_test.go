package control_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/promptmill/promptmill/deploy/control"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// An action is possible in the states in which it changes something, and in no others.
func TestPossibleActions(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	if err := bus.CreateBuckets(t.Context(), js, bus.Limits{}); err != nil {
		t.Fatal(err)
	}
	runs := bus.New(js).Runs

	for _, a := range control.Actions {
		for _, state := range []proto.State{
			proto.StateValidating, proto.StateFailed, proto.StateInProgress, proto.StatePaused, proto.StateFinalizing,
			proto.StateCompleted, proto.StateCancelling, proto.StateCancelled, proto.StateExpired,
		} {
			for _, failed := range []int{0, 3} {
				m := proto.Manifest{
					Schema: proto.ManifestSchema,
					Run:    fmt.Sprintf("%s-%s-%d", a.Name, state, failed),
					State:  state,
					Input:  proto.Input{Requests: 10},
					Counts: proto.Counts{Done: 5, Failed: failed},
				}
				if err := runs.Create(t.Context(), m); err != nil {
					t.Fatal(err)
				}

				after, err := a.Change(t.Context(), runs, m, proto.RunPolicy{})
				if changed := after.State != state; changed != a.IsPossible(m) {
					t.Errorf("%s of a run that is %s with %d failed: it is %s then, and possible is %t", a.Name, state,
						failed, after.State, a.IsPossible(m))
				}
				if err != nil && !errors.Is(err, bus.ErrWrongState) {
					t.Errorf("%s of a run that is %s: %v", a.Name, state, err)
				}
			}
		}
	}
}

// A refusal names the way out.
func TestRefusalHasAHint(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	if err := bus.CreateBuckets(t.Context(), js, bus.Limits{}); err != nil {
		t.Fatal(err)
	}
	runs := bus.New(js).Runs

	m := proto.Manifest{
		Schema: proto.ManifestSchema,
		Run:    "r",
		State:  proto.StateCompleted,
		Input:  proto.Input{Requests: 10},
		Counts: proto.Counts{Done: 10, Failed: 2},
	}
	if err := runs.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}

	pause, _ := control.Find("pause")
	_, err := pause.Change(t.Context(), runs, m, proto.RunPolicy{})
	if err == nil || err.Error() != "run r is completed and cannot be paused" ||
		exit.Hint(err) != "promptmill retry r runs its 2 failed requests again" {
		t.Errorf("%v; hint: %s", err, exit.Hint(err))
	}
}
