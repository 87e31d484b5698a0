package sweep

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/trial"
)

// settleTime is the shortest time from the begin of a turn until its server counts as full again, in turns that are not
// short.
const settleTime = 2 * time.Second

// turns has variants take turns: each works for a round while the runs of the others are paused. So a drift of the
// machine meets all of them. Every other round goes through them backwards, so that a steady drift meets them alike.
type turns struct {
	*sweeper

	players []*player // that have not ended
}

// runTurns runs variants in turns until all have ended. It returns an error that ends the trial.
func (s *sweeper) runTurns(ctx context.Context, list []*variant) error {
	t := &turns{sweeper: s}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	// Round 0 warms the servers up: it finds the number of requests in flight, and is not measured.
	err := t.open(ctx, list)
	for number := 0; err == nil && len(t.players) > 0; number++ {
		err = t.playRound(ctx, number)
	}

	cancel(err)
	for _, p := range t.players {
		p.close(context.WithoutCancel(ctx))
	}

	return err
}

// open starts or finds the servers of variants.
func (t *turns) open(ctx context.Context, list []*variant) error {
	for _, v := range list {
		if err := t.start(v); err != nil {
			return err
		}

		if v.isComplete(t.folder) {
			if err := t.conclude(ctx, v, nil); err != nil {
				return err
			}
			continue
		}

		opened, err := t.openServer(ctx, v)
		if err == nil {
			t.players = append(t.players, t.newPlayer(v, opened))
			continue
		}

		if err := t.conclude(ctx, v, err); err != nil {
			return err
		}
	}

	return nil
}

// playRound has each player take a turn, and then ends those of which enough is known.
func (t *turns) playRound(ctx context.Context, number int) error {
	order := slices.Clone(t.players)
	if number%2 == 1 {
		slices.Reverse(order)
	}

	// It counts from its begin on: a process that is killed in it may have its measured turns on disk, and no later
	// round may have the same number.
	if number > 0 {
		t.record.Rounds++
	}

	for _, p := range order {
		if err := t.playTurn(ctx, p, number > 0); err != nil {
			return err
		}
	}

	if err := t.record.write(t.folder); err != nil {
		return err
	}

	if err := t.endPlayers(ctx, t.decide()); err != nil {
		return err
	}

	_, err := t.writePage(false)

	return err
}

// playTurn has a player work for a round, which may be measured.
func (t *turns) playTurn(ctx context.Context, p *player, measured bool) error {
	p.hasTurn.Store(true)
	defer p.hasTurn.Store(false)

	if err := t.resume(ctx, p); err != nil {
		return t.endTurn(ctx, p, err)
	}

	latency := p.meanLatency()
	if !p.wait(ctx, max(min(settleTime, t.cfg.Round/4), latency)) {
		return t.endTurn(ctx, p, errEnded)
	}

	round := trial.Round{Number: t.record.Rounds, From: time.Now().UTC()}
	if measured {
		p.turnBegan.Store(&round.From)
		defer p.turnBegan.Store(nil)
	}
	if !p.wait(ctx, max(t.cfg.Round, 5*latency)) {
		return t.endTurn(ctx, p, errEnded)
	}
	round.To = time.Now().UTC()

	if measured {
		p.Rounds = append(p.Rounds, round)
	}

	if err := p.runs.Pause(ctx, p.run); err != nil {
		return t.endTurn(ctx, p, err)
	}

	if !p.awaitIdle(ctx) {
		return t.endTurn(ctx, p, errEnded)
	}

	if err := p.readJournal(p.journal); err != nil {
		return err
	}
	p.countSilence()

	return nil
}

// resume has the run of a player work. It starts the run at the first turn.
func (t *turns) resume(ctx context.Context, p *player) error {
	if p.runs != nil {
		return p.runs.Resume(ctx, p.run)
	}

	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		p.runErr = t.runSample(ctx, p.variant, p.server, p)
	}()

	if err := p.connect(ctx); err != nil {
		return err
	}

	if p.Decided == "" {
		return p.runs.Resume(ctx, p.run)
	}

	// An earlier process was killed while the run ended.
	if err := p.runs.Cancel(ctx, p.run); err != nil {
		return err
	}

	return errEnded
}

// endTurn ends the turn of a player whose run has ended, or could not be changed.
func (t *turns) endTurn(ctx context.Context, p *player, err error) error {
	isOver := p.isOver(ctx, err)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isOver:
		return t.leave(ctx, p)
	}

	return err
}

// leave takes a player whose run ends out of the turns.
func (t *turns) leave(ctx context.Context, p *player) error {
	t.players = slices.DeleteFunc(t.players, func(other *player) bool { return other == p })
	p.close(ctx)

	return t.conclude(ctx, p.variant, p.runErr)
}

// decide returns the players that end now. A beaten one leaves the turns, and so does one whose server is gone. The
// others end together, since their rounds are compared in pairs.
func (t *turns) decide() (ending []*player) {
	var measured []*player
	for _, p := range t.players {
		d := t.judgePlayer(p)
		p.Decided, p.Why = d.State, d.Reason
		switch {
		case d.State == trial.Beaten, d.State == trial.Failed:
			ending = append(ending, p)
		case d.End:
			measured = append(measured, p)
		}
	}

	if len(ending)+len(measured) == len(t.players) {
		return append(ending, measured...)
	}

	for _, p := range measured {
		p.Decided, p.Why = "", ""
	}

	return ending
}

// mostSilent is how many turns in a row without an answer end a player. Each is longer than five of its requests took.
const mostSilent = 3

// judgePlayer decides whether a player ends. One whose server has died, or answers nothing any more, would hold up the
// others for ever.
func (t *turns) judgePlayer(p *player) trial.Decision {
	if p.silent >= mostSilent {
		return trial.Decision{
			End:    true,
			State:  trial.Failed,
			Reason: fmt.Sprintf("its server answered nothing in %d turns in a row", mostSilent),
		}
	}

	if p.Run != nil {
		speed := trial.MeasureSpeed(p.Variant)
		p.speed.Store(&speed)
	}

	return t.judgeSpeed(p.variant, p.timeInRounds())
}

// endPlayers ends the runs of players.
func (t *turns) endPlayers(ctx context.Context, ending []*player) error {
	if len(ending) == 0 {
		return nil
	}

	// The decisions are on disk before a run ends: else a process that goes on would not know them.
	if err := t.record.write(t.folder); err != nil {
		return err
	}

	for _, p := range ending {
		if err := p.runs.Cancel(ctx, p.run); err != nil && !p.isOver(ctx, err) {
			return err
		}
	}

	for _, p := range ending {
		if err := t.leave(ctx, p); err != nil {
			return err
		}
	}

	return nil
}
