package summary

import (
	"fmt"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// FormatOutcome counts the answered and the failed requests of a run, and those that were never sent, if there are
// any: "390 answered, 10 failed, 3,600 not sent".
func FormatOutcome(r metadata.Results) string {
	text := fmt.Sprintf("%s answered, %s failed", terminal.FormatCount(r.SuccessCount),
		terminal.FormatCount(r.CountFailed()))
	if r.NotSentCount > 0 {
		text += ", " + terminal.FormatCount(r.NotSentCount) + " not sent"
	}

	return text
}

// FormatCounts is [FormatOutcome] by the counts of a manifest.
func FormatCounts(c proto.Counts) string { return FormatOutcome(resultsOf(c)) }

// DescribeUnanswered says how many requests of a run of some failed or were not sent, as an error does.
func DescribeUnanswered(c proto.Counts, requests int) string {
	return describeUnanswered(resultsOf(c), requests)
}

func describeUnanswered(r metadata.Results, requests int) string {
	failed, notSent := terminal.FormatCount(r.CountFailed()), terminal.FormatCount(r.NotSentCount)
	switch {
	case r.NotSentCount == 0:
		return fmt.Sprintf("%s of %s requests failed", failed, terminal.FormatCount(requests))
	case r.CountFailed() == 0:
		return fmt.Sprintf("%s of %s requests were not sent", notSent, terminal.FormatCount(requests))
	}

	return fmt.Sprintf("%s of %s requests failed, and %s were not sent", failed, terminal.FormatCount(requests), notSent)
}

// resultsOf returns the counts of a manifest as the metadata has them.
func resultsOf(c proto.Counts) metadata.Results {
	return metadata.Results{
		SuccessCount: c.Done - c.Failed,
		FailureCount: c.Failed,
		NotSentCount: c.Skipped,
	}
}
