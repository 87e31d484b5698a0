package collector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// resultLine is the output line of a result, changed from an answer at the first attempt.
func resultLine(seq uint32, change func(*proto.Result)) []byte {
	r := proto.Result{
		Run:         "r",
		Index:       seq,
		CustomID:    lineID(seq),
		RequestHash: requestOf(seq).Hash(),
		Status:      200,
		Worker:      "w",
		Attempts:    1,
		Body:        []byte(`{"choices":[{"finish_reason":"stop"}]}`),
	}

	change(&r)

	return proto.AppendResult(nil, r)
}

func fails(code string, attempts int) func(*proto.Result) {
	return func(r *proto.Result) {
		r.Status, r.Attempts, r.Err = 0, attempts, &proto.ResultError{Code: code}
	}
}

func TestTally(t *testing.T) {
	t.Parallel()

	one := func(name string) map[string]int64 { return map[string]int64{name: 1} }
	for _, tt := range []struct {
		name string
		line []byte
		want Tally
	}{
		{"an answer", resultLine(0, func(*proto.Result) {}),
			Tally{Attempts: one("1"), Finish: one("stop"), Workers: one("w")}},
		{"an answer after retries", resultLine(0, func(r *proto.Result) {
			r.Attempts, r.Reasons = 4, []string{"503", "timeout", "503"}
		}), Tally{
			Attempts: one("4"),
			Retried:  map[string]int64{"503": 2, "timeout": 1},
			Finish:   one("stop"),
			Workers:  one("w"),
		}},
		{"retries that nobody explains", resultLine(0, func(r *proto.Result) {
			r.Attempts, r.Reasons = 4, []string{"503"}
		}), Tally{
			Attempts: one("4"),
			Retried:  map[string]int64{"503": 1, "unknown": 2},
			Finish:   one("stop"),
			Workers:  one("w"),
		}},
		{"an embedding", resultLine(0, func(r *proto.Result) { r.Body = []byte(`{"data":[]}`) }),
			Tally{Attempts: one("1"), Finish: one("none"), Workers: one("w")}},
		{"a refusal of the server", resultLine(0, func(r *proto.Result) { r.Status, r.Body = 400, []byte(`{}`) }),
			Tally{Attempts: one("1"), Failures: one("http_400"), Workers: one("w")}},
		{"no answer", resultLine(0, fails("timeout", 1)),
			Tally{Attempts: one("1"), Failures: one("timeout"), Workers: one("w")}},
		{"an answer that does not count", resultLine(0, func(r *proto.Result) {
			r.Err = &proto.ResultError{Code: proto.CodeSchemaMismatch}
		}), Tally{Attempts: one("1"), Finish: one("stop"), Failures: one("schema_mismatch"), Workers: one("w")}},
		{"a request that killed its servers", resultLine(0, fails("poison", 0)),
			Tally{Failures: one("poison"), Workers: one("w")}},
		{"a request that was not run", resultLine(0, fails("invalid_request", 0)),
			Tally{Failures: one("invalid_request")}},
		{"a line without our extras", proto.StripExtras(lineOf(0, 0)), Tally{Finish: one("stop")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			info, err := proto.ParseLine(new(jsonscan.Scanner), tt.line)
			must(t, err)
			f := &frame{}
			f.add(0, tt.line, info)
			f.tally.Latency, f.tally.Prompt, f.tally.Completion, f.tally.Slowest, f.tally.Longest,
				f.tally.Examples = nil, nil, nil, nil, nil, nil
			f.tally.CachedTokens = 0 // for all these see TestTallyMeasures
			if diff := cmp.Diff(tt.want, f.tally); diff != "" {
				t.Errorf("tally (-want +got):\n%s", diff)
			}
		})
	}
}

// What requests took and how long their answers are is told by the answered ones, and
// what failed by one of each kind.
func TestTallyMeasures(t *testing.T) {
	t.Parallel()

	var whole Tally
	scan := new(jsonscan.Scanner)
	for part := range 10 {
		f := &frame{}
		for i := range 10 {
			seq := uint32(10*part + i)
			line := resultLine(seq, func(r *proto.Result) {
				r.Latency = time.Duration(seq) * time.Second
				r.Body = fmt.Appendf(nil,
					`{"choices":[{}],"usage":{"prompt_tokens":10,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":8}}}`,
					99-seq)
				if i == 9 {
					r.Status, r.Err, r.Body = 0, &proto.ResultError{Code: "timeout"}, nil
				}
			})

			info, err := proto.ParseLine(scan, line)
			must(t, err)
			f.add(seq, line, info)
		}

		whole.Add(f.tally)
	}

	if d := whole.Latency.distribution(1000, 90); d == nil || d.Max != 98 || d.Mean != 49 {
		t.Errorf("latency %+v", d)
	}

	if d := whole.Completion.distribution(1, 90); d == nil || d.Max != 99 || d.Mean != 50 {
		t.Errorf("completion tokens %+v", d)
	}

	if whole.CachedTokens != 90*8 {
		t.Errorf("%d cached tokens, want those of 90 answers", whole.CachedTokens)
	}

	if d := whole.Prompt.distribution(1, 91); d != nil {
		t.Errorf("the prompts of 90 requests stand for 91: %+v", d)
	}

	want := []metadata.Outlier{
		{CustomID: "c-98", LatencySeconds: 98, CompletionTokens: new(int64(1))},
		{CustomID: "c-97", LatencySeconds: 97, CompletionTokens: new(int64(2))},
		{CustomID: "c-96", LatencySeconds: 96, CompletionTokens: new(int64(3))},
		{CustomID: "c-95", LatencySeconds: 95, CompletionTokens: new(int64(4))},
		{CustomID: "c-94", LatencySeconds: 94, CompletionTokens: new(int64(5))},
	}
	if diff := cmp.Diff(want, whole.Slowest); diff != "" {
		t.Errorf("slowest (-want +got):\n%s", diff)
	}

	if len(whole.Longest) != outliers || whole.Longest[0].CustomID != "c-0" || whole.Longest[4].CustomID != "c-4" {
		t.Errorf("longest %+v", whole.Longest)
	}

	if diff := cmp.Diff(map[string]string{"timeout": "c-9"}, whole.Examples); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
}

// An answer that does not tell its usage has an unknown number of tokens, and none that has
// no tokens is a long one.
func TestTallyOfUnknownTokens(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, body string
		want       *int64
	}{
		{"no usage", `{"choices":[{}]}`, nil},
		{"an embedding", `{"data":[],"usage":{"prompt_tokens":10,"total_tokens":10}}`, new(int64(0))},
	} {
		line := resultLine(0, func(r *proto.Result) { r.Body, r.Latency = []byte(tt.body), time.Second })
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		must(t, err)
		var tally Tally
		tally.add(info, "w")
		if diff := cmp.Diff(
			[]metadata.Outlier{{CustomID: "c-0", LatencySeconds: 1, CompletionTokens: tt.want}}, tally.Slowest,
		); diff != "" {
			t.Errorf("%s: slowest (-want +got):\n%s", tt.name, diff)
		}

		if tally.Longest != nil {
			t.Errorf("%s: it is a long answer: %+v", tt.name, tally.Longest)
		}
	}
}

// What comes out of answers cannot fill the memory.
func TestTallyIsBounded(t *testing.T) {
	t.Parallel()

	var all Tally
	for i := range 3 * maxNames {
		all.Add(Tally{Finish: map[string]int64{fmt.Sprint("reason ", i): 2}})
	}

	all.Add(Tally{Finish: map[string]int64{"reason 0": 1}})
	if len(all.Finish) > maxNames+1 || all.Finish["reason 0"] != 3 || all.Finish[otherName] != 2*2*maxNames {
		t.Errorf("%d names, the first %d times and %d times another",
			len(all.Finish), all.Finish["reason 0"], all.Finish[otherName])
	}

	all = Tally{}
	all.Add(Tally{Failures: map[string]int64{strings.Repeat("x", maxName+1): 1}})
	if diff := cmp.Diff(map[string]int64{otherName: 1}, all.Failures); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

// checkTally checks what the metadata says of the lines.
func checkTally(t *testing.T, want *Tally, meta metadata.Run) {
	t.Helper()

	r := meta.Results
	got := &Tally{
		Attempts:     r.AttemptsHistogram,
		Retried:      r.AttemptFailures,
		Finish:       r.FinishReasons,
		Failures:     r.Failures,
		CachedTokens: orEmpty(r.CachedPromptTokens),
	}
	for _, w := range meta.Workers {
		if *w.Requests > 0 {
			count(&got.Workers, w.Name, *w.Requests)
		}
	}

	counts := cmpopts.IgnoreFields(Tally{}, "Latency", "Prompt", "Completion", "Slowest", "Longest", "Examples")
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), counts); diff != "" {
		t.Errorf("tally of the metadata (-want +got):\n%s", diff)
	}

	for what, both := range map[string][2]*metadata.Distribution{
		"latency":           {want.Latency.distribution(1000, r.SuccessCount), r.LatencySeconds},
		"prompt tokens":     {want.Prompt.distribution(1, r.SuccessCount), r.PromptTokensPerRequest},
		"completion tokens": {want.Completion.distribution(1, r.SuccessCount), r.CompletionTokensPerRequest},
	} {
		if diff := cmp.Diff(both[0], both[1], cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("%s of the metadata (-want +got):\n%s", what, diff)
		}
	}

	if len(r.FailureExamples) != len(want.Examples) || len(r.Slowest) != len(want.Slowest) ||
		len(r.Longest) != len(want.Longest) {
		t.Errorf("%d examples of failures, %d slow and %d long answers; want %d, %d and %d",
			len(r.FailureExamples), len(r.Slowest), len(r.Longest), len(want.Examples), len(want.Slowest),
			len(want.Longest))
	}
}

// A collector that is killed while it writes has the figures of one that was not.
func TestTallyAfterCrash(t *testing.T) {
	t.Parallel()

	b := newBench(t, 12, 16<<20)
	b.publish("0-0", 0, 1)
	c := b.start()
	c.waitDurable(2)
	b.publish("0-0", 2, 3, 4)
	c.waitDurable(5)
	c.stopped()
	b.tear(1) // the latest frame is not whole

	b.publish("0-1", 4, 5, 6)
	b.publish("0-2", 7, 8, 9, 10, 11)
	meta := b.finish(b.start())
	checkTally(t, tallyOf(to(12)...), meta)
	if meta.Results.DuplicatesDropped != 1 {
		t.Errorf("%d duplicates, want request 4", meta.Results.DuplicatesDropped)
	}
}

// tear cuts the last bytes off the journal.
func (b *bench) tear(bytes int64) {
	b.t.Helper()
	j := open(b.t, b.out.Journal())
	must(b.t, j.file.Truncate(j.size-bytes))
	must(b.t, j.Close())
}

// What an earlier program did not count stays unknown.
func TestTallyOfOldJournal(t *testing.T) {
	t.Parallel()

	b := newBench(t, 6, 16<<20)
	j := open(t, b.out.Journal())
	f := &frame{position: Position{Created: b.stream(proto.ResultsStream("r")).Created}}
	info, err := proto.ParseLine(new(jsonscan.Scanner), lineOf(0, 0))
	must(t, err)
	f.add(0, lineOf(0, 0), info)
	seqs, lines := f.lines()
	h := f.header(seqs)
	h.Run, h.At, h.Tally = "r", born, nil
	must(t, j.append(h, seqs, lines))
	if j = reopen(t, j); j.State().Tally != nil || j.State().Counts.Done != 1 {
		t.Errorf("state %+v, want a line and no tally", j.State())
	}

	must(t, j.Close())

	b.publish("0-0", 1, 2, 3)
	c := b.start()
	c.waitDurable(4)
	c.stopped() // and opened again
	b.publish("0-0", 4, 5)

	r := b.finish(b.start()).Results
	if r.AttemptsHistogram != nil || r.AttemptFailures != nil || r.FinishReasons != nil || r.Failures != nil ||
		r.EnergyJoules != nil {
		t.Errorf("figures %+v, want those of the tally unknown", r)
	}
}
