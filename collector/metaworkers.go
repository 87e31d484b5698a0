package collector

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// byStart orders stints by the names of the workers and by time.
func byStart(a, b journal.WorkerSession) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since))
}

// metaWorkers are the workers that took part in a run, by name. requests are those that
// the output has from each name; nil: unknown.
func metaWorkers(stints []journal.WorkerSession, requests map[string]int64) []metadata.Worker {
	byName := map[string][]journal.WorkerSession{}
	for name := range requests {
		byName[name] = nil
	}

	for _, s := range stints {
		byName[s.Name] = append(byName[s.Name], s)
	}

	var list []metadata.Worker
	if requests != nil {
		list = []metadata.Worker{} // we would know of any
	}

	for _, name := range slices.Sorted(maps.Keys(byName)) {
		own := byName[name]
		shared := slices.DeleteFunc(slices.Clone(own), func(s journal.WorkerSession) bool { return s.Usage == nil })
		if len(shared) > 0 {
			own = shared
		} else if requests[name] == 0 {
			continue
		}

		list = append(list, namesakes(name, own, requests)...)
	}

	labels := proto.Labels(len(list), func(i int) (name, id string) { return list[i].Name, list[i].ID })
	for i := range list {
		if labels[i] != list[i].Name {
			list[i].Label = labels[i]
		}
	}

	return list
}

// namesakes are the workers of one name. The output tells how many requests are from the
// name; which of several workers ran them, only these can tell.
func namesakes(name string, stints []journal.WorkerSession, requests map[string]int64) (list []metadata.Worker) {
	lives := livesOf(stints)
	told := int64(0)
	for _, life := range lives {
		w := metadata.Worker{Name: name, Sessions: []metadata.WorkerSession{}}
		if len(life) > 0 {
			w.ID = life[len(life)-1].ID
		}
		if requests != nil && len(lives) == 1 {
			w.Requests = new(requests[name])
		}

		spent := sumStints(&w, life)
		if spent != nil {
			told += spent.Requests
			w.EnergyJoules = spent.EnergyJoules
		}

		if requests != nil && w.Requests == nil {
			w.Requests = new(int64(0))
			if spent != nil {
				w.Requests = &spent.Requests
			}
		}

		list = append(list, w)
	}

	if requests != nil {
		settleRequests(list, requests[name])
	}

	if requests != nil && told*100 < requests[name]*95 {
		for i := range list {
			list[i].EnergyJoules = nil // that of the others is unknown
		}
	}

	return list
}

// settleRequests makes the requests of the workers of one name, and of their stints, add up to
// those that the output has from the name: a stint has what its worker announced last. What
// was never announced was done by the one heard last. What is too much was answered
// again, or failed and was run again, and so is of the first.
func settleRequests(list []metadata.Worker, total int64) {
	var stints []*metadata.WorkerSession
	rest := total
	for i := range list {
		for j := range list[i].Sessions {
			s := &list[i].Sessions[j]
			s.Requests = new(metadata.OrZero(s.Requests))
			rest -= *s.Requests
			stints = append(stints, s)
		}
	}

	if len(stints) == 0 {
		return // known by its lines alone
	}

	slices.SortStableFunc(stints, func(a, b *metadata.WorkerSession) int { return a.Last.Compare(b.Last) })
	if rest > 0 {
		*stints[len(stints)-1].Requests += rest
	}

	for _, s := range stints {
		surplus := min(*s.Requests, max(0, -rest))
		*s.Requests -= surplus
		rest += surplus
	}

	for i := range list {
		list[i].Requests = new(int64(0))
		for _, s := range list[i].Sessions {
			*list[i].Requests += *s.Requests
		}
	}
}

// livesOf puts the stints of one name together that are one worker's: it was started again
// after it had ended. Those that were heard at the same time are of different workers. The
// stints are in the order of their starts.
func livesOf(stints []journal.WorkerSession) (lives [][]journal.WorkerSession) {
	stints = slices.Clone(stints)
	slices.SortStableFunc(stints, func(a, b journal.WorkerSession) int { return a.FirstSeen.Compare(b.FirstSeen) })

	for _, s := range stints {
		after := func(life []journal.WorkerSession) bool {
			last := life[len(life)-1]
			return last.LastSeen.IsZero() || s.FirstSeen.IsZero() || !last.LastSeen.After(s.FirstSeen)
		}
		if i := slices.IndexFunc(lives, after); i >= 0 {
			lives[i] = append(lives[i], s)
		} else {
			lives = append(lives, []journal.WorkerSession{s})
		}
	}

	if lives == nil {
		return [][]journal.WorkerSession{nil} // known by its lines alone
	}

	return lives
}

// sumStints takes in the worker's stints, the oldest first, and returns what it has spent
// on the run in all, nil if that is not known.
func sumStints(w *metadata.Worker, stints []journal.WorkerSession) (spent *proto.RunUsage) {
	for _, s := range stints {
		stint := metadata.WorkerSession{
			ID:       s.ID,
			Since:    s.Since,
			First:    s.FirstSeen,
			Last:     s.LastSeen,
			Version:  orNull(s.Version),
			Platform: orNull(s.Platform),
		}
		if share := s.TotalUsage(); share != nil {
			stint.Requests, stint.EnergyJoules, stint.Redeliveries = &share.Requests, share.EnergyJoules,
				&share.Redeliveries
			spent = journal.AddUsage(spent, share)
		}

		w.Sessions = append(w.Sessions, stint)
		w.Host, w.Version, w.Platform = latest(orNull(s.Host),
			w.Host), latest(stint.Version, w.Version), latest(stint.Platform, w.Platform)

		if s.Models != nil {
			w.Models = s.Models
		}

		if w.SeveralServers = s.SeveralServers; w.SeveralServers { // what was said before is of one of them
			w.ModelLoadTimeSeconds, w.MemoryBytes, w.Slots = nil, proto.ServerMemory{}, nil
		}

		w.ModelLoadTimeSeconds = latest(s.LoadSeconds, w.ModelLoadTimeSeconds)
		w.Slots = addSlots(w.Slots, s.Slots)
		w.MemoryBytes.Weights = latest(s.MemoryBytes.Weights, w.MemoryBytes.Weights)
		w.MemoryBytes.KVCache = latest(s.MemoryBytes.KVCache, w.MemoryBytes.KVCache)
		w.MemoryBytes.Graphs = latest(s.MemoryBytes.Graphs, w.MemoryBytes.Graphs)

		for _, card := range s.GPUs {
			i := findCard(&w.GPUs, proto.GPU{Index: card.Index, Name: card.Name, UUID: card.UUID})
			addCard(&w.GPUs[i], card)
		}
	}

	return spent
}

// addCard takes in the card's readings of another stint.
func addCard(c *metadata.GPU, d metadata.GPU) {
	c.MemoryBytes = latest(d.MemoryBytes, c.MemoryBytes)
	c.MemoryUsedBytesMax = metadata.Most(c.MemoryUsedBytesMax, d.MemoryUsedBytesMax)

	if d.PowerWattsMean != nil {
		addPower(c, *d.PowerWattsMean, d.PowerReadings)
	}

	if d.EnergyJoules != nil {
		addEnergy(c, *d.EnergyJoules)
	}
}

// describe fills in what the workers tell.
func describe(m *metadata.Run, stints []journal.WorkerSession, s *journal.State) {
	var requests map[string]int64
	unattributed := int64(s.Counts.Done - s.Counts.Skipped)
	if t := s.Stats; t != nil {
		r := &m.Results
		r.AttemptsHistogram, r.AttemptFailures = known(t.Attempts), known(t.Retried)
		r.FinishReasons, r.Failures = known(t.Finish), known(t.Failures)

		requests = known(t.Workers)
		for _, n := range requests {
			unattributed -= n
		}
	}

	m.Workers = metaWorkers(stints, requests)
	configure(m, stints, s)
	var platforms []string
	energy := new(0.0)
	for _, w := range m.Workers {
		if load := w.ModelLoadTimeSeconds; load != nil && *load > metadata.OrZero(m.Results.ModelLoadTimeSeconds) {
			m.Results.ModelLoadTimeSeconds = load
		}

		for _, stint := range w.Sessions {
			if stint.Platform != nil {
				platforms = append(platforms, *stint.Platform)
			}
		}

		if w.EnergyJoules == nil {
			energy = nil
		}
		if energy != nil {
			energy = new(*energy + *w.EnergyJoules)
		}
	}

	if slices.Sort(platforms); len(platforms) > 0 {
		m.Platform = strings.Join(slices.Compact(platforms), ", ")
	}

	if energy == nil || requests == nil || unattributed > 0 || len(m.Workers) == 0 {
		return
	}

	m.Results.EnergyJoules = energy
	if tokens := m.Results.CompletionTokens; tokens != nil && *tokens > 0 {
		m.Results.JoulesPer1000OutputTokens = new(*energy / float64(*tokens) * 1000)
	}
}

// configure fills in what the workers that took part tell of their model servers, and
// how often shards came to them that others had had before.
func configure(m *metadata.Run, stints []journal.WorkerSession, s *journal.State) {
	for _, stint := range stints {
		share := stint.TotalUsage()
		if share == nil && (s.Stats == nil || s.Stats.Workers[stint.Name] == 0) {
			continue
		}

		if share != nil {
			m.Results.Redeliveries = new(metadata.OrZero(m.Results.Redeliveries) + share.Redeliveries)
		}

		for _, model := range s.Manifest.Models() {
			if n := stint.ContextLength[model]; n > 0 && (m.Config.MaxModelLen == nil || n < *m.Config.MaxModelLen) {
				m.Config.MaxModelLen = &n
			}
		}

		m.Config.GPUMemoryUtilization = latest(stint.GPUMemoryUtilization, m.Config.GPUMemoryUtilization)
	}
}

// known makes an empty object of counts that are all zero.
func known(counts map[string]int64) map[string]int64 {
	if counts == nil {
		return map[string]int64{}
	}
	return counts
}

// orNull is a pointer to a value that is not empty.
func orNull[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}
