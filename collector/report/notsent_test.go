package report

import (
	"slices"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// cancelledRun makes a run one of 4,000 requests, 2 of them invalid, that was cancelled after 400 requests, of which
// 10 failed.
func cancelledRun(r *metadata.Run) {
	r.Status, r.Test.NumRequests = proto.StateCancelled, 4000
	r.Test.InputFile, r.Test.OutputFile, r.Test.ErrorFile = "in.jsonl", "out.jsonl.zst", new("out.errors.jsonl.zst")
	r.Manifest = &proto.Manifest{
		Run:   "this",
		Input: proto.Input{Files: []proto.File{{Path: "in.jsonl"}}},
	}

	r.Results.SuccessCount, r.Results.FailureCount, r.Results.NotSentCount = 390, 3610, 3600
	r.Results.Failures = map[string]int64{
		proto.CodeCancelled: 3598, proto.CodeInvalidRequest: 2, "http_400": 10,
	}
	r.Results.FailureDetails = []metadata.FailureDetail{
		{Cause: proto.CodeCancelled, Count: 3598, Message: "the run was cancelled before this request ran", CustomID: "a-9"},
		{Cause: "http_400", Count: 10, Message: "too long", CustomID: "a-1"},
		{Cause: proto.CodeInvalidRequest, Count: 2, Message: "no body", CustomID: "a-3"},
	}
}

func TestTheAnswerOfWhatWasNotSent(t *testing.T) {
	t.Parallel()

	counts := func(state proto.State, all, answered, failed, notSent, invalid int) func(*metadata.Run) {
		return func(r *metadata.Run) {
			r.Status, r.Test.NumRequests = state, all
			r.Results.SuccessCount, r.Results.FailureCount, r.Results.NotSentCount = answered, failed+notSent, notSent
			r.Results.Failures = map[string]int64{}
			for cause, n := range map[string]int{
				"http_400": failed, proto.CodeCancelled: notSent - invalid, proto.CodeInvalidRequest: invalid,
			} {
				if n > 0 {
					r.Results.Failures[cause] = int64(n)
				}
			}
		}
	}

	for _, c := range []struct {
		what    string
		run     func(*metadata.Run)
		verdict Verdict
		want    string
	}{
		{"cancelled", counts(proto.StateCancelled, 4000, 400, 0, 3600, 0), VerdictPartial,
			"400 requests were answered, all that were sent, before the run was cancelled; 3,600 were not sent."},
		{"expired", counts(proto.StateExpired, 4000, 400, 0, 3600, 0), VerdictPartial,
			"400 requests were answered, all that were sent, before the run expired; 3,600 were not sent."},
		{"cancelled with failures", counts(proto.StateCancelled, 4000, 390, 10, 3600, 0), VerdictPartial,
			"390 of the 400 requests that were sent were answered before the run was cancelled; 10 failed, all with HTTP 400; 3,600 were not sent."},
		{"cancelled, with invalid lines", counts(proto.StateCancelled, 4000, 400, 0, 3600, 2), VerdictPartial,
			"400 requests were answered, all that were sent, before the run was cancelled; 3,600 were not sent, 2 of them invalid."},
		{"invalid lines", counts(proto.StateCompleted, 100, 98, 0, 2, 2), VerdictPartial,
			"98 requests were answered, all that were sent; 2 were not sent, since they are invalid."},
		{"an invalid line and a failure", counts(proto.StateCompleted, 3, 1, 1, 1, 1), VerdictPartial,
			"1 of the 2 requests that were sent was answered; 1 failed with HTTP 400; 1 was not sent, since it is invalid."},
		{"one was sent", counts(proto.StateCancelled, 2, 1, 0, 1, 0), VerdictPartial,
			"1 request was answered, the only one that was sent, before the run was cancelled; 1 was not sent."},
		{"one was sent and failed", counts(proto.StateCancelled, 2, 0, 1, 1, 0), VerdictFailed,
			"1 request was sent before the run was cancelled; 1 failed with HTTP 400; 1 was not sent."},
		{"none was sent", counts(proto.StateCancelled, 9, 0, 0, 9, 0), VerdictFailed,
			"No request was sent before the run was cancelled; 9 were not sent."},
		{"paused, with invalid lines", counts(proto.StatePaused, 4000, 400, 0, 2, 2), VerdictPartial,
			"400 of 4,000 requests were answered before the run was paused; 2 were not sent, since they are invalid."},
	} {
		r := Build(some(c.run), Options{})
		if r.Answer != c.want || r.Verdict != c.verdict {
			t.Errorf("%s:\n got %q, %s\nwant %q, %s", c.what, r.Answer, r.Verdict, c.want, c.verdict)
		}
	}
}

// Success, failures and what to do next are of what was sent.
func TestSectionsOfWhatWasNotSent(t *testing.T) {
	t.Parallel()

	r := Build(some(cancelledRun), Options{})
	rows := map[string][]string{}
	for _, s := range r.Sections {
		for _, row := range s.Rows {
			var texts []string
			for _, cell := range row {
				texts = append(texts, cell.Text)
			}
			rows[s.ID] = append(rows[s.ID], strings.Join(texts, "|"))
		}
	}

	for id, want := range map[string][]string{
		"failures": {"HTTP 400|10|2.5%|too long|a-1"},
		"not_sent": {
			"batch_cancelled|3,598|90%|the run was cancelled before this request ran|a-9",
			"invalid_request|2|0.1%|no body|a-3",
		},
	} {
		if !slices.Equal(rows[id], want) {
			t.Errorf("%s: %q, want %q", id, rows[id], want)
		}
	}

	for _, row := range []string{"Answered|97.5%|390 of 400; 3,600 not sent"} {
		if !slices.Contains(rows["summary"], row) {
			t.Errorf("the summary %q lacks %q", rows["summary"], row)
		}
	}
	for _, row := range []string{"Successful requests|390", "Failed requests|10", "Requests that were not sent|3,600"} {
		if !slices.Contains(rows["result"], row) {
			t.Errorf("the figures %q lack %q", rows["result"], row)
		}
	}
}

// A retry is offered for what it can do: an invalid line stays invalid.
func TestRetryOfWhatWasNotSent(t *testing.T) {
	t.Parallel()

	for want, r := range map[string]metadata.Results{
		"Run the failed requests again, and those that were not sent": {FailureCount: 3, NotSentCount: 2},
		"Run the failed requests again": {
			FailureCount: 3, NotSentCount: 2, Failures: map[string]int64{proto.CodeInvalidRequest: 2, "http_500": 1},
		},
		"Run the requests that were not sent": {FailureCount: 2, NotSentCount: 2},
		"":                                    {FailureCount: 2, NotSentCount: 2, Failures: map[string]int64{proto.CodeInvalidRequest: 2}},
	} {
		if got := describeRetry(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Beside other runs and in the history, the share of answers is of what was sent.
func TestComparedWithWhatWasNotSent(t *testing.T) {
	t.Parallel()

	all := func(r *metadata.Run) { r.Results.ThroughputRequestsPerSec = new(20.0) }
	r := Compare([]Named{{"that.meta.json", other(all)}, {"this.meta.json", some(func(r *metadata.Run) {
		cancelledRun(r)
		r.Results.SuccessCount, r.Results.FailureCount = 400, 3600
	})}}, Options{})
	if len(r.Conclusions) != 1 || !strings.Contains(r.Conclusions[0].Text, "with the same share answered") {
		t.Errorf("conclusions %+v", r.Conclusions)
	}

	for _, s := range r.Sections {
		if s.ID == "requests" && (s.Rows[1][1].Text != "400" || s.Rows[1][2].Text != "100%") {
			t.Errorf("the requests of the cancelled run: %+v", s.Rows[1])
		}
	}

	run := some(cancelledRun)
	entry := history.Of("this.meta.json", run)
	older := entry
	older.NotSentCount = 0
	for what, p := range map[string]Past{"its entry": {Entry: entry}, "its metadata": {Entry: older, Run: run}} {
		table := History([]Past{p}).Sections[0]
		i := slices.IndexFunc(table.Columns, func(c Column) bool { return c.Name == "Success" })
		if got := table.Rows[0][i].Text; got != "97.5%" {
			t.Errorf("success by %s: %s, want 97.5%%", what, got)
		}
	}
}
