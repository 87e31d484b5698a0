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

// lastReading returns the latest reading of a card's energy meter; nil: unknown.
func lastReading(s journal.WorkerSession, card proto.GPU) *float64 {
	i := slices.IndexFunc(s.GPUs, isCard(card))
	if i < 0 || i >= len(s.Meters) {
		return nil
	}
	return s.Meters[i]
}

// isMetered reports whether the worker knows how much energy its cards use.
func isMetered(s journal.WorkerSession) bool {
	return slices.ContainsFunc(s.Meters, func(m *float64) bool { return m != nil })
}

// observeAnnouncement returns the session after an announcement of its worker.
func observeAnnouncement(s journal.WorkerSession, w proto.WorkerInfo, run string) journal.WorkerSession {
	next := journal.WorkerSession{
		ID:                   w.ID,
		Name:                 w.Name,
		Host:                 w.Host,
		Version:              w.Version,
		Platform:             strings.TrimSpace(w.Flavour + " " + w.ServerVersion),
		Models:               w.Models,
		Since:                w.Since,
		LoadSeconds:          w.LoadSeconds,
		ModelLoad:            w.ModelLoad,
		MemoryBytes:          w.MemoryBytes,
		SeveralServers:       w.SeveralServers,
		Engines:              w.Engines,
		GPUMemoryUtilization: w.GPUMemoryUtilization,
		Usage:                s.Usage,
		EarlierUsage:         s.EarlierUsage,
		OverlapJoules:        s.OverlapJoules,
		FirstSeen:            s.FirstSeen,
		LastSeen:             w.ReceivedAt,
		ContextLength:        mergeContextLengths(s.ContextLength, w.ContextLength),
		ServerLatency:        latest(w.ServerLatency, s.ServerLatency),
		LatencyBefore:        s.LatencyBefore,
		Departure:            departureOf(w, run),
	}
	if next.FirstSeen.IsZero() {
		next.FirstSeen = w.ReceivedAt
	}

	before := s
	if w.SeveralServers { // earlier reports are from one of them
		before = journal.WorkerSession{}
	}

	keepServer(&next, before)

	if next.Platform == "" {
		next.Platform = s.Platform
	}
	if next.Models == nil {
		next.Models = s.Models
	}

	if usage := w.Runs[run]; usage != (proto.RunUsage{}) {
		if s.Usage != nil && isLess(usage, *s.Usage) {
			next.EarlierUsage = journal.AddUsage(s.EarlierUsage, s.Usage) // the worker counts from 0 again
		}
		next.Usage = &usage
	}

	if next.Usage == nil {
		next.LatencyBefore = next.ServerLatency
	}

	next.Slots = observeSlots(before.Slots, w, countRequests(next.TotalUsage()) > countRequests(s.TotalUsage()))
	next.GPUs, next.Meters = observeCards(s, w)

	return next
}

// mergeContextLengths returns the context lengths of models: Ollama reports those of loaded models only.
func mergeContextLengths(before, now map[string]int) map[string]int {
	if len(now) == 0 {
		return before
	}

	merged := map[string]int{}
	maps.Copy(merged, before)
	maps.Copy(merged, now)

	return merged
}

// observeCards returns the cards of a session, and their meters, after an announcement of its worker.
func observeCards(s journal.WorkerSession, w proto.WorkerInfo) (cards []metadata.GPU, meters []*float64) {
	cards, meters = slices.Clone(s.GPUs), slices.Clone(s.Meters)
	for _, card := range w.GPU {
		i := findCard(&cards, card)
		for len(meters) <= i {
			meters = append(meters, nil)
		}

		observeCard(&cards[i], card, w.InFlight > 0, meters[i])
		meters[i] = latest(card.EnergyJoules, meters[i])
	}

	return cards, meters
}

// keepServer fills in what a model server has said of itself before: one that is down for the moment reports nothing.
func keepServer(next *journal.WorkerSession, before journal.WorkerSession) {
	next.MemoryBytes.Weights = latest(next.MemoryBytes.Weights, before.MemoryBytes.Weights)
	next.MemoryBytes.KVCache = latest(next.MemoryBytes.KVCache, before.MemoryBytes.KVCache)
	next.MemoryBytes.Graphs = latest(next.MemoryBytes.Graphs, before.MemoryBytes.Graphs)
	if next.LoadSeconds == nil {
		next.LoadSeconds, next.ModelLoad = before.LoadSeconds, before.ModelLoad
	}

	next.Engines = cmp.Or(next.Engines, before.Engines)
	next.GPUMemoryUtilization = latest(next.GPUMemoryUtilization, before.GPUMemoryUtilization)
}

// departureOf returns the departure of a worker, without what it had of other runs than one: there may be
// thousands, and each journal would have them all.
func departureOf(w proto.WorkerInfo, run string) *proto.Departure {
	if w.Departure == nil {
		return nil
	}

	d := *w.Departure
	d.Runs = nil
	if usage, ok := w.Departure.Runs[run]; ok {
		d.Runs = map[string]proto.DepartureUsage{run: usage}
	}

	return &d
}

// isLess reports whether a count of a usage is less than it was before.
func isLess(usage, before proto.RunUsage) bool {
	return usage.Requests < before.Requests || usage.Redeliveries < before.Redeliveries ||
		usage.Rerun < before.Rerun || usage.DiscardedAttempts < before.DiscardedAttempts
}

// countRequests returns the number of requests of a usage, which may be nil.
func countRequests(usage *proto.RunUsage) int64 { return metadata.OrZero(usage).Requests }

// observeSlots returns the server's slots after an announcement. ended reports that requests of
// the run have ended since the announcement before. Without that, the slots may be in use by
// another run, or the announcement may be the same one again.
func observeSlots(before *metadata.Slots, w proto.WorkerInfo, ended bool) *metadata.Slots {
	now := before
	if w.Slots > 0 {
		now = addSlots(before, &metadata.Slots{Count: w.Slots})
	}

	if now == nil || !ended || w.InFlight == 0 {
		return now
	}

	read := metadata.Slots{Count: now.Count, Readings: now.Readings + 1, FullReadings: now.FullReadings}
	if w.InFlight >= int64(now.Count) {
		read.FullReadings++
	}

	return &read
}

// addSlots adds the readings of slots, either of which may be nil. The number of slots is
// the later one. Readings of another number of slots do not count as full.
func addSlots(before, after *metadata.Slots) *metadata.Slots {
	switch {
	case before == nil:
		return after
	case after == nil:
		return before
	}

	sum := metadata.Slots{
		Count:        after.Count,
		Readings:     before.Readings + after.Readings,
		FullReadings: after.FullReadings,
	}
	if before.Count == after.Count {
		sum.FullReadings += before.FullReadings
	}

	return &sum
}

// latest returns the new value, or the old one if there is none.
func latest[T any](now, before *T) *T {
	if now != nil {
		return now
	}
	return before
}

// findCard returns the place of a card in a list, to which it adds the card if need be.
func findCard(cards *[]metadata.GPU, card proto.GPU) int {
	i := slices.IndexFunc(*cards, isCard(card))
	if i < 0 {
		i = len(*cards)
		*cards = append(*cards, metadata.GPU{Index: card.Index, Name: card.Name, UUID: card.UUID})
	}
	return i
}

// isCard returns a function that recognises a card.
func isCard(card proto.GPU) func(metadata.GPU) bool {
	return func(c metadata.GPU) bool { return c.Index == card.Index && c.Name == card.Name && c.UUID == card.UUID }
}

// observeCard adds a reading of the card. meter is the reading of its energy meter before.
func observeCard(c *metadata.GPU, card proto.GPU, working bool, meter *float64) {
	if card.MemoryBytes > 0 {
		c.MemoryBytes = new(card.MemoryBytes)
	}

	c.MemoryUsedBytesMax = metadata.Most(c.MemoryUsedBytesMax, card.MemoryUsedBytes)
	if card.PowerWatts != nil && working {
		addPower(c, *card.PowerWatts, 1)
	}

	if card.EnergyJoules != nil && meter != nil {
		addEnergy(c, max(0, *card.EnergyJoules-*meter))
	}
}

// addPower adds the mean of some readings to the mean of all.
func addPower(c *metadata.GPU, watts float64, readings int64) {
	c.PowerReadings += readings
	if c.PowerWattsMean != nil {
		watts = *c.PowerWattsMean + (watts-*c.PowerWattsMean)*float64(readings)/float64(c.PowerReadings)
	}
	c.PowerWattsMean = &watts
}

// addEnergy adds the energy that the card has used.
func addEnergy(c *metadata.GPU, joules float64) {
	if c.EnergyJoules != nil {
		joules += *c.EnergyJoules
	}
	c.EnergyJoules = &joules
}
