package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

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
	// maxTurn ends a turn that has work left where another run waits; turnUrgent where that
	// is more urgent. Loading a model may take minutes.
	maxTurn       = 10 * time.Minute
	minTurn       = time.Minute
	turnsAskEvery = 5 * time.Second // between questions whether the others have work
	// turnLinger is how long a turn goes on without work while its run is being published.
	turnLinger = 2 * time.Second
	// turnQuiet ends a turn of which there are only requests that wait for another attempt.
	turnQuiet = 30 * time.Second
)

// modelTurns are the models whose work is taken now. The fetch loop has them, but for held.
type modelTurns struct {
	list      []*modelTurn
	nextModel string        // gets the next free place, if it has work
	lastAsked time.Time     // for others' work
	maxTurn   time.Duration // turnLong, but in tests
	minTurn   time.Duration // likewise turnUrgent

	mu     sync.Mutex
	shards map[string]int // shards, by the model's name
}

// modelTurn is that of one model.
type modelTurn struct {
	model        string
	began        time.Time // with its first work; zero: it had none yet
	lastActive   time.Time // when it was last seen to have work
	lastInFlight time.Time // when a request was last seen at the server
	ending       bool      // others wait: no more is taken
}

// addShards counts shards of a model that are taken, or with -1 one that is done.
func (t *modelTurns) addShards(model string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if t.shards == nil {
		t.shards = map[string]int{}
	}

	if t.shards[model] += n; t.shards[model] == 0 {
		delete(t.shards, model)
	}
}

// hasShards reports whether shards of a model are in hand, under any of its names.
func (t *modelTurns) hasShards(model string, names modelNames) bool {
	t.mu.Lock()
	defer t.mu.Unlock()

	for name := range t.shards {
		if names.resolve(name) == model {
			return true
		}
	}

	return false
}

// modelNames tell which model a name stands for.
type modelNames []modelserver.Model

// resolve is the model that a name stands for, the name itself where nothing says so.
func (names modelNames) resolve(name string) string {
	for _, m := range names {
		if m.ID == name && m.AliasOf != "" {
			return m.AliasOf
		}
	}
	return name
}

// limitToTurns leaves of the sources those whose model has its turn, or gets one. Where the
// server has all of its models, that is each.
func (w *Worker) limitToTurns(ctx context.Context, list []pullCandidate) []pullCandidate {
	info, _ := w.Info()
	t, names := &w.turns, modelNames(info.Models)
	if info.MaxLoaded == 0 {
		t.list = nil
		return list
	}

	w.warnModelSwaps(list, info.MaxLoaded, names)

	now := time.Now()
	t.list = slices.DeleteFunc(t.list, func(turn *modelTurn) bool { return w.isTurnOver(turn, list, names, now) })
	w.endTurnForOthers(ctx, list, names, now)

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

// isTurnOver notes what a turn has, and reports whether that is nothing any more.
func (w *Worker) isTurnOver(t *modelTurn, list []pullCandidate, names modelNames, now time.Time) bool {
	listed := slices.ContainsFunc(list, func(from pullCandidate) bool { return names.resolve(from.source.model) == t.model })
	if w.turns.hasShards(t.model, names) {
		if t.began.IsZero() {
			t.began, t.lastInFlight = now, now
		}

		t.lastActive = now
		if w.stats.InFlight.Load() > 0 {
			t.lastInFlight = now
		}

		return now.Sub(t.lastInFlight) > turnQuiet && !listed
	}

	if t.began.IsZero() {
		return !listed
	}

	return t.ending || !listed && (now.Sub(t.lastActive) > turnLinger || w.isPublished(t.model, names))
}

// isPublished reports whether all runs that have a model are on the bus as a whole.
func (w *Worker) isPublished(model string, names modelNames) bool {
	w.active.mu.Lock()
	defer w.active.mu.Unlock()

	for _, f := range w.active.runs {
		has := slices.ContainsFunc(f.models, func(name string) bool { return names.resolve(name) == model })
		if has && !f.paused.Load() && !f.published.Load() {
			return false
		}
	}

	return true
}

// chooseModel is the model that gets the next turn: the one that was promised it, or one that is
// loaded already, if no other is more urgent.
func (t *modelTurns) chooseModel(list []pullCandidate, names modelNames, loaded []string) (model string, found bool) {
	for _, from := range list {
		name := names.resolve(from.source.model)
		if name == "" || slices.ContainsFunc(t.list, func(turn *modelTurn) bool { return turn.model == name }) {
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

	first := slices.IndexFunc(list, func(from pullCandidate) bool { return names.resolve(from.source.model) == model })
	for _, from := range list[first:] {
		name := names.resolve(from.source.model)
		if from.priority == list[first].priority && slices.Contains(loaded, name) &&
			!slices.ContainsFunc(t.list, func(turn *modelTurn) bool { return turn.model == name }) {
			return name, true
		}
	}

	return model, true
}

// endTurnForOthers ends a turn that has gone on for long if a run waits that is at least as urgent
// and gets nothing. Its model has the next turn.
func (w *Worker) endTurnForOthers(ctx context.Context, list []pullCandidate, names modelNames, now time.Time) {
	t := &w.turns
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
		if slices.ContainsFunc(t.list, func(turn *modelTurn) bool { return turn.model == model }) {
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

		if served[from.run] || from.source.model == "" || from.priority < least || now.Sub(oldest.began) < enough ||
			!w.hasPendingShards(ctx, from) {
			continue
		}

		oldest.ending, t.nextModel = true, names.resolve(from.source.model)
		w.cfg.Log.Info().Str("model", t.nextModel).Str("run", from.run.id).
			Msg("the server's models are changed, since another run waits for its own")

		return
	}
}

// hasPendingShards asks the bus whether a source has shards that nobody has.
func (w *Worker) hasPendingShards(ctx context.Context, from pullCandidate) bool {
	if w.bindSource(ctx, from.run, from.source) != nil {
		return false
	}
	info, err := from.source.consumer.Info(ctx)
	return err == nil && info.NumPending > 0
}

// warnModelSwaps says once for a run that has more models than the server holds what that costs.
func (w *Worker) warnModelSwaps(list []pullCandidate, holds int, names modelNames) {
	for _, from := range list {
		if from.run.swapsWarned {
			continue
		}

		from.run.swapsWarned = true
		models := map[string]bool{}
		served := w.servedModels()
		for _, name := range from.run.models {
			if name != "" && proto.Serves(served, name) {
				models[names.resolve(name)] = true
			}
		}

		if len(models) > holds {
			w.cfg.Log.Warn().Str("server", w.cfg.Server.URL()).Str("run", from.run.id).
				Msg(modelSwapsText(holds, len(models)))
		}
	}
}

// modelSwapsText says what a run with more models than a server holds costs there.
func modelSwapsText(holds, models int) string {
	one, change := "1 model", "1 change"
	if holds > 1 {
		one = fmt.Sprintf("%d models", holds)
	}

	if n := models - holds; n > 1 {
		change = fmt.Sprintf("%d changes", n)
	}

	return fmt.Sprintf("this server holds %s at a time: the run's %d models are worked on one after the other, %s",
		one, models, change)
}
