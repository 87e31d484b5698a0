package journal

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// statsOfLines counts lines.
func statsOfLines(t *testing.T, lines ...[]byte) FrameStats {
	t.Helper()

	f := &Frame{}
	for i, line := range lines {
		info, err := proto.ParseLine(new(jsonscan.Scanner), line)
		fixture.Must(t, err)
		f.Add(uint32(i), line, info)
	}

	return f.Stats
}

// retriedFor changes a result into one of a second attempt of 2 s, after a first one of 1 s and a
// wait of 4 s.
func retriedFor(worker string, tokens int64) func(*proto.Result) {
	return func(r *proto.Result) {
		r.Worker, r.Attempts, r.Reasons = worker, 2, []string{"503"}
		r.Latency, r.Total = 2*time.Second, 7*time.Second
		r.Discarded = proto.Discarded{Time: time.Second, Tokens: tokens}
	}
}

func TestCosts(t *testing.T) {
	t.Parallel()

	plain := func(r *proto.Result) { r.Latency = 3 * time.Second }
	stats := statsOfLines(t,
		fixture.ResultLine(0, plain),
		fixture.ResultLine(1, retriedFor("a", 5)),
		fixture.ResultLine(2, retriedFor("a", 0)),
		fixture.ResultLine(3, func(r *proto.Result) {
			retriedFor("b", 7)(r)
			r.Status, r.Err, r.Body = 0, &proto.ResultError{Code: proto.CodeTimeout}, nil
		}),
		fixture.ResultLine(4, fixture.FailWith(proto.CodeInvalidRequest, 0)),
	)
	stats.addDuplicate(proto.Line{CompletionTokens: 11})

	want := &Costs{
		Lines:           5,
		LastMS:          9000,
		Discarded:       map[string]Discarded{"a": {2, 2000, 5}, "b": {1, 1000, 7}},
		DuplicateTokens: 11,
	}
	if diff := cmp.Diff(want, stats.Costs); diff != "" {
		t.Errorf("costs (-want +got):\n%s", diff)
	}

	var twice FrameStats
	twice.Merge(stats)
	twice.Merge(stats)

	want = &Costs{
		Lines:           10,
		LastMS:          18000,
		Discarded:       map[string]Discarded{"a": {4, 4000, 10}, "b": {2, 2000, 14}},
		DuplicateTokens: 22,
	}
	if diff := cmp.Diff(want, twice.Costs); diff != "" {
		t.Errorf("costs of two frames (-want +got):\n%s", diff)
	}

	if d := twice.Total.Distribution(1000, 6); d == nil || d.Max != 7 || d.Mean != (3+7+7)/3.0 {
		t.Errorf("end-to-end latency %+v", d)
	}
	if d := twice.Latency.Distribution(1000, 6); d == nil || d.Max != 3 || d.Mean != (3+2+2)/3.0 {
		t.Errorf("latency of the last attempts %+v", d)
	}
}

// The whole time of a request is unknown if its worker, or the program that wrote the frame, did not
// write it and there were several attempts. A request with one attempt has no other time.
func TestCostsOfOlderPrograms(t *testing.T) {
	t.Parallel()

	single := fixture.ResultLine(0, func(r *proto.Result) { r.Latency = 3 * time.Second })
	retried := fixture.ResultLine(1, retriedFor("a", 5))
	untimed := []byte(strings.NewReplacer(`,"total_ms":7000`, "", `,"discarded_ms":1000,"discarded_tokens":5`, "").
		Replace(string(retried)))
	// older drops what an older program did not write into a frame.
	older := func(stats FrameStats) FrameStats {
		stats.Costs, stats.Total, stats.Messages = nil, nil, nil
		return stats
	}

	for _, tt := range []struct {
		name   string
		frames []FrameStats
		known  int64
		total  *metadata.Distribution // of two requests
	}{
		{"both are known", []FrameStats{statsOfLines(t, single), statsOfLines(t, retried)}, 2,
			&metadata.Distribution{Mean: 5, P50: 3, P90: 3, P99: 3, Max: 7}},
		{"an old frame of single attempts", []FrameStats{older(statsOfLines(t, single)), statsOfLines(t, retried)}, 2,
			&metadata.Distribution{Mean: 5, P50: 3, P90: 3, P99: 3, Max: 7}},
		{"an old frame of retries", []FrameStats{statsOfLines(t, single), older(statsOfLines(t, retried))}, 1, nil},
		{"an old frame of both", []FrameStats{older(statsOfLines(t, single, retried))}, 0, nil},
		{"a line of an old worker", []FrameStats{statsOfLines(t, single, untimed)}, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var whole FrameStats
			for _, f := range tt.frames {
				text, err := json.Marshal(f)
				fixture.Must(t, err)
				var read FrameStats
				fixture.Must(t, json.Unmarshal(text, &read))
				whole.Merge(read)
			}

			known := int64(0)
			if whole.Costs != nil {
				known = whole.Costs.Lines
			}

			if known != tt.known {
				t.Errorf("the costs of %d lines are known, want %d", known, tt.known)
			}

			if diff := cmp.Diff(tt.total, whole.Total.Distribution(1000, 2)); diff != "" {
				t.Errorf("end-to-end latency (-want +got):\n%s", diff)
			}

			if d := whole.Latency.Distribution(1000, 2); d == nil || d.Max != 3 || d.Mean != 2.5 {
				t.Errorf("latency of the last attempts %+v", d)
			}
		})
	}
}

// An example of a cause has the message of the same request, in one line and as text.
func TestFailureMessages(t *testing.T) {
	t.Parallel()

	refused := func(body string) func(*proto.Result) {
		return func(r *proto.Result) { r.Status, r.Body = 400, []byte(body) }
	}

	for _, tt := range []struct {
		name   string
		change func(*proto.Result)
		cause  string
		want   string
	}{
		{"of the server", refused(`{"error":{"message":"too long: 9000 tokens","code":400}}`), "http_400",
			"too long: 9000 tokens"},
		{"of several lines", refused(`{"error":{"message":"too long:\n\t9000\u001b[31m tokens\r\n"}}`), "http_400",
			"too long: 9000 [31m tokens"},
		{"markup stays text", refused(`{"detail":"<script>alert(1)</script> & \u202e\"x\""}`), "http_400",
			`<script>alert(1)</script> & "x"`},
		{"plain text", refused(`"Bad Request"`), "http_400", "Bad Request"},
		{"a long one", refused(`{"message":"` + strings.Repeat("é", 2000) + `"}`), "http_400",
			strings.Repeat("é", 510) + "..."},
		{"of promptmill", func(r *proto.Result) {
			r.Status, r.Body = 0, nil
			r.Err = &proto.ResultError{Code: proto.CodeTimeout, Message: "no answer within 5s"}
		}, proto.CodeTimeout, "no answer within 5s"},
		{"an object without one", refused(`{}`), "http_400", "{}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var stats FrameStats
			answered := fixture.ResultLine(0, func(*proto.Result) {})
			stats.Merge(statsOfLines(t, answered, fixture.ResultLine(7, tt.change)))
			stats.Merge(statsOfLines(t, fixture.ResultLine(9, func(r *proto.Result) {
				tt.change(r)
				if r.Err == nil {
					r.Body = []byte(`{"message":"another"}`)
				}
			})))

			if got := stats.Messages[tt.cause]; got != tt.want || stats.Examples[tt.cause] != "c-7" {
				t.Errorf("message %q of %s, want %q of c-7", got, stats.Examples[tt.cause], tt.want)
			}
		})
	}
}
