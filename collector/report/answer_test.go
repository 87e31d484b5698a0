package report

import (
	"testing"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

func TestTheAnswer(t *testing.T) {
	t.Parallel()

	failed := func(answered int, failures map[string]int64, details ...metadata.FailureDetail) func(*metadata.Run) {
		return func(r *metadata.Run) {
			r.Results.SuccessCount, r.Results.FailureCount = answered, int(sumCounts(failures))
			r.Test.NumRequests = answered + r.Results.FailureCount
			r.Results.Failures, r.Results.FailureDetails = failures, details
		}
	}

	for _, c := range []struct {
		what    string
		run     func(*metadata.Run)
		verdict Verdict
		want    string
	}{
		{"all is well", func(r *metadata.Run) {
			r.Results.OutputTokensPerSec, r.Results.InferenceTimeSeconds = new(1410.0), 720
		}, VerdictDone, "All 100 requests were answered in 12 min at 10.0 requests/s and 1,410 output tokens/s."},
		{"no tokens", nil, VerdictDone, "All 100 requests were answered in 10.0 s at 10.0 requests/s."},
		{"one request", func(r *metadata.Run) { r.Results.SuccessCount, r.Test.NumRequests = 1, 1 }, VerdictDone,
			"The one request was answered in 10.0 s at 10.0 requests/s."},
		{"one cause with its message", failed(1571, map[string]int64{"http_400": 29}, metadata.FailureDetail{
			Cause: "http_400", Count: 29, Message: "maximum context length is 4096 tokens. Please reduce it.",
		}), VerdictPartial,
			"1,571 of 1,600 requests were answered; 29 failed, all with HTTP 400: maximum context length is 4096 tokens."},
		{"one failure", failed(98, map[string]int64{"timeout": 1}), VerdictPartial,
			"98 of 99 requests were answered; 1 failed with timeout."},
		{"several causes", failed(97, map[string]int64{"poison": 1, "timeout": 2}), VerdictPartial,
			"97 of 100 requests were answered; 3 failed, mostly with timeout (2)."},
		{"nothing was answered", failed(0, map[string]int64{"http_401": 100}), VerdictFailed,
			"0 of 100 requests were answered; 100 failed, all with HTTP 401."},
		{"the causes are not known", func(r *metadata.Run) { r.Results.FailureCount, r.Test.NumRequests = 100, 200 },
			VerdictPartial, "100 of 200 requests were answered; 100 failed."},
		{"cancelled", func(r *metadata.Run) { r.Test.NumRequests, r.Status = 250, proto.StateCancelled }, VerdictPartial,
			"100 of 250 requests were answered in 10.0 s at 10.0 requests/s before the run was cancelled."},
		{"nothing was done", func(r *metadata.Run) { r.Results.SuccessCount = 0 }, VerdictFailed, "No request has ended."},
	} {
		r := Build(some(c.run), Options{})
		if r.Answer != c.want || r.Verdict != c.verdict {
			t.Errorf("%s:\n got %q, %s\nwant %q, %s", c.what, r.Answer, r.Verdict, c.want, c.verdict)
		}
	}
}

// A long message is cut, and says so.
func TestAnAnswerIsShort(t *testing.T) {
	t.Parallel()

	if got, want := shorten("äbcdef", 4), "äbc…"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := shorten("abcd", 4); got != "abcd" {
		t.Errorf("got %q", got)
	}
}

// There are six tiles at most, and none of what is not known.
func TestTiles(t *testing.T) {
	t.Parallel()

	names := func(r *Report) (list []string) {
		for _, row := range (pageData{Report: r}).Tiles() {
			list = append(list, row[0].Text+" "+row[1].Text)
		}
		return list
	}

	for _, c := range []struct {
		what string
		got  []string
		want []string
	}{
		{"little is known", names(Build(some(nil), Options{})),
			[]string{"Answered 100%", "Requests/s 10.0", "Time worked 10.0 s"}},
		{"all is known", names(Build(fixture(t, "full"), Options{})), []string{
			"Answered 99.5%", "Requests/s 6.91", "Output tokens/s 1,410", "Median latency 9.1 s", "Time worked 10 min",
			"Energy 0.11 kWh",
		}},
		{"prices", names(Build(fixture(t, "full"), Options{Prices: Prices{KWh: new(0.5), Currency: "USD"}}))[5:],
			[]string{"Energy cost USD 0.057"}},
		{"no energy", names(Build(func() *metadata.Run {
			run := fixture(t, "full")
			run.Results.EnergyJoules = nil
			return run
		}(), Options{}))[5:], []string{"Wasted at least 1.5%"}},
		{"embeddings", names(Build(some(func(r *metadata.Run) {
			r.Results.PromptTokens, r.Results.CompletionTokens = new(int64(500)), new(int64(0))
			r.Results.InputTokensPerSec, r.Results.OutputTokensPerSec = new(50.0), new(0.0)
		}), Options{})), []string{"Answered 100%", "Requests/s 10.0", "Input tokens/s 50.0", "Time worked 10.0 s"}},
		{"failures alone", names(Build(some(func(r *metadata.Run) {
			r.Results.SuccessCount, r.Results.FailureCount = 0, r.Results.SuccessCount
		}), Options{})), []string{"Answered 0%", "Time worked 10.0 s"}},
	} {
		if len(c.got) != len(c.want) {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
			continue
		}
		for i := range c.want {
			if c.got[i] != c.want[i] {
				t.Errorf("%s: got %q, want %q", c.what, c.got[i], c.want[i])
			}
		}
	}
}
