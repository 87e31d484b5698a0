package report

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
)

// rules draw the conclusions: each returns a sentence, or nothing.
var rules = []struct {
	name string
	says func(*builder) string
}{
	{"speed", concludeSpeed},
	{"energy", concludeEnergy},
	{"estimate", explainNoEstimate},
	{"tokens unknown", concludeTokensUnknown},
	{"cut off", concludeTruncated},
	{"idle", concludeIdle},
	{"stops", concludeStops},
	{"interruptions", concludeInterruptions},
	{"departures", concludeDepartures},
	{"dropped", concludeDropped},
	{"repeated attempts", concludeRepeatedAttempts},
	{"model load", concludeLoadTime},
	{"tail", concludeSlowTail},
	{"few slots", concludeFewSlots},
	{"memory full", concludeMemoryFull},
	{"uneven workers", concludeUneven},
}

func (b *builder) drawConclusions() []Conclusion {
	list := []Conclusion{}
	for _, rule := range rules {
		if text := rule.says(b); text != "" {
			list = append(list, Conclusion{rule.name, text})
		}
	}
	return list
}

// alike is the difference between two speeds that is not called one.
const alike = 0.02

// concludeSpeed: there is a baseline, both have answers, and a throughput of requests or of output
// tokens is known of both.
func concludeSpeed(b *builder) string {
	if b.Baseline == nil {
		return ""
	}

	now, then := b.run.Results, b.Baseline.Results
	tokens := relativeChange(outputRate(now), outputRate(then))
	requests := relativeChange(requestRate(now), requestRate(then))
	if tokens == nil && requests == nil || now.SuccessCount == 0 || then.SuccessCount == 0 {
		return ""
	}

	var parts []string
	if tokens != nil {
		parts = append(parts, formatDifference(*tokens, "output tokens/s"))
	}
	if requests != nil {
		parts = append(parts, formatDifference(*requests, "requests/s"))
	}

	text := strings.Join(parts, " and ") + " " + linkTo(tokens, requests) + " " + b.baselineName()
	mine := figures.Share(int64(now.SuccessCount), int64(countRequests(b.run)))
	its := figures.Share(int64(then.SuccessCount), int64(countRequests(b.Baseline)))
	if mine == its {
		text += ", with the same share answered"
	} else {
		text += fmt.Sprintf(", with %s answered instead of %s", mine, its)
	}

	if known, same := compareInputs(b.run, b.Baseline); known && !same {
		text += ", on another input"
	}

	return upperFirst(text) + "."
}

// formatDifference says by how much a quantity is more, in percent or as a factor.
func formatDifference(d float64, quantity string) string {
	switch {
	case math.Abs(d) <= alike:
		return fmt.Sprintf("as many %s (%s)", quantity, figures.Change(d))
	case d >= 1:
		return figures.Times(d+1) + " as many " + quantity
	case d > 0:
		return fmt.Sprintf("%.0f%% more %s", 100*d, quantity)
	}

	return fmt.Sprintf("%.0f%% fewer %s", -100*d, quantity)
}

// linkTo is the word between the last of two differences and the baseline.
func linkTo(tokens, requests *float64) string {
	last := tokens
	if requests != nil {
		last = requests
	}

	if *last >= 1 || math.Abs(*last) <= alike {
		return "as"
	}

	return "than"
}

// upperFirst begins a sentence.
func upperFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// concludeDropped: some results did not fit the run.
func concludeDropped(b *builder) string {
	n := b.run.Results.Dropped
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s of results, or lines in them, did not fit the run and were dropped. They came from a worker of another version, from another program, or from an intruder on the bus; the collector's log has the first of each kind.",
		figures.Plural(n, "message"))
}

// concludeEnergy: there is a baseline, and the energy of a token differs by 5% or more.
func concludeEnergy(b *builder) string {
	if b.Baseline == nil {
		return ""
	}

	d := relativeChange(b.run.Results.JoulesPer1000OutputTokens, b.Baseline.Results.JoulesPer1000OutputTokens)
	if d == nil || math.Abs(*d) < 0.05 {
		return ""
	}

	return fmt.Sprintf("Each output token took %.0f%% %s energy than with %s.",
		100*math.Abs(*d), map[bool]string{true: "more", false: "less"}[*d > 0], b.baselineName())
}

// concludeTokensUnknown applies where not all answers report their usage.
func concludeTokensUnknown(b *builder) string {
	switch {
	case b.run.Results.SuccessCount == 0:
		return ""
	case b.run.Results.TotalTokens == nil:
		return "The answers report no usage, so the number of tokens is not known."
	case hasPartialUsage(b.run):
		return "Some answers report no usage, so all token totals and rates are too low."
	}

	return ""
}

// hasPartialUsage reports whether the tokens of some answers are not in the totals. They
// are spread over the requests only if those of all are known.
func hasPartialUsage(run *metadata.Run) bool {
	r := run.Results
	return isOurs(run) && r.TotalTokens != nil && r.LatencySeconds != nil && r.PromptTokensPerRequest == nil
}

// concludeTruncated: 1% of the answers or more ended at a limit of length.
func concludeTruncated(b *builder) string {
	reasons := b.run.Results.FinishReasons
	cut, all := reasons["length"], sumCounts(reasons)
	if cut == 0 || cut*100 < all {
		return ""
	}
	return fmt.Sprintf("%s of the answers were cut off at their token limit: raise the limit in the requests, or run with --retry-truncated 4.",
		figures.Share(cut, all))
}

// concludeIdle applies where no worker was at work for 5% of the time, and at least a second.
func concludeIdle(b *builder) string {
	r := b.run.Results
	if r.IdleTimeSeconds == nil || *r.IdleTimeSeconds < max(1, 0.05*r.TotalTimeSeconds) {
		return ""
	}
	return fmt.Sprintf("No worker was working for %s of %s.",
		figures.Duration(*r.IdleTimeSeconds), figures.Duration(max(r.TotalTimeSeconds, *r.IdleTimeSeconds)))
}

// concludeStops: a limit stopped the run. Of many stops the latest ones are named.
func concludeStops(b *builder) string {
	const named = 3

	stops := b.run.Results.Stops
	if len(stops) == 0 {
		return ""
	}

	text := "A limit stopped the run once: "
	switch n := len(stops); {
	case n > named:
		text = fmt.Sprintf("Limits stopped the run %s times, most recently: ", figures.Count(int64(n)))
	case n > 1:
		text = fmt.Sprintf("Limits stopped the run %d times: ", n)
	}

	var list []string
	for _, s := range stops[max(0, len(stops)-named):] {
		if s.MaxTokens > 0 {
			list = append(list, figures.Count(s.MaxTokens)+" tokens")
			continue
		}

		list = append(list, fmt.Sprintf("%s (%s of %s)", s.Limit, figures.Count(int64(s.Count)), figures.Count(int64(s.Ended))))
	}

	return text + strings.Join(list, ", ") + "."
}

// concludeInterruptions: there were any.
func concludeInterruptions(b *builder) string {
	r := b.run.Results
	if r.Interruptions <= 0 {
		return ""
	}

	text := fmt.Sprintf("The run was interrupted %s",
		map[bool]string{true: "once", false: figures.Count(int64(r.Interruptions)) + " times"}[r.Interruptions == 1])
	if r.LostTimeSeconds != nil {
		text += fmt.Sprintf(", which cost %s", figures.Duration(*r.LostTimeSeconds))
	}

	return text + "."
}

// concludeRepeatedAttempts: 1% of the attempts or more had to be made again.
func concludeRepeatedAttempts(b *builder) string {
	r := b.run.Results
	again := sumCounts(r.AttemptFailures)
	if again == 0 || r.Attempts < again || again*100 < r.Attempts {
		return ""
	}
	return fmt.Sprintf("%s of the attempts had to be repeated, mostly after %s.",
		figures.Share(again, r.Attempts), DescribeCause(sortedByCount(r.AttemptFailures)[0]))
}

// concludeLoadTime: loading the model took longer than the requests.
func concludeLoadTime(b *builder) string {
	r := b.run.Results
	if r.ModelLoadTimeSeconds == nil || *r.ModelLoadTimeSeconds <= r.InferenceTimeSeconds || countRequests(b.run) == 0 {
		return ""
	}
	return fmt.Sprintf("Loading the model took longer (%s) than all the requests (%s): for runs this small, keep the server running.",
		figures.Short(*r.ModelLoadTimeSeconds), figures.Short(r.InferenceTimeSeconds))
}

// concludeSlowTail: one request in a hundred took ten times the median or longer.
func concludeSlowTail(b *builder) string {
	d := b.run.Results.LatencySeconds
	if d == nil || d.P50 <= 0 || d.P99 < 10*d.P50 || b.run.Results.SuccessCount < 100 {
		return ""
	}
	return fmt.Sprintf("One request in a hundred took at least %s as long as the median.",
		figures.Times(math.Round(d.P99/d.P50)))
}

// manySlots is less than most cards have room for. llama.cpp and LM Studio have 4 by default.
const manySlots = 32

// slotsHints explain how servers that report their slots get more of them, by the prefix
// of the server's name.
var slotsHints = []struct{ server, hint string }{
	{"llama.cpp",
		fmt.Sprintf("start it with -np %d (and a -c for as many) if it has the memory, and for prompts that have little in common with --cache-ram 0 too",
			manySlots)},
	{"LM Studio", fmt.Sprintf("load its model with Max Concurrent Predictions at %d if it has the memory", manySlots)},
}

// concludeFewSlots: a server that can have more slots had all of them taken for most of the
// run, which had more requests than slots and no such limit.
func concludeFewSlots(b *builder) string {
	text, others := "", int64(0)
	for _, w := range b.run.Workers {
		hint := slotsHint(w)
		if hint == "" || !b.wasFull(w) || w.Requests == nil || *w.Requests <= int64(w.Slots.Count) {
			continue
		}

		if fixed := b.run.Config.Concurrency; fixed != nil && *fixed <= w.Slots.Count {
			continue
		}

		if text != "" {
			others++
			continue
		}

		text = fmt.Sprintf("The model server of %s runs %s at once and was full for most of the run: %s.",
			w.DisplayName(), figures.Plural(int64(w.Slots.Count), "request"), hint)
	}

	if others > 0 {
		text += fmt.Sprintf(" The server of %s was full as well.", figures.Plural(others, "other worker"))
	}

	return text
}

// wasFull reports whether all slots of a worker's server were taken for most of the run. Between
// the announcements of a run of a few seconds nothing is seen; but no more than one request waits
// at such a server, so it was full for half of the time if its mean number of requests was as
// high as its slots.
func (b *builder) wasFull(w metadata.Worker) bool {
	if w.Slots.Readings > 0 {
		return w.Slots.FullReadings*2 > w.Slots.Readings
	}
	mean := b.run.Results.MeanConcurrentRequests
	return len(b.run.Workers) == 1 && mean != nil && *mean >= float64(w.Slots.Count)
}

// slotsHint explains how the server of a worker gets more slots; empty if it has enough of them, or
// if the way is unknown.
func slotsHint(w metadata.Worker) string {
	s := w.Slots
	if s == nil || w.SeveralServers || s.Count >= manySlots {
		return ""
	}

	for _, h := range slotsHints {
		if strings.HasPrefix(textOrUnknown(w.Platform), h.server) {
			return h.hint
		}
	}

	return ""
}

// concludeMemoryFull: a card had 98% of its memory in use or more. Servers take the memory that
// they are given, so this means that they were given too much.
func concludeMemoryFull(b *builder) string {
	for _, w := range b.run.Workers {
		for _, g := range w.GPUs {
			if used, total := g.MemoryUsedBytesMax, g.MemoryBytes; used != nil && total != nil && *total > 0 &&
				*used*100 >= *total*98 {
				return fmt.Sprintf("GPU %d of %s had %s of its memory in use, so a longer request might not fit.",
					g.Index, w.DisplayName(), figures.Share(*used, *total))
			}
		}
	}

	return ""
}

// concludeUneven: a worker that was there from beginning to end did less than half of
// another's requests. A worker that was started late, or twice, is no sign of anything.
func concludeUneven(b *builder) string {
	var least, most *int64
	var slow, fast string
	for _, w := range b.run.Workers {
		if w.Requests == nil || len(w.Sessions) != 1 ||
			!b.run.Timestamp.IsZero() && w.Sessions[0].Since.After(b.run.Timestamp) {
			continue
		}

		if least == nil || *w.Requests < *least {
			least, slow = w.Requests, w.DisplayName()
		}
		if most == nil || *w.Requests > *most {
			most, fast = w.Requests, w.DisplayName()
		}
	}

	if least == nil || *most < 100 || *least*2 >= *most {
		return ""
	}

	return fmt.Sprintf("%s handled %s, fewer than half as many as %s (%s).",
		slow, figures.Plural(*least, "request"), fast, figures.Count(*most))
}
