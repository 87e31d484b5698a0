package apiserver

import (
	"cmp"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/proto"
)

// NewEvent returns the event of a batch that has ended. output is the output of its run, as HOST:PATH; a
// batch that was refused has none.
func NewEvent(b batch.Batch, output string) webhook.Event {
	at := map[proto.State]time.Time{
		proto.StateCompleted: b.CompletedAt,
		proto.StateFailed:    b.FailedAt,
		proto.StateExpired:   b.ExpiredAt,
		proto.StateCancelled: b.CancelledAt,
	}
	if b.State == proto.StateFailed {
		output = ""
	}

	return webhook.Event{
		Type:    "batch." + string(b.State),
		BatchID: b.ID,
		At:      cmp.Or(at[b.State], time.Now()),
		Retries: b.Retries,
		Run: &webhook.Run{
			ID:       b.Run,
			State:    b.State,
			Output:   output,
			Answered: b.Completed,
			Failed:   b.Failed,
		},
	}
}
