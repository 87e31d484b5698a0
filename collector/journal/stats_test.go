package journal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

func TestFrameStats(t *testing.T) {
	t.Parallel()

	one := func(name string) map[string]int64 { return map[string]int64{name: 1} }
	for _, tt := range []struct {
		name string
		line []byte
		want FrameStats
	}{
		{"an answer", fixture.ResultLine(0, func(*proto.Result) {}),
			FrameStats{Attempts: one("1"), Finish: one("stop"), Workers: one("w")}},
		{"an answer after retries", fixture.ResultLine(0, func(r *proto.Result) {
			r.Attempts, r.Reasons = 4, []string{"503", "timeout", "503"}
		}), FrameStats{
			Attempts: one("4"),
			Retried:  map[string]int64{"503": 2, "timeout": 1},
			Finish:   one("stop"),
			Workers:  one("w"),
		}},
		{"retries without a reason for each", fixture.ResultLine(0, func(r *proto.Result) {
			r.Attempts, r.Reasons = 4, []string{"503"}
		}), FrameStats{
			Attempts: one("4"),
			Retried:  map[string]int64{"503": 1, "unknown": 2},
			Finish:   one("stop"),
			Workers:  one("w"),
		}},
		{"an embedding", fixture.ResultLine(0, func(r *proto.Result) { r.Body = []byte(`{"data":[]}`) }),
			FrameStats{Attempts: one("1"), Finish: one("none"), Workers: one("w")}},
		{"a refusal of the server", fixture.ResultLine(0, func(r *proto.Result) {
			r.Status, r.Body = 400, []byte(`{}`)
		}),
			FrameStats{Attempts: one("1"), Failures: one("http_400"), Workers: one("w")}},
		{"no answer", fixture.ResultLine(0, fixture.FailWith("timeout", 1)),
			FrameStats{Attempts: one("1"), Failures: one("timeout"), Workers: one("w")}},
		{"an answer that does not count", fixture.ResultLine(0, func(r *proto.Result) {
			r.Err = &proto.ResultError{Code: proto.CodeSchemaMismatch}
		}), FrameStats{Attempts: one("1"), Finish: one("stop"), Failures: one("schema_mismatch"), Workers: one("w")}},
		{"a request that killed its servers", fixture.ResultLine(0, fixture.FailWith("poison", 0)),
			FrameStats{Failures: one("poison"), Workers: one("w")}},
		{"a request that was not run", fixture.ResultLine(0, fixture.FailWith("invalid_request", 0)),
			FrameStats{Failures: one("invalid_request")}},
		{"a line without our extras", proto.StripExtras(fixture.Line(0, 0)), FrameStats{Finish: one("stop")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			info, err := proto.ParseLine(new(jsonscan.Scanner), tt.line)
			fixture.Must(t, err)
			f := &Frame{}
			f.Add(0, tt.line, info)
			f.Stats.Latency, f.Stats.Prompt, f.Stats.Completion, f.Stats.Slowest, f.Stats.Longest,
				f.Stats.Examples = nil, nil, nil, nil, nil, nil
			f.Stats.Messages, f.Stats.Total, f.Stats.Costs = nil, nil, nil
			f.Stats.CachedTokens, f.Stats.ReasoningTokens = 0, 0 // for all these see TestFrameStatsMeasures
			if diff := cmp.Diff(tt.want, f.Stats); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
		})
	}
}

// Latency and length are measured on answered requests, and failures have one example of each
// kind.
func TestFrameStatsMeasures(t *testing.T) {
	t.Parallel()

	var whole FrameStats
	scan := new(jsonscan.Scanner)
	for part := range 10 {
		f := &Frame{}
		for i := range 10 {
			index := uint32(10*part + i)
			line := fixture.ResultLine(index, func(r *proto.Result) {
				r.Latency = time.Duration(index) * time.Second
				r.Body = fmt.Appendf(nil,
					`{"choices":[{}],"usage":{"prompt_tokens":10,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":8},`+
						`"completion_tokens_details":{"reasoning_tokens":1}}}`,
					99-index)
				if i == 9 {
					r.Status, r.Err, r.Body = 0, &proto.ResultError{Code: "timeout"}, nil
				}
			})

			info, err := proto.ParseLine(scan, line)
			fixture.Must(t, err)
			f.Add(index, line, info)
		}

		whole.Merge(f.Stats)
	}

	if d := whole.Latency.Distribution(1000, 90); d == nil || d.Max != 98 || d.Mean != 49 {
		t.Errorf("latency %+v", d)
	}

	if d := whole.Completion.Distribution(1, 90); d == nil || d.Max != 99 || d.Mean != 50 {
		t.Errorf("completion tokens %+v", d)
	}

	if whole.CachedTokens != 90*8 {
		t.Errorf("%d cached tokens, want those of 90 answers", whole.CachedTokens)
	}

	if whole.ReasoningTokens != 90 {
		t.Errorf("%d reasoning tokens, want those of 90 answers", whole.ReasoningTokens)
	}

	if d := whole.Prompt.Distribution(1, 91); d != nil {
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

	if len(whole.Longest) != maxOutliers || whole.Longest[0].CustomID != "c-0" || whole.Longest[4].CustomID != "c-4" {
		t.Errorf("longest %+v", whole.Longest)
	}

	if diff := cmp.Diff(map[string]string{"timeout": "c-9"}, whole.Examples); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
}

// An answer that does not report its usage has an unknown number of tokens, and none that has
// no tokens is a long one.
func TestFrameStatsOfUnknownTokens(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, body string
		want       *int64
	}{
		{"no usage", `{"choices":[{}]}`, nil},
		{"an embedding", `{"data":[],"usage":{"prompt_tokens":10,"total_tokens":10}}`, new(int64(0))},
	} {
		line := fixture.ResultLine(0, func(r *proto.Result) { r.Body, r.Latency = []byte(tt.body), time.Second })
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		fixture.Must(t, err)
		var stats FrameStats
		stats.AddLine(info, line, "w")
		if diff := cmp.Diff(
			[]metadata.Outlier{{CustomID: "c-0", LatencySeconds: 1, CompletionTokens: tt.want}}, stats.Slowest,
		); diff != "" {
			t.Errorf("%s: slowest (-want +got):\n%s", tt.name, diff)
		}

		if stats.Longest != nil {
			t.Errorf("%s: it is a long answer: %+v", tt.name, stats.Longest)
		}
	}
}

// Names in answers cannot fill the memory.
func TestFrameStatsIsBounded(t *testing.T) {
	t.Parallel()

	var all FrameStats
	for i := range 3 * maxNames {
		all.Merge(FrameStats{Finish: map[string]int64{fmt.Sprint("reason ", i): 2}})
	}

	all.Merge(FrameStats{Finish: map[string]int64{"reason 0": 1}})
	if len(all.Finish) > maxNames+1 || all.Finish["reason 0"] != 3 || all.Finish[otherName] != 2*2*maxNames {
		t.Errorf("%d names, the first %d times and %d times another",
			len(all.Finish), all.Finish["reason 0"], all.Finish[otherName])
	}

	all = FrameStats{}
	all.Merge(FrameStats{Failures: map[string]int64{strings.Repeat("x", maxName+1): 1}})
	if diff := cmp.Diff(map[string]int64{otherName: 1}, all.Failures); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

// The statistics of a journal are unknown once a frame has none.
func TestStateWithoutStats(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 6)

	f := &Frame{}
	info, err := proto.ParseLine(new(jsonscan.Scanner), fixture.Line(0, 0))
	fixture.Must(t, err)
	f.Add(0, fixture.Line(0, 0), info)

	indexes, lines := f.sortLines()
	h := f.header(indexes)
	h.Run, h.At, h.Stats = "r", fixture.Created, nil
	fixture.Must(t, j.writeFrame(h, lines, true))

	j = reopen(t, j)
	if j.State().Stats != nil || j.State().Counts.Done != 1 {
		t.Errorf("state %+v, want a line and no statistics", j.State())
	}

	appendFrame(t, j, 1, 1, 2)
	if j.State().Stats != nil || reopen(t, j).State().Stats != nil {
		t.Error("a frame with statistics makes up for one without")
	}
}
