package page

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// A worker that was asked to leave is shown with why and when, and one that stays without.
func TestDescribeLeavingWorker(t *testing.T) {
	t.Parallel()

	deadline := time.Date(2026, 11, 3, 8, 0, 0, 0, time.UTC)
	info := proto.WorkerInfo{
		Name:      "box",
		Engines:   8,
		Departure: &proto.Departure{Reason: "SIGTERM", Deadline: deadline, Slots: 4},
	}

	got := describeWorker(info, "box")
	if diff := cmp.Diff(&Departure{Reason: "SIGTERM", Deadline: deadline}, got.Departure); diff != "" || got.Engines != 8 {
		t.Errorf("%d engines, the departure (-want +got):\n%s", got.Engines, diff)
	}

	if stays := describeWorker(proto.WorkerInfo{Name: "box"}, "box"); stays.Departure != nil {
		t.Errorf("a worker that stays leaves: %+v", stays.Departure)
	}
}
