package worker

import "time"

// Departure is the end that is near for a worker: a cloud takes its machine back, a scheduler ends
// its job, or a person stops it.
type Departure struct {
	// Deadline is the time at which the machine, or the process, goes. Zero, or one that has passed:
	// at once.
	Deadline time.Time

	// Reason is why, for people: "AWS takes the instance back". Defaults to "it was asked to leave".
	Reason string

	// Stay lets a worker that has nothing to do stay until the deadline, since more requests may come and its
	// model server may answer again. Defaults to false: it ends at once.
	Stay bool
}

// defaultReason is the reason of a departure that has none.
const defaultReason = "it was asked to leave"

// Leave lets the worker use the time until a deadline and then go. From now on it begins only
// requests that will end in time, as far as the latencies of their run at this worker show that, and
// takes more of them as long as they fit. Requests that do not fit go back to the bus at once. What is
// in flight shortly before the deadline is cancelled and goes back, too. [Worker.Run] returns nil as
// soon as nothing is left that fits, or, without Departure.Stay, the bus has nothing more for the worker.
//
// A later call can only bring the deadline nearer; another one is ignored. If Run's context ends
// meanwhile, the worker takes no more, and ends after Config.Grace or at the deadline, whichever is
// first. Leave may be called at any time, by any goroutine.
func (w *Worker) Leave(d Departure) {
	if !w.plan.set(d, time.Now()) {
		return
	}

	set := w.plan.describe()
	w.cfg.Log.Warn().Str("reason", set.Reason).Time("deadline", set.Deadline).
		Msg("the worker leaves; it begins only requests that end in time")
}
