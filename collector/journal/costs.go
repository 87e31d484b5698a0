package journal

import "github.com/promptmill/promptmill/proto"

// Costs are the costs of the attempts at the requests of some lines.
type Costs struct {
	// Lines counts the lines whose costs are known. A line that was written by an older worker has
	// those of the last attempt alone.
	Lines int64 `json:"lines"`
	// LastMS is the time of the last attempts in milliseconds. The requests may have failed.
	LastMS int64 `json:"last_ms"`
	// Discarded are the attempts before the last ones, by the worker that made the last one.
	Discarded map[string]Discarded `json:"discarded,omitempty"`
	// DuplicateTokens are the completion tokens of lines that were dropped, since their requests had one.
	DuplicateTokens int64 `json:"duplicate_tokens,omitempty"`
}

// Discarded is the cost of attempts whose answers were thrown away.
type Discarded struct {
	Attempts int64 `json:"attempts"`
	MS       int64 `json:"ms"`
	Tokens   int64 `json:"tokens,omitempty"`
}

func (d *Discarded) add(other Discarded) {
	d.Attempts += other.Attempts
	d.MS += other.MS
	d.Tokens += other.Tokens
}

// addDuplicate counts a line that is dropped, since its request has one.
func (s *FrameStats) addDuplicate(l proto.Line) {
	if l.CompletionTokens > 0 {
		s.knownCosts().DuplicateTokens += l.CompletionTokens
	}
}

// addCosts adds the costs of the attempts of a line.
func (s *FrameStats) addCosts(l proto.Line, worker string) {
	costs := s.knownCosts()
	if l.TotalMS >= 0 {
		costs.Lines++
	}

	costs.LastMS += max(0, l.LatencyMS)
	if l.Attempts > 1 {
		costs.addDiscarded(worker, Discarded{
			Attempts: l.Attempts - 1,
			MS:       max(0, l.DiscardedMS),
			Tokens:   max(0, l.DiscardedTokens),
		})
	}
}

// knownCosts returns the costs, to add to them.
func (s *FrameStats) knownCosts() *Costs {
	if s.Costs == nil {
		s.Costs = &Costs{}
	}
	return s.Costs
}

// addDiscarded adds attempts whose last one a worker made.
func (c *Costs) addDiscarded(worker string, d Discarded) {
	if _, known := c.Discarded[worker]; !known && (len(c.Discarded) >= maxNames || len(worker) > maxName) {
		worker = otherName
	}

	if c.Discarded == nil {
		c.Discarded = map[string]Discarded{}
	}

	sum := c.Discarded[worker]
	sum.add(d)
	c.Discarded[worker] = sum
}

// mergeCosts adds the costs of other statistics. Those of a program that did not count them are known if
// each request was answered at its first attempt.
func (s *FrameStats) mergeCosts(other FrameStats) {
	from := other.Costs
	switch {
	case from == nil && other.isPlain():
		from = &Costs{Lines: other.Latency.Count(), LastMS: int64(other.Latency.Sum())}
	case from == nil:
		return
	}

	costs := s.knownCosts()
	costs.Lines += from.Lines
	costs.LastMS += from.LastMS
	costs.DuplicateTokens += from.DuplicateTokens

	for worker, d := range from.Discarded {
		costs.addDiscarded(worker, d)
	}
}

// total returns Total; where it was not counted, Latency, if each request was answered at its first
// attempt.
func (s *FrameStats) total() *Sketch {
	if s.Costs == nil && s.isPlain() {
		return s.Latency
	}
	return s.Total
}

// isPlain reports whether each request was answered, and at its first attempt.
func (s *FrameStats) isPlain() bool {
	return len(s.Failures) == 0 && len(s.Attempts) == 1 && s.Attempts["1"] == s.Latency.Count()
}
