package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// written is a report in all forms.
func written(t testing.TB, r *Report) (markdown, page, text string) {
	t.Helper()
	var md, html, js bytes.Buffer
	if err := errors.Join(r.Markdown(&md), r.HTML(&html), r.JSON(&js)); err != nil {
		t.Fatal(err)
	}
	return md.String(), html.String(), js.String()
}

// long is the golden run with as long a series as there can be, and a million requests.
func long(t testing.TB) *metadata.Run {
	t.Helper()

	run := golden(t, "rich")
	run.Results.SuccessCount, run.Test.NumRequests = 1_000_000, 1_000_007

	series := &metadata.Series{Start: run.Timestamp, IntervalSeconds: 8}
	for i := range metadata.MaxPoints {
		wave := 1 + 0.3*math.Sin(float64(i)/3) + 0.2*math.Sin(float64(i)*1.3)
		p := metadata.Point{
			Requests:         int64(500 * wave),
			Failed:           int64(i % 7),
			PromptTokens:     400_000,
			CompletionTokens: int64(155_000 * wave),
		}
		if i < 700 || i > 900 {
			p.InFlight, p.MemoryUsedBytes = new(int64(100*wave)), new(int64(7e10*wave))
		} else {
			p = metadata.Point{}
		}

		series.Add(run.Timestamp.Add(time.Duration(8*i)*time.Second), p)
	}

	run.Series = series

	return run
}

func TestALongRunHasASmallPage(t *testing.T) {
	t.Parallel()

	const most = 300_000
	run := long(t)
	_, page, _ := written(t, Build(run, Options{}))
	if n := len(page); n > most {
		t.Errorf("the page of a run with %d points has %d bytes", metadata.MaxPoints, n)
	}

	var runs []Named
	for range comparedRuns + 1 {
		runs = append(runs, Named{"a", run})
	}

	_, page, _ = written(t, Compare(runs, Options{}))
	if n := len(page); n > most {
		t.Errorf("the page of %d runs has %d bytes", len(runs), n)
	}
}

// A page is well-formed, so that no browser has to guess, and it asks for nothing.
func TestThePageNeedsNothingElse(t *testing.T) {
	t.Parallel()

	for name, r := range map[string]*Report{
		"seed":    Build(golden(t, "seed"), Options{Baseline: golden(t, "baseline")}),
		"rich":    Build(golden(t, "rich"), Options{}),
		"compare": Compare([]Named{{"a", golden(t, "seed")}, {"b", golden(t, "baseline")}}, Options{}),
		"none":    Compare(nil, Options{}),
	} {
		_, page, _ := written(t, r)
		style, script := string(pageData{r}.Style()), string(pageData{r}.Script())
		for what, text := range map[string]string{"the style": style, "the script": script} {
			if strings.Count(page, text) != 1 {
				t.Errorf("%s: %s is not as the policy of the page allows it", name, what)
			}
		}

		if r.charts != nil {
			page = strings.Replace(page, `<script type="application/json"`, "<template", 1)
			page = strings.Replace(page, "</script>", "</template>", 1)
		}

		page = strings.NewReplacer(style, "", "<script>"+script+"</script>", "").Replace(page)
		d := xml.NewDecoder(strings.NewReader(page))
		d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity

		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}

			start, ok := token.(xml.StartElement)
			if !ok {
				continue
			}

			switch start.Name.Local {
			case "script", "link", "img", "iframe", "object", "a":
				t.Errorf("%s: the page has <%s>", name, start.Name.Local)
			}

			for _, a := range start.Attr {
				if a.Name.Local == "src" || a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") {
					t.Errorf("%s: <%s> has %s", name, start.Name.Local, a.Name.Local)
				}
			}
		}

		if strings.Contains(page, "url(") || strings.Contains(page, "@import") || strings.Contains(page, "ZgotmplZ") {
			t.Errorf("%s: the page asks for something, or a text did not fit where it stands", name)
		}
	}
}

const hostile = "</td><script>alert(1)</script>|`x`\n# **b** [l](javascript:x) ![i](http://e) <!--\x00\u202e ''\""

func TestForeignTextStaysText(t *testing.T) {
	t.Parallel()

	run := golden(t, "rich")
	run.TestID, run.Model, run.Platform, run.Status = hostile, hostile, hostile, hostile // whatever names there are
	run.Test.InputFiles, run.Test.OutputFile, run.Test.ErrorFile = []string{hostile}, hostile, new(hostile)
	run.Results.Failures, run.Results.FailureExamples = map[string]int64{hostile: 7},
		map[string]string{hostile: hostile}
	run.Results.FailureDetails = []metadata.FailureDetail{
		{Cause: hostile, Count: 7, Message: hostile, CustomID: hostile},
	}
	run.Results.FinishReasons = map[string]int64{hostile: 7}
	run.Results.AttemptFailures = map[string]int64{hostile: 900}
	run.Results.AttemptsHistogram = map[string]int64{hostile: 900}
	run.Results.Slowest[0].CustomID = hostile
	run.Config.Sampling = map[string]proto.Parameter{
		hostile: {Values: []json.RawMessage{json.RawMessage(`"` + "</script>" + `"`)}},
	}

	run.Workers[0].Name, run.Workers[0].GPUs[0].Name = hostile, hostile
	baseline := golden(t, "baseline")
	baseline.Model = hostile

	for _, r := range []*Report{
		Build(run, Options{Baseline: baseline, Path: hostile, BaselinePath: hostile}), Compare([]Named{
			{hostile, run},
			{hostile, baseline},
		}, Options{}),
	} {
		md, page, _ := written(t, r)
		page = strings.NewReplacer(`<script type="application/json" id="data">`, "",
			"<script>"+string(pageData{r}.Script()), "").Replace(page)
		for _, bad := range []string{"<script", "<!--", "\u202e", "\x00", "ZgotmplZ"} {
			if strings.Contains(page, bad) {
				t.Errorf("the page has %q", bad)
			}
		}

		rows := 0
		for line := range strings.Lines(md) {
			if regexp.MustCompile("(?:^|[^\\\\])(<|\\]\\(|`x`|\\*\\*b)").MatchString(line) &&
				!strings.Contains(line, "promptmill ") && !strings.HasPrefix(line, "zstd ") {
				t.Errorf("Markdown would read more than text in %q", line)
			}

			if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x00\u202e\r\n") {
				t.Errorf("a control character is left in %q", line)
			}

			if strings.HasPrefix(line, "|") {
				rows++
			} else if strings.HasPrefix(line, "# **") {
				t.Errorf("a text has broken its line: %q", line)
			}
		}

		if rows == 0 {
			t.Error("there are no tables")
		}
	}
}

// What is unknown is never 0 and never a number that is none.
func TestMinimalMetadata(t *testing.T) {
	t.Parallel()

	for what, text := range map[string]string{
		"two figures":  `{"results":{"success_count":10,"inference_time_seconds":5}}`,
		"nothing done": `{"results":{"success_count":0,"inference_time_seconds":0}}`,
		"no time":      `{"results":{"success_count":10,"inference_time_seconds":0,"prompt_tokens":5,"completion_tokens":0}}`,
		"an empty series": `{"series":{"start":"2026-01-01T00:00:00Z","interval_seconds":1,"requests":[],"failed":[],"prompt_tokens":[],
			"completion_tokens":[],"in_flight":[],"memory_used_bytes":[]},"workers":[{"name":"w"}],"results":{"success_count":10,"inference_time_seconds":5}}`,
		"a series of nothing": `{"series":{"start":"2026-01-01T00:00:00Z","interval_seconds":1,"requests":[0,0,0,0],"failed":[0,0,0,0],"prompt_tokens":[0,0,0,0],
			"completion_tokens":[0,0,0,0],"in_flight":[null,null,0,null],"memory_used_bytes":[null,null,null,null]},"results":{"success_count":10,"inference_time_seconds":5}}`,
	} {
		run, err := metadata.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}

		r := Build(run, Options{Prices: Prices{In: new(1.0), KWh: new(0.3)}, Baseline: run})
		md, page, _ := written(t, r)
		if bad := regexp.MustCompile(`NaN|[+-]Inf|<nil>|%!`).FindString(md + page); bad != "" {
			t.Errorf("%s: the report has %s:\n%s", what, bad, md)
		}

		for _, s := range r.Sections {
			for _, row := range s.Rows {
				if len(row) != len(s.Columns) {
					t.Errorf("%s: %s has a row of %d cells and %d columns", what, s.ID, len(row), len(s.Columns))
				}

				switch row[0].Text {
				case "Model load time", "Model size", "Memory", "Throughput":
					if row[1].Value != nil && *row[1].Value == 0 || row[1].Text == "0" {
						t.Errorf("%s: %s is said to be 0", what, row[0].Text)
					}
				case "Total input tokens", "Interruptions", "Duplicate answers dropped", "Shards delivered again":
					if what == "two figures" {
						t.Errorf("%s: %s is said to be %s", what, row[0].Text, row[1].Text)
					}
				}
			}
		}

		if c := Compare([]Named{{"a", run}, {"b", run}}, Options{}); len(c.Sections) < 2 {
			t.Errorf("%s: a comparison of %d sections", what, len(c.Sections))
		}
	}
}

// The page of an interrupted run differs from an uninterrupted run's only in the note on the
// interruption.
func TestAnInterruptionChangesNothingElse(t *testing.T) {
	t.Parallel()

	whole := golden(t, "rich")
	whole.Series, whole.Results.Interruptions, whole.Results.LostTimeSeconds, whole.Results.TotalTimeSeconds = nil,
		0, new(0.0), 460
	broken := golden(t, "rich")
	broken.Series = nil
	lines := func(run *metadata.Run) (list []string) {
		md, _, _ := written(t, Build(run, Options{}))
		for line := range strings.Lines(md) {
			list = append(list, strings.Join(strings.Fields(line), " "))
		}
		return list
	}

	a, b := lines(whole), lines(broken)
	telling := regexp.MustCompile(`^- The run was interrupted|^\| (Wall time|Time worked|Lost to interruptions|Interruptions)`)
	keep := func(all []string) (kept []string) {
		for _, line := range all {
			if !telling.MatchString(line) {
				kept = append(kept, line)
			}
		}
		return kept
	}

	if len(b) != len(a)+1 {
		t.Errorf("%d lines and %d", len(a), len(b))
	}

	if d := cmp.Diff(keep(a), keep(b)); d != "" {
		t.Error(d)
	}
}

// cellOf is the text of a row under the name of a column.
func cellOf(t *testing.T, s Section, row []Cell, column string) string {
	t.Helper()
	i := slices.IndexFunc(s.Columns, func(c Column) bool { return c.Name == column })
	if i < 0 {
		t.Fatalf("%s has no column %q", s.ID, column)
	}
	return row[i].Text
}

func TestCompareIsSortedAndMarksOtherInputs(t *testing.T) {
	t.Parallel()

	run := func(id, sha string, rate *float64) Named {
		return Named{id, some(func(r *metadata.Run) {
			r.TestID, r.Test.InputSHA256, r.Results.OutputTokensPerSec = id, sha, rate
		})}
	}

	r := Compare([]Named{
		run("unknown", "a", nil), run("slow", "b", new(10.0)), run("fast", "a", new(20.0)),
		run("middle", "a", new(15.0)),
	}, Options{})

	var got [][]string
	for _, row := range r.Sections[0].Rows {
		got = append(got, []string{
			row[0].Text, cellOf(t, r.Sections[0], row, "Difference in tokens"), cellOf(t, r.Sections[0], row, "Input"),
		})
	}

	want := [][]string{
		{"small, fast", "first", "the same"},
		{"small, middle", "-25%", "the same"},
		{"small, slow", "-50%", "ANOTHER INPUT"},
		{"small, unknown", "–", "the same"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	const warning = "Different inputs: small, slow did not run on the same input as small, fast. Their figures say little about each other."
	if r.Warning != warning {
		t.Errorf("the warning is %q", r.Warning)
	}

	const answer = "small, fast is the fastest: 20.0 output tokens/s and 10.0 requests/s, against 15.0 and 10.0 for small, middle."
	if r.Answer != answer {
		t.Errorf("the answer is %q", r.Answer)
	}

	md, page, _ := written(t, r)
	for what, text := range map[string]string{"the Markdown": md, "the page": page} {
		if i, j := strings.Index(text, "Different inputs"), strings.Index(text, "is the fastest"); i < 0 || i > j {
			t.Errorf("%s does not begin with the warning: it stands at %d, and the answer at %d", what, i, j)
		}
	}
}

// A run that failed throughout has no rate to win by, and a run of an unknown input is named.
func TestCompareWithRunsThatSayLittle(t *testing.T) {
	t.Parallel()

	run := func(id, sha string, change func(*metadata.Results)) Named {
		return Named{id, some(func(r *metadata.Run) {
			r.Model, r.Test.InputSHA256 = id, sha
			change(&r.Results)
		})}
	}

	r := Compare([]Named{
		run("failed", "a", func(r *metadata.Results) {
			r.SuccessCount, r.FailureCount, r.ThroughputRequestsPerSec = 0, 100, new(1304.0)
		}),
		run("embeddings", "", func(r *metadata.Results) {
			r.CompletionTokens, r.OutputTokensPerSec, r.ThroughputRequestsPerSec = new(int64(0)), new(0.0), new(220.0)
		}),
		run("answered", "a", func(r *metadata.Results) { r.OutputTokensPerSec = new(20.0) }),
	}, Options{})

	var got [][]string
	for _, row := range r.Sections[0].Rows {
		got = append(got, []string{
			row[0].Text, cellOf(t, r.Sections[0], row, "Output tokens/s"), cellOf(t, r.Sections[0], row, "Requests/s"),
			cellOf(t, r.Sections[0], row, "Difference in requests"),
		})
	}

	want := [][]string{
		{"answered", "20.0", "10.0", "first"}, {"embeddings", "–", "220", "x22.0"}, {"failed", "–", "–", "–"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	const note = "It is not known whether embeddings ran on the same input as answered."
	if !slices.Contains(r.Sections[0].Notes, note) {
		t.Errorf("the notes are %q", r.Sections[0].Notes)
	}
}

// The mean beside a chart is that of the time worked, as in the tiles and tables.
func TestChartsHaveTheMeansOfTheReport(t *testing.T) {
	t.Parallel()

	run := some(func(r *metadata.Run) {
		r.Results.CompletionTokens, r.Results.OutputTokensPerSec = new(int64(900)), new(90.0)
		r.Series = &metadata.Series{Start: r.Timestamp, IntervalSeconds: 1}
		for i, tokens := range []int64{100, 0, 0, 200} { // of which two are an interruption
			r.Series.Add(r.Timestamp.Add(time.Duration(i)*time.Second), metadata.Point{CompletionTokens: tokens})
		}
	})

	for what, set := range map[string]*chartSet{
		"mean 90.0, up to 200": buildCharts(run),
		"mean 90.0, 90.0":      buildComparedCharts([]Named{{"a", run}, {"b", run}}, []string{"a", "b"}),
	} {
		if got := set.Charts[0]; got.ID != "output-rate" || got.Summary != what {
			t.Errorf("%s: %q, want %q", got.ID, got.Summary, what)
		}
	}
}

// Two runs of one speed differ by nothing, give or take; one of half the speed does.
func TestSpeedInterval(t *testing.T) {
	t.Parallel()

	a := long(t)
	a.Results.InferenceTimeSeconds, a.Results.SuccessCount, a.Results.FailureCount = 0, 0, 0
	for i := range a.Series.Len() {
		a.Results.SuccessCount += int(a.Series.Requests[i])
		if a.Series.Requests[i] > 0 {
			a.Results.InferenceTimeSeconds += float64(a.Series.IntervalSeconds)
		}
	}

	low, high, ok := speedInterval(a, a)
	if !ok || low >= 0 || high <= 0 || high-low > 0.5 {
		t.Errorf("against itself: %.3f to %.3f, %v", low, high, ok)
	}

	half := *a
	series := *a.Series
	series.IntervalSeconds *= 2
	half.Series, half.Results.InferenceTimeSeconds = &series, 2*a.Results.InferenceTimeSeconds

	low, high, ok = speedInterval(&half, a)
	if !ok || low > -0.5 || high < -0.5 || high > -0.2 {
		t.Errorf("at half the speed: %.3f to %.3f, %v", low, high, ok)
	}

	if _, _, ok := speedInterval(golden(t, "seed"), a); ok {
		t.Error("ten requests have an interval")
	}
}

func BenchmarkReport(b *testing.B) {
	run := long(b)
	for b.Loop() {
		written(b, Build(run, Options{Baseline: run}))
	}
}

// Any metadata gives a report with a well-formed page.
func FuzzReport(f *testing.F) {
	for _, name := range []string{"seed", "baseline", "rich"} {
		text, err := json.Marshal(golden(f, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}

	f.Add([]byte(`{"series":{"interval_seconds":1,"requests":[-1,9,0],"failed":[0,0,1],"prompt_tokens":[0,0,0],"completion_tokens":[-5,9223372036854775807,1],` +
		`"in_flight":[-4,null,3],"memory_used_bytes":[1,2,3]},"results":{"success_count":1,"inference_time_seconds":1e300}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		run, err := metadata.Parse(text)
		if err != nil {
			return
		}

		for _, r := range []*Report{Build(run, Options{Baseline: run, Prices: Prices{In: new(1.0)}}), Compare([]Named{
			{"a", run},
			{"b", run},
		}, Options{Prices: Prices{In: new(1.0)}})} {
			md, page, _ := written(t, r)
			if !strings.HasPrefix(md, "# ") || !strings.HasSuffix(page, "</html>\n") ||
				strings.Contains(page, "ZgotmplZ") {
				t.Errorf("not whole:\n%s\n%s", md, page)
			}
		}
	})
}

func TestShellWords(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		word, want string
	}{
		{"plain-1.jsonl", "plain-1.jsonl"},
		{"", "''"},
		{"two words", "'two words'"},
		{"it's", `'it'\''s'`},
		{"new\nline", `$'new\012line'`},
		{"\x1b[2Jit's \\ é", `$'\033[2Jit\'s \\ é'`},
		{"\xff", `$'\377'`},
		{"\u0085", `$'\302\205'`},
	} {
		if got := ShellWords(tt.word); got != tt.want {
			t.Errorf("ShellWords(%q) = %s, want %s", tt.word, got, tt.want)
		}

		if bash, err := exec.LookPath("bash"); err == nil {
			out, err := exec.Command(bash, "-c", "printf %s "+ShellWords(tt.word)).Output()
			if err != nil || string(out) != tt.word {
				t.Errorf("bash reads %s as %q (%v), want %q", ShellWords(tt.word), out, err, tt.word)
			}
		}
	}
}

// A label names the run in the titles, beside its id where runs of one label meet.
func TestLabels(t *testing.T) {
	t.Parallel()

	labelled := func(id, label string) *metadata.Run {
		return &metadata.Run{
			TestID:  id,
			Label:   label,
			Model:   "m",
			Test:    metadata.Test{NumRequests: 3},
			Results: metadata.Results{SuccessCount: 3, InferenceTimeSeconds: 1},
		}
	}

	for want, run := range map[string]*metadata.Run{
		"m: 3 requests":          labelled("r", ""),
		"nightly, m: 3 requests": labelled("r", "nightly"),
	} {
		if got := Build(run, Options{}).Title; got != want {
			t.Errorf("the title is %q, want %q", got, want)
		}
	}

	var b bytes.Buffer
	runs := []Named{{Run: labelled("r1", "nightly")}, {Run: labelled("r2", "nightly")}, {Run: labelled("r3", "")}}
	if err := Compare(runs, Options{}).Markdown(&b); err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{"| m, nightly (r1) ", "| m, nightly (r2) ", "| m, r3 "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the comparison does not name %s:\n%s", want, &b)
		}
	}
}
