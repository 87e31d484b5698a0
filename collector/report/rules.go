package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/promptmill/promptmill/collector/metadata"
)

// rules are what conclusions follow from: each says its sentence, or nothing.
var rules = []struct {
	name string
	says func(*builder) string
}{
	{"success", success},
	{"speed", speed},
	{"energy", energyAgainst},
	{"estimate", noEstimate},
	{"tokens unknown", tokensUnknown},
	{"cut off", cutOff},
	{"idle", idle},
	{"interruptions", interruptions},
	{"dropped", dropped},
	{"repeated attempts", repeated},
	{"model load", load},
	{"tail", tail},
	{"few slots", fewSlots},
	{"memory full", memoryFull},
	{"uneven workers", uneven},
}

func (b *builder) conclude() []Conclusion {
	list := []Conclusion{}
	for _, rule := range rules {
		if text := rule.says(b); text != "" {
			list = append(list, Conclusion{rule.name, text})
		}
	}
	return list
}

// success: always; it names the most frequent cause of failure.
func success(b *builder) string {
	n, failed := int64(requests(b.run)), int64(b.run.Results.FailureCount)
	switch {
	case n == 0:
		return "No request has ended."
	case failed == 0 && n == 1:
		return "The one request was answered."
	case failed == 0:
		return fmt.Sprintf("All %s requests were answered.", count(n))
	}

	text := fmt.Sprintf("%s of %s failed (%s)", count(failed), plural(n, "request"), share(failed, n))
	if causes := tallied(b.run.Results.Failures); len(causes) == 1 {
		text += ", all of them of " + called(causes[0])
	} else if len(causes) > 1 {
		text += fmt.Sprintf(", most often of %s (%s)", called(causes[0]), count(b.run.Results.Failures[causes[0]]))
	}

	return text + "."
}

// alike is the difference between two speeds that is not called one.
const alike = 0.02

// speed: there is a baseline, both have answers and a token throughput, or at least a
// request throughput.
func speed(b *builder) string {
	if b.Baseline == nil {
		return ""
	}

	now, then := b.run.Results, b.Baseline.Results
	d := difference(now.ThroughputTokensPerSec, then.ThroughputTokensPerSec)
	if d == nil {
		d = difference(now.ThroughputRequestsPerSec, then.ThroughputRequestsPerSec)
	}

	if d == nil || now.SuccessCount == 0 || then.SuccessCount == 0 {
		return ""
	}

	text := versus(*d, "faster", "slower") + " " + b.baseline()
	if math.Abs(*d) <= alike {
		text = "As fast as " + b.baseline() + " (" + change(*d) + ")"
	}

	mine := share(int64(now.SuccessCount), int64(requests(b.run)))
	its := share(int64(then.SuccessCount), int64(requests(b.Baseline)))
	if mine == its {
		text += " at the same success rate"
	} else {
		text += fmt.Sprintf(" at a success rate of %s instead of %s", mine, its)
	}

	if known, same := sameInput(b.run, b.Baseline); known && !same {
		text += ", on another input"
	}

	return text + "."
}

// dropped: some results did not fit the run.
func dropped(b *builder) string {
	n := b.run.Results.Dropped
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s of results, or lines of them, did not fit the run and counted for nothing: a worker of another version or program sent them, or somebody who should not be on the bus. The collector's log has the first of each kind.",
		plural(n, "message"))
}

// versus says how much more something is, in percent or as a factor.
func versus(d float64, more, less string) string {
	switch {
	case d >= 1:
		return times(d+1) + " as fast as"
	case d >= 0:
		return fmt.Sprintf("%.0f%% %s than", 100*d, more)
	}
	return fmt.Sprintf("%.0f%% %s than", -100*d, less)
}

// energyAgainst: there is a baseline, and the energy of a token differs by 5% or more.
func energyAgainst(b *builder) string {
	if b.Baseline == nil {
		return ""
	}

	d := difference(b.run.Results.JoulesPer1000OutputTokens, b.Baseline.Results.JoulesPer1000OutputTokens)
	if d == nil || math.Abs(*d) < 0.05 {
		return ""
	}

	return fmt.Sprintf("An output token took %.0f%% %s energy than with %s.",
		100*math.Abs(*d), map[bool]string{true: "more", false: "less"}[*d > 0], b.baseline())
}

// tokensUnknown: there were answers, and not all told their usage.
func tokensUnknown(b *builder) string {
	switch {
	case b.run.Results.SuccessCount == 0:
		return ""
	case b.run.Results.TotalTokens == nil:
		return "How many tokens there were is not known: the answers do not tell their usage."
	case partlyCounted(b.run):
		return "Some answers do not tell their usage: all totals and rates of tokens are without theirs, and so too low."
	}

	return ""
}

// partlyCounted reports whether the tokens of some answers are not in the totals. They
// are spread over the requests only if those of all are known.
func partlyCounted(run *metadata.Run) bool {
	r := run.Results
	return ours(run) && r.TotalTokens != nil && r.LatencySeconds != nil && r.PromptTokensPerRequest == nil
}

// cutOff: 1% of the answers or more ended at a limit of length.
func cutOff(b *builder) string {
	reasons := b.run.Results.FinishReasons
	cut, all := reasons["length"], sum(reasons)
	if cut == 0 || cut*100 < all {
		return ""
	}
	return fmt.Sprintf("%s of the answers were cut off at their limit of tokens: raise it in the requests, or run with --retry-truncated 4.",
		share(cut, all))
}

// idle: nobody was at work for 5% of the time or more, and a second at least.
func idle(b *builder) string {
	r := b.run.Results
	if r.IdleTimeSeconds == nil || *r.IdleTimeSeconds < max(1, 0.05*r.TotalTimeSeconds) {
		return ""
	}
	return fmt.Sprintf("Nobody was at work for %s of %s.",
		duration(*r.IdleTimeSeconds), duration(max(r.TotalTimeSeconds, *r.IdleTimeSeconds)))
}

// interruptions: there were any.
func interruptions(b *builder) string {
	r := b.run.Results
	if r.Interruptions <= 0 {
		return ""
	}

	text := fmt.Sprintf("The run was interrupted %s",
		map[bool]string{true: "once", false: count(int64(r.Interruptions)) + " times"}[r.Interruptions == 1])
	if r.LostTimeSeconds != nil {
		text += fmt.Sprintf(", which cost %s", duration(*r.LostTimeSeconds))
	}

	return text + "."
}

// repeated: 1% of the attempts or more had to be made again.
func repeated(b *builder) string {
	r := b.run.Results
	again := sum(r.AttemptFailures)
	if again == 0 || r.Attempts < again || again*100 < r.Attempts {
		return ""
	}
	return fmt.Sprintf("%s of the attempts had to be made again, most often after %s.",
		share(again, r.Attempts), called(tallied(r.AttemptFailures)[0]))
}

// load: loading the model took longer than the requests.
func load(b *builder) string {
	r := b.run.Results
	if r.ModelLoadTimeSeconds == nil || *r.ModelLoadTimeSeconds <= r.InferenceTimeSeconds || requests(b.run) == 0 {
		return ""
	}
	return fmt.Sprintf("Loading the model took longer (%s) than all requests (%s): for runs this small, keep the server up.",
		shortly(*r.ModelLoadTimeSeconds), shortly(r.InferenceTimeSeconds))
}

// tail: one request in a hundred took ten times the median or longer.
func tail(b *builder) string {
	d := b.run.Results.LatencySeconds
	if d == nil || d.P50 <= 0 || d.P99 < 10*d.P50 || b.run.Results.SuccessCount < 100 {
		return ""
	}
	return fmt.Sprintf("One request in a hundred took %s as long as the median, or longer.",
		times(math.Round(d.P99/d.P50)))
}

// manySlots is less than most cards have room for. llama.cpp and LM Studio have 4 by default.
const manySlots = 32

// slotsHints say how the servers that tell of their slots get more of them, by what their
// names begin with.
var slotsHints = []struct{ server, hint string }{
	{"llama.cpp",
		fmt.Sprintf("start it with -np %d (and a -c for as many) if it has the memory, and for prompts that have little in common with --cache-ram 0 too",
			manySlots)},
	{"LM Studio", fmt.Sprintf("load its model with Max Concurrent Predictions at %d if it has the memory", manySlots)},
}

// fewSlots: a server that can have more slots had all of them taken for most of the run, which
// had more requests than that and was not kept to so few.
func fewSlots(b *builder) string {
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
			w.Called(), plural(int64(w.Slots.Count), "request"), hint)
	}

	if others > 0 {
		text += fmt.Sprintf(" That of %s was full, too.", plural(others, "other worker"))
	}

	return text
}

// wasFull reports whether all slots of a worker's server were taken for most of the run. Between
// the announcements of a run of a few seconds nothing is seen; but no more than one request waits
// at such a server, so that it was full for half of the time if that many were there on average.
func (b *builder) wasFull(w metadata.Worker) bool {
	if w.Slots.Readings > 0 {
		return w.Slots.FullReadings*2 > w.Slots.Readings
	}
	mean := b.run.Results.MeanConcurrentRequests
	return len(b.run.Workers) == 1 && mean != nil && *mean >= float64(w.Slots.Count)
}

// slotsHint says how the server of a worker gets more slots; empty if it has enough of them, or
// nobody knows.
func slotsHint(w metadata.Worker) string {
	s := w.Slots
	if s == nil || w.SeveralServers || s.Count >= manySlots {
		return ""
	}

	for _, h := range slotsHints {
		if strings.HasPrefix(orUnknown(w.Platform), h.server) {
			return h.hint
		}
	}

	return ""
}

// memoryFull: a card had 98% of its memory in use or more. Servers take what they are
// given, so this says what they were given too much of.
func memoryFull(b *builder) string {
	for _, w := range b.run.Workers {
		for _, g := range w.GPUs {
			if used, total := g.MemoryUsedBytesMax, g.MemoryBytes; used != nil && total != nil && *total > 0 &&
				*used*100 >= *total*98 {
				return fmt.Sprintf("GPU %d of %s had %s of its memory in use: a longer request might not fit.",
					g.Index, w.Called(), share(*used, *total))
			}
		}
	}

	return ""
}

// uneven: a worker that was there from beginning to end did less than half of what
// another did. One that was started late, or twice, is no sign of anything.
func uneven(b *builder) string {
	var least, most *int64
	var slow, fast string
	for _, w := range b.run.Workers {
		if w.Requests == nil || len(w.Sessions) != 1 ||
			!b.run.Timestamp.IsZero() && w.Sessions[0].Since.After(b.run.Timestamp) {
			continue
		}

		if least == nil || *w.Requests < *least {
			least, slow = w.Requests, w.Called()
		}
		if most == nil || *w.Requests > *most {
			most, fast = w.Requests, w.Called()
		}
	}

	if least == nil || *most < 100 || *least*2 >= *most {
		return ""
	}

	return fmt.Sprintf("%s did %s, less than half of what %s did (%s).",
		slow, plural(*least, "request"), fast, count(*most))
}
