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

// addWorkers adds the workers' reports to the metadata.
func addWorkers(m *metadata.Run, sessions []journal.WorkerSession, s *journal.State) {
	var requests map[string]int64
	unattributed := int64(s.Counts.Done - s.Counts.Skipped)
	if stats := s.Stats; stats != nil {
		requests = emptyIfNil(stats.Workers)
		for _, n := range requests {
			unattributed -= n
		}
	}

	m.Workers = buildWorkers(sessions, requests)
	addServerSettings(m, sessions, s)

	var platforms []string
	energy := new(0.0)
	for _, w := range m.Workers {
		if load := w.ModelLoadTimeSeconds; metadata.OrZero(load) > metadata.OrZero(m.Results.ModelLoadTimeSeconds) {
			m.Results.ModelLoadTimeSeconds, m.Results.ModelLoad = load, w.ModelLoad
		}

		for _, session := range w.Sessions {
			if session.Platform != nil {
				platforms = append(platforms, *session.Platform)
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

// addServerSettings adds the reports of the run's workers on their model servers, and the
// number of shards that came to them after other workers had them.
func addServerSettings(m *metadata.Run, sessions []journal.WorkerSession, s *journal.State) {
	for _, session := range sessions {
		usage := session.TotalUsage()
		if usage == nil && (s.Stats == nil || s.Stats.Workers[session.Name] == 0) {
			continue
		}

		if usage != nil {
			m.Results.Redeliveries = new(metadata.OrZero(m.Results.Redeliveries) + usage.Redeliveries)
		}

		for _, model := range s.Manifest.Models() {
			n := session.ContextLength[model]
			if n > 0 && (m.Config.MaxModelLen == nil || n < *m.Config.MaxModelLen) {
				m.Config.MaxModelLen = &n
			}
		}

		m.Config.GPUMemoryUtilization = latest(session.GPUMemoryUtilization, m.Config.GPUMemoryUtilization)
	}
}

// buildWorkers returns the workers that took part in a run, by name. requests
// counts the output's requests from each name; nil: unknown.
func buildWorkers(sessions []journal.WorkerSession, requests map[string]int64) []metadata.Worker {
	byName := map[string][]journal.WorkerSession{}
	for name := range requests {
		byName[name] = nil
	}

	for _, s := range sessions {
		byName[s.Name] = append(byName[s.Name], s)
	}

	var workers []metadata.Worker
	if requests != nil {
		workers = []metadata.Worker{} // none, rather than unknown
	}

	for _, name := range slices.Sorted(maps.Keys(byName)) {
		own := byName[name]

		used := slices.DeleteFunc(slices.Clone(own), func(s journal.WorkerSession) bool { return s.Usage == nil })
		if len(used) > 0 {
			own = used
		} else if requests[name] == 0 {
			continue
		}

		workers = append(workers, buildNamesakes(name, own, requests)...)
	}

	labels := proto.Labels(len(workers), func(i int) (name, id string) { return workers[i].Name, workers[i].ID })
	for i := range workers {
		if labels[i] != workers[i].Name {
			workers[i].Label = labels[i]
		}
	}

	return workers
}

// buildNamesakes returns the workers of one name. The output says how many requests are from
// the name; which of several workers ran them, only the workers report.
func buildNamesakes(
	name string, sessions []journal.WorkerSession, requests map[string]int64,
) (workers []metadata.Worker) {
	groups := groupByWorker(sessions)
	reported := int64(0)
	for _, group := range groups {
		w := metadata.Worker{Name: name, Sessions: []metadata.WorkerSession{}}
		if len(group) > 0 {
			w.ID = group[len(group)-1].ID
		}
		if requests != nil && len(groups) == 1 {
			w.Requests = new(requests[name])
		}

		usage := mergeSessions(&w, group)
		if usage != nil {
			reported += usage.Requests
			w.EnergyJoules = usage.EnergyJoules
		}

		if requests != nil && w.Requests == nil {
			w.Requests = new(int64(0))
			if usage != nil {
				w.Requests = &usage.Requests
			}
		}

		workers = append(workers, w)
	}

	if requests != nil {
		balanceRequests(workers, requests[name])
	}

	if requests != nil && reported*100 < requests[name]*95 {
		for i := range workers {
			workers[i].EnergyJoules = nil // that of the other requests is unknown
		}
	}

	return workers
}

// groupByWorker groups the sessions of one name that are one worker's: it was started again
// after it had ended. Sessions that were seen at the same time are of different workers. The
// sessions are in the order of their starts.
func groupByWorker(sessions []journal.WorkerSession) (groups [][]journal.WorkerSession) {
	sessions = slices.Clone(sessions)
	slices.SortStableFunc(sessions, func(a, b journal.WorkerSession) int { return a.FirstSeen.Compare(b.FirstSeen) })

	for _, s := range sessions {
		endedBefore := func(group []journal.WorkerSession) bool {
			last := group[len(group)-1]
			return last.LastSeen.IsZero() || s.FirstSeen.IsZero() || !last.LastSeen.After(s.FirstSeen)
		}
		if i := slices.IndexFunc(groups, endedBefore); i >= 0 {
			groups[i] = append(groups[i], s)
		} else {
			groups = append(groups, []journal.WorkerSession{s})
		}
	}

	if groups == nil {
		return [][]journal.WorkerSession{nil} // a worker known by its lines alone
	}

	return groups
}

// balanceRequests makes the requests of the workers of one name, and of their sessions, add up
// to total, the requests that the output has from the name. A session has the latest number
// that its worker announced. Requests that were never announced count for the session that was
// seen last. Surplus ones were answered twice, or failed and were run again, and so are taken
// from the first session.
func balanceRequests(workers []metadata.Worker, total int64) {
	var sessions []*metadata.WorkerSession
	rest := total
	for i := range workers {
		for j := range workers[i].Sessions {
			s := &workers[i].Sessions[j]
			s.Requests = new(metadata.OrZero(s.Requests))
			rest -= *s.Requests
			sessions = append(sessions, s)
		}
	}

	if len(sessions) == 0 {
		return // a worker known by its lines alone
	}

	slices.SortStableFunc(sessions, func(a, b *metadata.WorkerSession) int { return a.LastSeen.Compare(b.LastSeen) })

	if rest > 0 {
		*sessions[len(sessions)-1].Requests += rest
	}

	for _, s := range sessions {
		surplus := min(*s.Requests, max(0, -rest))
		*s.Requests -= surplus
		rest += surplus
	}

	for i := range workers {
		workers[i].Requests = new(int64(0))
		for _, s := range workers[i].Sessions {
			*workers[i].Requests += *s.Requests
		}
	}
}

// mergeSessions adds a worker's sessions to it, the oldest first, and returns its usage
// for the whole run; nil: unknown.
func mergeSessions(w *metadata.Worker, sessions []journal.WorkerSession) (total *proto.RunUsage) {
	for _, s := range sessions {
		session := metadata.WorkerSession{
			ID:        s.ID,
			Since:     s.Since,
			FirstSeen: s.FirstSeen,
			LastSeen:  s.LastSeen,
			Version:   nullIfZero(s.Version),
			Platform:  nullIfZero(s.Platform),
		}
		if usage := s.TotalUsage(); usage != nil {
			session.Requests, session.Redeliveries = &usage.Requests, &usage.Redeliveries
			session.EnergyJoules = usage.EnergyJoules
			session.Rerun, session.DiscardedAttempts = usage.Rerun, usage.DiscardedAttempts
			session.DiscardedTokens, session.DiscardedSeconds = usage.DiscardedTokens, usage.DiscardedSeconds
			total = journal.AddUsage(total, usage)
		}

		w.Sessions = append(w.Sessions, session)
		w.Host = latest(nullIfZero(s.Host), w.Host)
		w.Version = latest(session.Version, w.Version)
		w.Platform = latest(session.Platform, w.Platform)

		if s.Models != nil {
			w.Models = s.Models
		}

		if w.SeveralServers = s.SeveralServers; w.SeveralServers { // earlier reports are from one of them
			w.ModelLoadTimeSeconds, w.ModelLoad = nil, nil
			w.MemoryBytes, w.Slots, w.Engines = proto.ServerMemory{}, nil, 0
		}

		if s.LoadSeconds != nil {
			w.ModelLoadTimeSeconds, w.ModelLoad = s.LoadSeconds, s.ModelLoad
		}

		w.Slots = addSlots(w.Slots, s.Slots)
		w.Engines = cmp.Or(s.Engines, w.Engines)
		w.MemoryBytes.Weights = latest(s.MemoryBytes.Weights, w.MemoryBytes.Weights)
		w.MemoryBytes.KVCache = latest(s.MemoryBytes.KVCache, w.MemoryBytes.KVCache)
		w.MemoryBytes.Graphs = latest(s.MemoryBytes.Graphs, w.MemoryBytes.Graphs)

		for _, card := range s.GPUs {
			i := findCard(&w.GPUs, proto.GPU{Index: card.Index, Name: card.Name, UUID: card.UUID})
			mergeCard(&w.GPUs[i], card)
		}
	}

	return total
}

// mergeCard adds the card's readings of another session.
func mergeCard(c *metadata.GPU, d metadata.GPU) {
	c.MemoryBytes = latest(d.MemoryBytes, c.MemoryBytes)
	c.MemoryUsedBytesMax = metadata.Most(c.MemoryUsedBytesMax, d.MemoryUsedBytesMax)

	if d.PowerWattsMean != nil {
		addPower(c, *d.PowerWattsMean, d.PowerReadings)
	}

	if d.EnergyJoules != nil {
		addEnergy(c, *d.EnergyJoules)
	}
}

// emptyIfNil returns counts that are all zero as an empty map: null in the metadata means
// unknown.
func emptyIfNil(counts map[string]int64) map[string]int64 {
	if counts == nil {
		return map[string]int64{}
	}
	return counts
}
