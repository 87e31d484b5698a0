package collector

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// limitJudge stops a run that reaches a limit of its policy. The reader of results judges the counts
// after each message; the loop that talks to the bus pauses the run, and finds out when it is
// resumed. Then, as after a new start of the collector, the counts begin afresh.
type limitJudge struct {
	runs *bus.RunStore
	run  string
	// onStopped is called once the run is paused. Nil: it is not called.
	onStopped func(proto.ReachedLimit)
	// wake wakes the loop that talks to the bus.
	wake chan struct{}

	// mu guards the fields below.
	mu     sync.Mutex
	policy proto.RunPolicy
	// backlog is the end of the results that were there when the collector began.
	backlog journal.Position
	// base are the counts that do not count as ended since the latest start.
	base proto.Counts
	// working reports that the run was in progress when its manifest was read last.
	working bool
	// reached is the limit that stops the run. Nil: the run continues.
	reached *proto.ReachedLimit
	// paused reports that the run is paused on the bus, recorded that the journal has the stop and
	// the results until then, and reported that onStopped was called.
	paused, recorded, reported bool
}

func newLimitJudge(cfg *Config, runs *bus.RunStore) *limitJudge {
	state := cfg.Journal.State()

	return &limitJudge{
		runs:      runs,
		run:       state.Manifest.Run,
		onStopped: cfg.OnStopped,
		wake:      make(chan struct{}, 1),
		policy:    state.Manifest.Policy,
		base:      state.Counts,
	}
}

// restart begins the counts afresh.
func (j *limitJudge) restart(received proto.Counts) {
	j.mu.Lock()
	defer j.mu.Unlock()

	j.base = received
}

// begin notes the end of the results that came before the collector.
func (j *limitJudge) begin(backlog journal.Position) {
	j.mu.Lock()
	defer j.mu.Unlock()

	j.backlog = backlog
}

// skipBacklog takes the counts of a message out, if it came before the collector.
func (j *limitJudge) skipBacklog(at journal.Position, fresh proto.Counts) {
	j.mu.Lock()
	defer j.mu.Unlock()

	if at.Created.Equal(j.backlog.Created) && at.Sequence <= j.backlog.Sequence {
		j.base.Add(fresh)
	}
}

// judge returns the limit that a run has reached with the counts received so far, and has the run
// paused. It returns nil if there is none, or the run is stopped already.
func (j *limitJudge) judge(received proto.Counts) *proto.ReachedLimit {
	j.mu.Lock()
	defer j.mu.Unlock()

	if j.reached != nil || !j.working || !j.policy.HasLimits() {
		return nil
	}

	reached := j.policy.FindReachedLimit(received.Minus(j.base), received)
	if reached == nil {
		return nil
	}

	reached.At = time.Now().UTC()
	j.reached, j.recorded = reached, false

	j.wakeLoop()

	return reached
}

// noteRecorded notes that the journal has the stop and the results until then.
func (j *limitJudge) noteRecorded() {
	j.mu.Lock()
	defer j.mu.Unlock()

	j.recorded = true
	j.wakeLoop()
}

// wakeLoop wakes the loop that talks to the bus.
func (j *limitJudge) wakeLoop() {
	select {
	case j.wake <- struct{}{}:
	default: // it is about to look
	}
}

// pause pauses the run on the bus, if it has reached a limit and is not paused yet.
func (j *limitJudge) pause(ctx context.Context) error {
	j.mu.Lock()
	reached, paused := j.reached, j.paused
	j.mu.Unlock()

	if reached == nil || paused {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	err := j.runs.Stop(ctx, j.run, *reached)
	if err != nil && !errors.Is(err, bus.ErrWrongState) {
		return err
	}

	j.mu.Lock()
	defer j.mu.Unlock()

	j.paused = err == nil
	if err != nil { // the run ends in another way
		j.reached, j.working = nil, false
	}

	return nil
}

// report calls onStopped, once, for a run that is paused and whose stop is recorded.
func (j *limitJudge) report() {
	j.mu.Lock()
	reached, due := j.reached, j.paused && j.recorded && !j.reported
	j.reported = j.reported || due
	j.mu.Unlock()

	if due && j.onStopped != nil {
		j.onStopped(*reached)
	}
}

// follow takes the policy of a manifest, and finds out whether the run was stopped or resumed by
// another process.
func (j *limitJudge) follow(m proto.Manifest, received proto.Counts) {
	j.mu.Lock()
	defer j.mu.Unlock()

	j.policy, j.working = m.Policy, m.State == proto.StateInProgress

	switch stopped := m.State == proto.StatePaused && m.StoppedBy != nil; {
	case stopped && j.reached == nil: // before this process began to collect it
		j.reached, j.paused, j.recorded = m.StoppedBy, true, true
	case !stopped && j.paused:
		j.reached, j.base = nil, received
		j.paused, j.recorded, j.reported = false, false, false
	}
}

// isStopped reports whether a limit has stopped the run.
func (j *limitJudge) isStopped() bool {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.reached != nil
}

// isWorking reports whether the run was in progress when its manifest was read last, and no limit has
// stopped it since.
func (j *limitJudge) isWorking() bool {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.working && j.reached == nil
}

// setPolicy sets the policy of the run.
func (j *limitJudge) setPolicy(p proto.RunPolicy) {
	j.mu.Lock()
	defer j.mu.Unlock()

	j.policy = p
}

// currentPolicy returns the policy of the run as it was read last.
func (j *limitJudge) currentPolicy() proto.RunPolicy {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.policy
}
