package worker

import (
	"cmp"
	"slices"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// pullCandidate is a source to pull from, with the figures that decide its place among the others.
type pullCandidate struct {
	run           *activeRun
	source        *shardSource
	priority      int
	requestsTaken int64
}

// listCandidates returns the sources to pull from, those of the most urgent run first. Among
// runs of equal priority the one of which the fewest requests were taken goes first. all is the
// number of sources, including those that had nothing a moment ago. The fetch loop calls it.
func (a *activeRuns) listCandidates(served []string, now time.Time) (list []pullCandidate, all int) {
	list = a.listSources(served)
	all = len(list)
	list = slices.DeleteFunc(list, func(c pullCandidate) bool { return !now.After(c.source.retryAt) })

	a.mu.Lock()
	defer a.mu.Unlock()

	a.rankByRun(list)
	slices.SortFunc(list, func(a, b pullCandidate) int {
		return cmp.Or(
			-cmp.Compare(a.priority, b.priority),
			cmp.Compare(a.requestsTaken, b.requestsTaken),
			a.source.lastPull.Compare(b.source.lastPull),
			cmp.Compare(a.source.model, b.source.model),
		)
	})

	return list, all
}

// listSources returns all sources of a worker whose server has some models. The fetch loop calls it.
func (a *activeRuns) listSources(served []string) (list []pullCandidate) {
	a.mu.Lock()
	defer a.mu.Unlock()

	for _, run := range a.byID {
		if run.paused.Load() {
			continue
		}

		for _, model := range run.models {
			// Refused lines have no model, and the server is not asked for them.
			if model != "" && !proto.Serves(served, model) {
				continue
			}

			s := run.fetch.sources[model]
			if s == nil {
				s = &shardSource{model: model}
				run.fetch.sources[model] = s
			}

			list = append(list, pullCandidate{run: run, source: s, priority: run.priority})
		}
	}

	return list
}

// rankByRun sets how many requests each candidate's run has taken. A run that is new in the
// list, or in it again, begins where the others are, so that it has no time to make up for. The
// caller holds the lock.
func (a *activeRuns) rankByRun(list []pullCandidate) {
	least := map[int]int64{} // by priority
	for _, c := range list {
		taken := c.run.fetch.requestsTaken
		if lowest, ok := least[c.priority]; c.run.fetch.listed && (!ok || taken < lowest) {
			least[c.priority] = taken
		}
	}

	for i, c := range list {
		if !c.run.fetch.listed {
			c.run.fetch.requestsTaken = max(c.run.fetch.requestsTaken, least[c.priority])
		}
		list[i].requestsTaken = c.run.fetch.requestsTaken
	}

	for _, run := range a.byID {
		run.fetch.listed = false
	}

	for _, c := range list {
		c.run.fetch.listed = true
	}
}

// fairShare returns how many requests the first of the list may take of the room: as many as the
// next run of its priority has had more than it, and an equal part of the rest.
func fairShare(list []pullCandidate, room int) int {
	first, equals, lead := list[0], 1, 0
	for _, other := range list[1:] {
		if other.priority == first.priority && other.run != first.run {
			if equals++; equals == 2 {
				lead = int(other.requestsTaken - first.requestsTaken)
			}
		}
	}

	if lead >= room {
		return room
	}

	return lead + (room-lead+equals-1)/equals
}
