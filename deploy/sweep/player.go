package sweep

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto/bus"
)

// player is a variant that takes turns with others.
type player struct {
	*variant
	refusals

	server  *server
	journal *journal.Follower
	shown   trial.Variant // as it began
	show    func(trial.Variant, progress.Sample, trial.Speed)

	live   chan pipeline.LiveRun // gets the run once it is on the bus
	ended  chan struct{}         // closed when runErr is set; nil: not begun
	runErr error                 // of the run
	runs   *bus.RunStore         // nil: the run is not on the bus
	run    string

	tried  int // its requests that had ended by its last turn
	silent int // turns in a row in which none ended, after the first answer

	hasTurn   atomic.Bool
	turnBegan atomic.Pointer[time.Time] // of its measured turn; nil: there is none
	worked    atomic.Int64              // nanoseconds of its measured turns before
	idle      atomic.Int64              // samples in a row with no request in flight
	speed     atomic.Pointer[trial.Speed]
}

var _ follower = (*player)(nil)

// newPlayer returns the player of a variant whose server is open.
func (t *turns) newPlayer(v *variant, opened *server) *player {
	return &player{
		refusals: refusals{limit: t.cfg.refusal},
		variant:  v,
		server:   opened,
		journal:  journal.Follow(t.folder.output(v.Slug).Journal()),
		shown:    v.Variant,
		show:     t.cfg.Hooks.Progress,
		live:     make(chan pipeline.LiveRun, 1),
	}
}

// follow hands the run to the turns, and keeps it on the bus until ctx ends.
func (p *player) follow(ctx context.Context, run pipeline.LiveRun) error {
	p.live <- run

	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for p.err() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}

	return p.err()
}

// progress passes on the progress of the run while the player has its turn.
func (p *player) progress(sample progress.Sample) {
	p.note(sample)
	if sample.InFlight == 0 {
		p.idle.Add(1)
	} else {
		p.idle.Store(0)
	}

	if p.show == nil || !p.hasTurn.Load() {
		return
	}

	var speed trial.Speed
	if known := p.speed.Load(); known != nil {
		speed = *known
	}

	sample.ElapsedS = time.Duration(p.worked.Load()).Seconds()
	if began := p.turnBegan.Load(); began != nil {
		sample.ElapsedS += time.Since(*began).Seconds()
	}

	p.show(p.shown, sample, speed)
}

// timeInRounds returns how long the player has been measured.
func (p *player) timeInRounds() (sum time.Duration) {
	for _, round := range p.Rounds {
		sum += round.To.Sub(round.From)
	}
	p.worked.Store(int64(sum))

	return sum
}

// countSilence counts the turns in a row in which no request has ended. Before the first answer, it is not known how
// long one takes.
func (p *player) countSilence() {
	tried := 0
	if p.Run != nil {
		tried = p.Run.Results.CountSent()
	}

	if tried > p.tried || tried == 0 {
		p.silent = 0
	} else {
		p.silent++
	}
	p.tried = tried
}

// errEnded means that the run of a player has ended.
var errEnded = errors.New("the run has ended")

// connect waits until the run of the player is on the bus.
func (p *player) connect(ctx context.Context) error {
	select {
	case run := <-p.live:
		b, err := bus.Open(ctx, run.Bus.JS)
		if err != nil {
			return err
		}
		p.runs, p.run = b.Runs, run.Run

		return nil
	case <-p.ended:
		return errEnded
	}
}

// wait waits for a time. It returns false if ctx or the run ends before.
func (p *player) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-p.ended:
	case <-ctx.Done():
	}

	return false
}

// awaitIdle waits until no request of a paused run is in flight. It returns false if ctx or the run ends before.
func (p *player) awaitIdle(ctx context.Context) bool {
	const samples = 2 // in a row: a worker may be between two requests in one

	for p.idle.Store(0); p.idle.Load() < samples; {
		if !p.wait(ctx, 100*time.Millisecond) {
			return false
		}
	}

	return true
}

// endTime is how long a run may take to end after its bus has closed.
const endTime = 10 * time.Second

// isOver reports whether the run of the player has ended, given why a step of its turn failed, and waits for its end.
// The bus refuses to change a run that is over, and closes, while the run still writes its files.
func (p *player) isOver(ctx context.Context, err error) bool {
	var timeout <-chan time.Time
	if !errors.Is(err, errEnded) && !errors.Is(err, bus.ErrWrongState) {
		timeout = time.After(endTime)
	}

	select {
	case <-p.ended:
		return true
	case <-ctx.Done():
	case <-timeout:
	}

	return false
}

// meanLatency returns the mean latency of the requests so far; 0: unknown.
func (p *player) meanLatency() time.Duration {
	if p.Run == nil || p.Run.Results.LatencySeconds == nil {
		return 0
	}
	return time.Duration(p.Run.Results.LatencySeconds.Mean * float64(time.Second))
}

// close waits for the end of the run, and stops the server.
func (p *player) close(ctx context.Context) {
	if p.ended != nil {
		<-p.ended
	}

	p.journal.Close()
	p.server.close(ctx)
}
