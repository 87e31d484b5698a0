package collector

import (
	"maps"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
)

// buildWasted returns the work whose results are not in the output, or nil if the lines of an older
// version do not tell.
//
// Two sources count discarded attempts. A line has those of its own request. A worker's usage has all
// that the worker threw away, those of its lines and those of requests that it gave back, up to its last
// announcement; one that died has made up to 3 s more. Each attempt of a line is in both, unless the
// worker died. So the larger figure of each worker counts, and no attempt counts twice.
func buildWasted(
	r *metadata.Results, s *journal.State, sessions []journal.WorkerSession,
) *metadata.Wasted {
	costs := s.Stats.Costs
	if costs == nil || costs.Lines < int64(s.Counts.Done) {
		return nil
	}

	w := &metadata.Wasted{DuplicateTokens: costs.DuplicateTokens, CutOffAnswers: int64(s.Counts.Truncated)}
	reported := map[string]journal.Discarded{}
	for _, session := range sessions {
		usage := session.TotalUsage()
		if usage == nil {
			continue
		}

		w.RepeatedRequests += usage.Rerun

		d := reported[session.Name]
		d.Attempts += usage.DiscardedAttempts
		d.MS += int64(usage.DiscardedSeconds * second)
		d.Tokens += usage.DiscardedTokens
		reported[session.Name] = d
	}

	workers := maps.Clone(reported)
	maps.Copy(workers, costs.Discarded)

	for name := range workers {
		line, usage := costs.Discarded[name], reported[name]
		w.DiscardedAttempts += max(line.Attempts, usage.Attempts)
		w.DiscardedSeconds += float64(max(line.MS, usage.MS)) / second
		w.DiscardedTokens += max(line.Tokens, usage.Tokens)
	}

	w.TimeShare = share(w.DiscardedSeconds, float64(costs.LastMS)/second)
	if tokens := r.CompletionTokens; tokens != nil {
		w.TokenShare = share(float64(w.DiscardedTokens+w.DuplicateTokens), float64(*tokens))
	}

	return w
}

// share returns the part of wasted in all, or nil if there is nothing.
func share(wasted, used float64) *float64 { return metadata.Per(wasted, wasted+used) }
