package sweep

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/deploy/progress"
)

// refusals notes how long the server of a variant has failed all requests.
type refusals struct {
	limit  time.Duration               // too long
	failed atomic.Pointer[serverError] // set for good once it was too long
}

// note notes the progress of the run.
func (r *refusals) note(sample progress.Sample) {
	for _, w := range sample.ByWorker {
		if w.RefusedFor >= r.limit {
			r.failed.CompareAndSwap(nil, &serverError{fmt.Errorf("the server has answered no request for %s: %s",
				w.RefusedFor.Round(time.Second), w.Refusal)})
		}
	}
}

// err returns the error of a server that has failed all requests for too long, or nil.
func (r *refusals) err() error {
	if failed := r.failed.Load(); failed != nil {
		return failed
	}
	return nil
}
