package collector

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// WorkerSession is a worker from one of its starts to its end, as far as its announcements tell
// what it does for the run. What is null is unknown. A Stint is never changed, but
// replaced by a newer one.
type WorkerSession struct {
	ID       string   `json:"id,omitempty"` // of the process; empty: it has none
	Name     string   `json:"name"`
	Host     string   `json:"host"`
	Version  string   `json:"version"`
	Platform string   `json:"platform"` // flavour and version of its model server
	Models   []string `json:"models"`
	// ContextLength is in tokens, by model, and GPUMemoryUtilization 0 to 1.
	ContextLength        map[string]int     `json:"context_length,omitempty"`
	GPUMemoryUtilization *float64           `json:"gpu_memory_utilization"`
	Since                time.Time          `json:"since"`
	LoadSeconds          *float64           `json:"load_seconds"`
	MemoryBytes          proto.ServerMemory `json:"memory_bytes"`
	// Slots are those of its model server, null unless it tells of them, and SeveralServers
	// says that its URL leads to more than one.
	Slots          *metadata.Slots `json:"slots,omitempty"`
	SeveralServers bool            `json:"several_servers,omitempty"`
	GPUs           []metadata.GPU  `json:"gpus"`
	// Meters are the energy meters of the cards when they were read last, null where
	// they have not been read yet.
	Meters []*float64 `json:"meters,omitempty"`
	// Share is what the worker says to have spent on the run; null: nothing so far. Past
	// is what it said before it began to count anew.
	Share *proto.RunUsage `json:"share"`
	Past  *proto.RunUsage `json:"past,omitempty"`
	// Overlap are the joules of these that count at other workers, which see the same cards.
	Overlap float64 `json:"overlap_joules,omitempty"`
	// First and Last are when the bus got its first and its last announcement that was
	// heard.
	First time.Time `json:"first_heard,omitzero"`
	Last  time.Time `json:"last_heard,omitzero"`
}

// key tells stints apart.
func (s WorkerSession) key() string {
	if s.ID != "" {
		return s.ID
	}
	return s.Name + " " + s.Since.UTC().Format(time.RFC3339Nano)
}

// share is what the worker has spent on the run in this stint; nil: nothing known.
func (s WorkerSession) share() *proto.RunUsage {
	share := plus(s.Share, s.Past)
	if s.Overlap == 0 || share == nil || share.EnergyJoules == nil {
		return share
	}
	own := *share
	own.EnergyJoules = new(max(0, *share.EnergyJoules-s.Overlap))
	return &own
}

// meterOf is what the meter of a card said when it was read last; nil: unknown.
func (s WorkerSession) meterOf(card proto.GPU) *float64 {
	i := slices.IndexFunc(s.GPUs, isCard(card))
	if i < 0 || i >= len(s.Meters) {
		return nil
	}
	return s.Meters[i]
}

// plus adds shares, either of which may be nil. Where one has used an unknown amount of
// energy, so have both.
func plus(a, b *proto.RunUsage) *proto.RunUsage {
	switch {
	case a == nil || *a == proto.RunUsage{}:
		return b
	case b == nil || *b == proto.RunUsage{}:
		return a
	}

	sum := proto.RunUsage{Requests: a.Requests + b.Requests, Redeliveries: a.Redeliveries + b.Redeliveries}
	if a.EnergyJoules != nil && b.EnergyJoules != nil {
		sum.EnergyJoules = new(*a.EnergyJoules + *b.EnergyJoules)
	}

	return &sum
}

// metered reports whether the worker knows what its cards take.
func (s WorkerSession) metered() bool {
	return slices.ContainsFunc(s.Meters, func(m *float64) bool { return m != nil })
}

// heard is the stint after an announcement.
func (s WorkerSession) heard(w proto.WorkerInfo, run string) WorkerSession {
	next := WorkerSession{
		ID:             w.ID,
		Name:           w.Name,
		Host:           w.Host,
		Version:        w.Version,
		Platform:       strings.TrimSpace(w.Flavour + " " + w.ServerVersion),
		Models:         w.Models,
		Since:          w.Since,
		LoadSeconds:    w.LoadSeconds,
		MemoryBytes:    w.MemoryBytes,
		SeveralServers: w.SeveralServers,
		Share:          s.Share,
		Past:           s.Past,
		Overlap:        s.Overlap,
		First:          s.First,
		Last:           w.ReceivedAt,
	}
	if next.First.IsZero() {
		next.First = w.ReceivedAt
	}

	// A model server that is down for the moment tells nothing.
	before := s
	if w.SeveralServers { // what was said before is of one of them
		before = WorkerSession{}
	}

	next.MemoryBytes.Weights = newest(w.MemoryBytes.Weights, before.MemoryBytes.Weights)
	next.MemoryBytes.KVCache = newest(w.MemoryBytes.KVCache, before.MemoryBytes.KVCache)
	next.MemoryBytes.Graphs = newest(w.MemoryBytes.Graphs, before.MemoryBytes.Graphs)
	next.LoadSeconds = newest(w.LoadSeconds, before.LoadSeconds)
	next.GPUMemoryUtilization = newest(w.GPUMemoryUtilization, before.GPUMemoryUtilization)

	if next.ContextLength = s.ContextLength; len(w.ContextLength) > 0 { // Ollama tells those of loaded models only
		next.ContextLength = map[string]int{}
		maps.Copy(next.ContextLength, s.ContextLength)
		maps.Copy(next.ContextLength, w.ContextLength)
	}

	if next.Platform == "" {
		next.Platform = s.Platform
	}
	if next.Models == nil {
		next.Models = s.Models
	}

	if share := w.Runs[run]; share != (proto.RunUsage{}) {
		if s.Share != nil && (share.Requests < s.Share.Requests || share.Redeliveries < s.Share.Redeliveries) {
			next.Past = plus(s.Past, s.Share)
		}
		next.Share = &share
	}

	next.Slots = readSlots(before.Slots, w, countRequests(next.share()) > countRequests(s.share()))
	next.GPUs, next.Meters = slices.Clone(s.GPUs), slices.Clone(s.Meters)
	for _, card := range w.GPU {
		i := entryOf(&next.GPUs, card)
		for len(next.Meters) <= i {
			next.Meters = append(next.Meters, nil)
		}
		readCard(&next.GPUs[i], card, w.InFlight > 0, next.Meters[i])
		next.Meters[i] = newest(card.EnergyJoules, next.Meters[i])
	}

	return next
}

// countRequests is how many requests a share has, which may be nil.
func countRequests(share *proto.RunUsage) int64 {
	if share == nil {
		return 0
	}
	return share.Requests
}

// readSlots is what is known of the server's slots after an announcement. ended says that
// requests of the run have ended since the one before: without that, the slots may be those of
// another run, or the announcement the same once more.
func readSlots(before *metadata.Slots, w proto.WorkerInfo, ended bool) *metadata.Slots {
	now := before
	if w.Slots > 0 {
		now = plusSlots(before, &metadata.Slots{Count: w.Slots})
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

// plusSlots adds the readings of slots, either of which may be nil. The number of slots is the
// later one, and how often others were full says nothing of them.
func plusSlots(before, after *metadata.Slots) *metadata.Slots {
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

// newest is what was told last.
func newest[T any](now, before *T) *T {
	if now != nil {
		return now
	}
	return before
}

// entryOf finds a card's entry, or makes one.
func entryOf(cards *[]metadata.GPU, card proto.GPU) int {
	i := slices.IndexFunc(*cards, isCard(card))
	if i < 0 {
		i = len(*cards)
		*cards = append(*cards, metadata.GPU{Index: card.Index, Name: card.Name, UUID: card.UUID})
	}
	return i
}

// isCard tells the entry of a card from others.
func isCard(card proto.GPU) func(metadata.GPU) bool {
	return func(c metadata.GPU) bool { return c.Index == card.Index && c.Name == card.Name && c.UUID == card.UUID }
}

// readCard takes in a reading of the card. meter is what its energy meter said before.
func readCard(c *metadata.GPU, card proto.GPU, working bool, meter *float64) {
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

// addPower takes the mean of some readings into the mean.
func addPower(c *metadata.GPU, watts float64, readings int64) {
	c.PowerReadings += readings
	if c.PowerWattsMean != nil {
		watts = *c.PowerWattsMean + (watts-*c.PowerWattsMean)*float64(readings)/float64(c.PowerReadings)
	}
	c.PowerWattsMean = &watts
}

func addEnergy(c *metadata.GPU, joules float64) {
	if c.EnergyJoules != nil {
		joules += *c.EnergyJoules
	}
	c.EnergyJoules = &joules
}
