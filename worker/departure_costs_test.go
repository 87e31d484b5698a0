package worker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// An announcement is one that readers accept at every moment: also between the end of an attempt that is
// thrown away and the return of its request, and with a reason that has a long path in it.
func TestDepartureIsAnnounced(t *testing.T) {
	t.Parallel()

	p := newPlan(4)
	c := &departureCosts{plan: p}
	p.set(Departure{Deadline: time.Now().Add(time.Minute), Reason: strings.Repeat("ü", 5000)}, time.Now())

	check := func(want proto.DepartureUsage) {
		t.Helper()

		info := proto.WorkerInfo{ID: "abcd2345", Name: "w", Departure: c.report()}
		text, err := json.Marshal(info)
		if err != nil {
			t.Fatal(err)
		}

		read, err := proto.ParseWorkerInfo("worker.abcd2345", text)
		if err != nil {
			t.Fatalf("the announcement is refused: %v", err)
		}
		if got := read.Departure.Runs["r"]; got != want {
			t.Errorf("%+v is announced, want %+v", got, want)
		}
	}

	c.countThrownAway("r", 3*time.Second)
	check(proto.DepartureUsage{ThrownAway: 1, ThrownAwaySeconds: 3})

	c.countHandedBack("r")
	check(proto.DepartureUsage{ThrownAway: 1, ThrownAwaySeconds: 3})

	c.countHandedBack("r")
	check(proto.DepartureUsage{HandedBack: 1, ThrownAway: 1, ThrownAwaySeconds: 3})

	if got, want := c.report().Reason, strings.Repeat("ü", maxReason/2)+"..."; got != want {
		t.Errorf("the reason has %d bytes, want %d", len(got), len(want))
	}
}
