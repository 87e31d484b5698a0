package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// Some servers have only a few of their models loaded, and unload one to load another:
// llama.cpp's router, Ollama, LM Studio, llama-swap. Requests for two models in turns then
// cost a load each, and where a model is unloaded though it has requests, these fail. So the
// models have turns: the fetch loop takes the shards of as many as the server holds, and those
// of another when all that was taken of one is done and no more is there. Other workers may
// have the turns of others meanwhile.

const (
	// maxTurn ends a turn that has work left where another run waits; minTurn where that run
	// is more urgent. Loading a model may take minutes.
	maxTurn = 10 * time.Minute
	minTurn = time.Minute

	// turnsAskEvery is the time between questions whether the others have work.
	turnsAskEvery = 5 * time.Second

	// turnLinger is the time that a turn lasts without work while its run is being published.
	turnLinger = 2 * time.Second

	// turnQuiet ends a turn that has only requests that wait for another attempt.
	turnQuiet = 30 * time.Second
)

// modelTurns are the models whose work is taken now. The fetch loop alone uses them.
type modelTurns struct {
	runs   *activeRuns
	inHand *shardCounter
	stats  *Stats
	log    zerolog.Logger
	server string // its URL

	// countPending asks the bus how many shards of a source no worker has.
	countPending func(ctx context.Context, from pullCandidate) (int, error)

	// maxTurn and minTurn are the constants of these names, except in tests.
	maxTurn time.Duration
	minTurn time.Duration

	list []*modelTurn

	// nextModel gets the next free place, if it has work.
	nextModel string

	// lastAsked is the time of the latest question to the bus whether the others have work.
	lastAsked time.Time
}

// modelTurn is the turn of one model.
type modelTurn struct {
	model string

	// began is the time of its first work; zero: it had none yet.
	began time.Time

	// lastActive is the latest time at which it had work, and lastInFlight the latest at which a
	// request was at the server.
	lastActive   time.Time
	lastInFlight time.Time

	// ending is set when others wait: no more work is taken.
	ending bool
}

// modelNames resolve aliases of models.
type modelNames []modelserver.Model

// resolve returns the model that a name stands for, or the name itself if the server lists no
// alias of that name.
func (names modelNames) resolve(name string) string {
	for _, m := range names {
		if m.ID == name && m.AliasOf != "" {
			return m.AliasOf
		}
	}
	return name
}

// limitToTurns leaves in the list the sources whose model has its turn, or gets one. Where the
// server has all of its models loaded, these are all sources.
func (t *modelTurns) limitToTurns(ctx context.Context, list []pullCandidate, info modelserver.Info) []pullCandidate {
	if info.MaxLoaded == 0 {
		t.list = nil
		return list
	}

	names := modelNames(info.Models)
	t.warnSwaps(list, info, names)

	now := time.Now()
	t.list = slices.DeleteFunc(t.list, func(turn *modelTurn) bool { return t.isOver(turn, list, names, now) })
	t.endForOthers(ctx, list, names, now)

	for len(t.list) < info.MaxLoaded {
		model, found := t.chooseModel(list, names, info.Loaded)
		if !found {
			break
		}
		t.list = append(t.list, &modelTurn{model: model})
	}

	return slices.DeleteFunc(slices.Clone(list), func(from pullCandidate) bool {
		model := names.resolve(from.source.model)
		return model != "" && !slices.ContainsFunc(t.list, func(turn *modelTurn) bool {
			return turn.model == model && !turn.ending
		})
	})
}

// hasTurn reports whether a model has a turn now.
func (t *modelTurns) hasTurn(model string) bool {
	return slices.ContainsFunc(t.list, func(turn *modelTurn) bool { return turn.model == model })
}

// isOver notes whether a turn has work, and reports whether the turn is over.
func (t *modelTurns) isOver(turn *modelTurn, list []pullCandidate, names modelNames, now time.Time) bool {
	listed := slices.ContainsFunc(list, func(from pullCandidate) bool {
		return names.resolve(from.source.model) == turn.model
	})

	if t.inHand.has(turn.model, names) {
		if turn.began.IsZero() {
			turn.began, turn.lastInFlight = now, now
		}

		turn.lastActive = now
		if t.stats.InFlight.Load() > 0 {
			turn.lastInFlight = now
		}

		return now.Sub(turn.lastInFlight) > turnQuiet && !listed
	}

	if turn.began.IsZero() {
		return !listed
	}

	return turn.ending ||
		!listed && (now.Sub(turn.lastActive) > turnLinger || t.runs.isPublished(turn.model, names))
}

// isPublished reports whether all runs that have a model are on the bus as a whole.
func (a *activeRuns) isPublished(model string, names modelNames) bool {
	a.mu.Lock()
	defer a.mu.Unlock()

	for _, run := range a.byID {
		has := slices.ContainsFunc(run.models, func(name string) bool { return names.resolve(name) == model })
		if has && !run.paused.Load() && !run.published.Load() {
			return false
		}
	}

	return true
}

// chooseModel returns the model that gets the next turn: the one to which it was promised, or
// one that is loaded already, if no other is more urgent.
func (t *modelTurns) chooseModel(list []pullCandidate, names modelNames, loaded []string) (model string, found bool) {
	for _, from := range list {
		name := names.resolve(from.source.model)
		if name == "" || t.hasTurn(name) {
			continue
		}

		if name == t.nextModel {
			t.nextModel = ""
			return name, true
		}

		if !found {
			model, found = name, true
		}
	}

	if t.nextModel != "" {
		t.nextModel = ""
		return model, found
	}

	if !found {
		return "", false
	}

	first := slices.IndexFunc(list, func(from pullCandidate) bool {
		return names.resolve(from.source.model) == model
	})
	for _, from := range list[first:] {
		name := names.resolve(from.source.model)
		if from.priority == list[first].priority && slices.Contains(loaded, name) && !t.hasTurn(name) {
			return name, true
		}
	}

	return model, true
}

// endForOthers ends a turn that has lasted for long if a run waits that is at least as urgent
// and gets nothing. The model of that run has the next turn.
func (t *modelTurns) endForOthers(ctx context.Context, list []pullCandidate, names modelNames, now time.Time) {
	if len(t.list) == 0 || now.Sub(t.lastAsked) < min(turnsAskEvery, t.minTurn) {
		return
	}

	oldest := slices.MinFunc(t.list, func(a, b *modelTurn) int { return a.began.Compare(b.began) })
	if oldest.began.IsZero() || oldest.ending || now.Sub(oldest.began) < t.minTurn {
		return
	}

	t.lastAsked = now

	least, served := 0, map[*activeRun]bool{} // the urgency of the oldest turn; the runs that have one
	for _, from := range list {
		model := names.resolve(from.source.model)
		if t.hasTurn(model) {
			served[from.run] = true
		}
		if model == oldest.model {
			least = max(least, from.priority)
		}
	}

	for _, from := range list {
		enough := t.maxTurn
		if from.priority > least {
			enough = t.minTurn
		}

		if served[from.run] || from.source.model == "" || from.priority < least || now.Sub(oldest.began) < enough {
			continue
		}

		if pending, err := t.countPending(ctx, from); err != nil || pending == 0 {
			continue
		}

		oldest.ending, t.nextModel = true, names.resolve(from.source.model)
		t.log.Info().Str("model", t.nextModel).Str("run", from.run.id).
			Msg("changing the server's models: another run waits for its own")

		return
	}
}

// warnSwaps logs once the cost of a run that has more models than the server holds.
func (t *modelTurns) warnSwaps(list []pullCandidate, info modelserver.Info, names modelNames) {
	for _, from := range list {
		if from.run.fetch.swapsWarned {
			continue
		}

		from.run.fetch.swapsWarned = true
		served, models := info.ModelNames(), map[string]bool{}
		for _, name := range from.run.models {
			if name != "" && proto.Serves(served, name) {
				models[names.resolve(name)] = true
			}
		}

		if len(models) > info.MaxLoaded {
			t.log.Warn().Str("server", t.server).Str("run", from.run.id).
				Msg(modelSwapsText(info.MaxLoaded, len(models)))
		}
	}
}

// modelSwapsText describes the cost of a run with more models than a server holds.
func modelSwapsText(holds, models int) string {
	held, changes := "1 model", "1 change"
	if holds > 1 {
		held = fmt.Sprintf("%d models", holds)
	}

	if n := models - holds; n > 1 {
		changes = fmt.Sprintf("%d changes", n)
	}

	return fmt.Sprintf("this server holds %s at a time: the run's %d models are worked on one after the other, %s",
		held, models, changes)
}
