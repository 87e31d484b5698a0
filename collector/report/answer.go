package report

import (
	"fmt"
	"strings"

	"github.com/promptmill/promptmill/collector/internal/figures"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// answer is the outcome of the run in one sentence.
func (b *builder) answer() string {
	r := b.run.Results
	ended, all := r.SuccessCount+r.FailureCount, b.run.Test.NumRequests
	switch {
	case ended == 0:
		return "No request has ended" + describeStop(b.run) + "."
	case r.NotSentCount > 0 && ended >= all:
		return describeSent(b.run) + "; " + describeNotSent(r) + "."
	case r.FailureCount > 0:
		text := fmt.Sprintf("%s of %s were answered%s", figures.Count(int64(r.SuccessCount)),
			figures.Plural(int64(max(ended, all)), "request"), describeStop(b.run))
		if r.CountFailed() > 0 {
			text += "; " + describeFailed(b.run)
		}
		if r.NotSentCount > 0 {
			text += "; " + describeNotSent(r)
		}

		return text + "."
	case ended < all:
		return fmt.Sprintf("%s of %s were answered%s%s.", figures.Count(int64(ended)),
			figures.Plural(int64(all), "request"), describePace(r), describeStop(b.run))
	case ended == 1:
		return "The one request was answered" + describePace(r) + "."
	}

	return fmt.Sprintf("All %s requests were answered%s.", figures.Count(int64(ended)), describePace(r))
}

// describeSent is the outcome of the requests that were sent, of a run that has others.
func describeSent(run *metadata.Run) string {
	r, stop := run.Results, describeStop(run)
	sent := r.CountSent()
	switch {
	case sent == 0:
		return "No request was sent" + stop
	case sent == 1 && r.CountFailed() > 0:
		return "1 request was sent" + stop + "; " + describeFailed(run)
	case r.CountFailed() > 0:
		return fmt.Sprintf("%s of the %s that were sent %s answered%s; %s", figures.Count(int64(r.SuccessCount)),
			figures.Plural(int64(sent), "request"), wasOrWere(r.SuccessCount), stop, describeFailed(run))
	case sent == 1:
		return "1 request was answered, the only one that was sent" + withComma(stop)
	}

	return fmt.Sprintf("%s requests were answered, all that were sent%s", figures.Count(int64(sent)), withComma(stop))
}

// withComma continues a sentence after an insertion.
func withComma(text string) string {
	if text == "" {
		return ""
	}
	return "," + text
}

// describeNotSent counts the requests that were never sent. Why is said by how the run ended, other than of lines
// that are invalid.
func describeNotSent(r metadata.Results) string {
	text := fmt.Sprintf("%s %s not sent", figures.Count(int64(r.NotSentCount)), wasOrWere(r.NotSentCount))
	switch invalid := int(r.Failures[proto.CodeInvalidRequest]); {
	case invalid == 1 && r.NotSentCount == 1:
		return text + ", since it is invalid"
	case invalid >= r.NotSentCount:
		return text + ", since they are invalid"
	case invalid > 0:
		return text + fmt.Sprintf(", %s of them invalid", figures.Count(int64(invalid)))
	}

	return text
}

func wasOrWere(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

// describeStop is how a run ended that did not end with its last request.
func describeStop(run *metadata.Run) string {
	switch run.Status {
	case proto.StateCancelled, proto.StateCancelling:
		return " before the run was cancelled"
	case proto.StateExpired:
		return " before the run expired"
	case proto.StatePaused:
		return " before the run was paused"
	}

	return ""
}

// describePace is the time of the work and its rates, as far as they are known.
func describePace(r metadata.Results) string {
	var rates []string
	if v := requestRate(r); v != nil {
		rates = append(rates, figures.Amount(*v)+" requests/s")
	}
	if v := outputRate(r); v != nil {
		rates = append(rates, figures.Amount(*v)+" output tokens/s")
	}

	text := ""
	if r.InferenceTimeSeconds > 0 {
		text = " in " + figures.Duration(r.InferenceTimeSeconds)
	}
	if len(rates) > 0 {
		text += " at " + strings.Join(rates, " and ")
	}

	return text
}

// longestMessage is the most of a server's message that a sentence quotes, in characters.
const longestMessage = 160

// describeFailed counts the requests that were sent and failed, with their most frequent cause.
func describeFailed(run *metadata.Run) string {
	failed := int64(run.Results.CountFailed())
	text := figures.Count(failed) + " failed"
	causes, _ := listCauses(run.Results)
	switch {
	case len(causes) == 0:
		return text
	case len(causes) > 1:
		text += fmt.Sprintf(", mostly with %s (%s)", DescribeCause(causes[0]),
			figures.Count(run.Results.Failures[causes[0]]))
	case failed == 1:
		text += " with " + DescribeCause(causes[0])
	default:
		text += ", all with " + DescribeCause(causes[0])
	}

	if message := firstSentence(findFailure(run, causes[0]).Message); message != "" {
		text += ": " + strings.TrimRight(shorten(message, longestMessage), ". ")
	}

	return text
}

// firstSentence is a message up to its first full stop, unless little stands before that.
func firstSentence(message string) string {
	const little = 20
	if first, _, ok := strings.Cut(message, ". "); ok && len(first) >= little {
		return first
	}
	return message
}

// shorten is the beginning of a text of at most n characters, with the sign of what is left out.
func shorten(text string, n int) string {
	if runes := []rune(text); len(runes) > n {
		return strings.TrimRight(string(runes[:n-1]), " ") + "…"
	}
	return text
}

// verdict is the outcome in one word, which the page shows as a colour.
func (b *builder) verdict() Verdict {
	r := b.run.Results
	switch {
	case r.SuccessCount == 0:
		return VerdictFailed
	case r.FailureCount > 0 || countRequests(b.run) < b.run.Test.NumRequests:
		return VerdictPartial
	}
	return VerdictDone
}
