package apiserver_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/apiserver"
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/proto"
)

// Each end of a batch that is retried has an event of its own, and an end that is passed twice has one.
func TestEventsOfRetries(t *testing.T) {
	t.Parallel()

	ids := map[string]int{}
	for retries := range 3 {
		b := batch.Batch{
			ID:          "batch_r",
			Run:         "r",
			State:       proto.StateCompleted,
			CompletedAt: time.Unix(int64(retries), 0),
			Retries:     retries,
		}

		for range 2 {
			var body struct{ ID, Type string }
			if err := json.Unmarshal(apiserver.NewEvent(b, "host:/r").Body(), &body); err != nil {
				t.Fatal(err)
			}
			if body.Type != "batch.completed" {
				t.Errorf("the event is %+v", body)
			}
			ids[body.ID]++
		}
	}

	if len(ids) != 3 {
		t.Errorf("the ids of the events of three ends are %v", ids)
	}
}
