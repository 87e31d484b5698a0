package trial

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/proto"
)

var update = flag.Bool("update", false, "write the golden files")

// newGoldenResults makes the trials whose Markdown and JSON are kept.
func newGoldenResults(t *testing.T) map[string]*Result {
	t.Helper()

	llama := newVariant("Llama 3.2 3B", with(qwen, func(s *spec) { s.model, s.rate, s.right = "meta-llama/Llama-3.2-3B-Instruct", 20, 0.95 }))
	beaten := newVariant("Qwen 3 4B", with(qwen, func(s *spec) { s.seconds, s.right = 40, 0 }))
	beaten.State, beaten.Reason = Beaten, "its 99.9% interval lies below that of Gemma 3 4B"
	command := func(v Variant) []string { return []string{"promptmill", "run", "tickets.jsonl", "--exec", v.Command} }

	return map[string]*Result{
		"quality": Evaluate(newTrial(newVariant("Qwen 3 4B", qwen), newVariant("Gemma 3 4B", gemma), llama), Options{
			Prices:  report.Prices{KWh: new(0.3), In: new(0.15), Out: new(0.6), Currency: "EUR"},
			Command: command,
			Agreement: map[[2]string]quality.Comparison{
				{"Qwen 3 4B", "Gemma 3 4B"}: {
					Common:     3000,
					Agreement:  quality.NewShare(2640, 3000),
					By:         quality.ByExpected,
					Difference: &quality.Difference{Mean: 0.021, Low: 0.014, High: 0.028},
				},
			},
		}),
		"ended": Evaluate(newTrial(beaten, newVariant("Gemma 3 4B", with(gemma, func(s *spec) { s.right = 0 })),
			Variant{
				Name:   "Phi 4",
				Model:  "microsoft/phi-4",
				State:  Failed,
				Reason: "its server ended with exit status 1: CUDA out of memory",
				Log:    "tickets.trial/phi-4.server.log",
			},
			Variant{
				Name:   "OLMo 3 7B",
				Model:  "allenai/Olmo-3-7B",
				State:  Skipped,
				Reason: "the 2 h of --within were over",
			},
		), Options{Command: command}),
		"equal": Evaluate(newTrial(newVariant("A", gemma), newVariant("B", with(gemma, func(s *spec) { s.model = "b" }))), Options{}),
		"one":   Evaluate(newTrial(newVariant("Gemma 3 4B", gemma)), Options{}),
		"old":   Evaluate(newTrial(readOld(t, "seed"), readOld(t, "baseline")), Options{}),
	}
}

func TestTrialsAreAsTheyWere(t *testing.T) {
	t.Parallel()

	for name, r := range newGoldenResults(t) {
		for suffix, write := range map[string]func(io.Writer) error{
			MarkdownSuffix: r.WriteMarkdown,
			JSONSuffix:     r.WriteJSON,
		} {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}

			text := got.String()
			if suffix == JSONSuffix {
				text = leaveOutMetadata(t, got.Bytes())
			}

			path := filepath.Join("testdata", name+suffix)
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}

			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), text); d != "" {
				t.Errorf("%s; -update rewrites it:\n%s", path, d)
			}
		}
	}
}

// A difference that is nothing has no sign.
func TestSignedQuality(t *testing.T) {
	t.Parallel()

	byRight, byScore := &Result{Measure: Right}, &Result{Measure: Scored}
	for want, got := range map[string]string{
		"+2.1":  byRight.signedQuality(0.021),
		"-0.7":  byRight.signedQuality(-0.007),
		"0.0":   byRight.signedQuality(-0.0001),
		"+0.02": byScore.signedQuality(0.021),
		"0.00":  byScore.signedQuality(-0.001),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The requests that a variant did not come to are no failures.
func TestUnsentRequestsAreNoFailures(t *testing.T) {
	t.Parallel()

	got := listCounts(withoutUnsent(map[string]int64{proto.CodeCancelled: 19_017, "http_500": 10}))
	if want := "HTTP 500 10"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := listCounts(withoutUnsent(nil)); got != "" {
		t.Errorf("%q of no failures", got)
	}
}

// A reason that is cut off ends with the sign of that, and no period behind it.
func TestLongReasonsAreCutOff(t *testing.T) {
	t.Parallel()

	r := &Result{Variants: []Row{{Variant: Variant{Name: "a", State: Failed, Reason: strings.Repeat("word ", 100)}}}}
	if got := r.describeMissing(Failed, "failed"); !strings.HasSuffix(got, "word…") {
		t.Errorf("%q ends in another way", got)
	}
}

// Where no answer is right, the page shows one: more often than the model, the form of its answers is the reason.
func TestNoAnswerIsRight(t *testing.T) {
	t.Parallel()

	row := Row{Variant: Variant{Name: "a", Quality: &quality.Quality{
		Expected: quality.NewShare(0, 10),
		Wrong:    &quality.Wrong{CustomID: "request-1", Expected: "billing", Text: "Billing.\n"},
	}}}
	r := &Result{Variants: []Row{row}}
	want := `No answer of a is right: to request-1, "billing" is expected, and the answer is "Billing.\n".`
	if got := r.describeWrong(); got != want {
		t.Errorf("%q, want %q", got, want)
	}

	row.Quality.Expected = quality.NewShare(1, 10)
	if got := r.describeWrong(); got != "" {
		t.Errorf("%q, with a right answer", got)
	}
}

// leaveOutMetadata is a result without the metadata of its runs, which has tests of its own.
func leaveOutMetadata(t *testing.T, text []byte) string {
	t.Helper()

	var result map[string]any
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	for _, row := range result["variants"].([]any) {
		delete(row.(map[string]any), "metadata")
	}

	short, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		t.Fatal(err)
	}

	return string(short) + "\n"
}

// hostile is what names and reasons may be.
const hostile = "</script><svg onload=alert(1)>|`&\u202e\x1b[31m\x00" + "名前名前"

// newCrowd is a trial of many variants with hostile names, all of which have a quality if judged.
func newCrowd(n int, judged bool) Trial {
	var list []Variant
	for i := range n {
		s := with(gemma, func(s *spec) {
			s.model, s.seconds, s.rate, s.right = fmt.Sprint("m", i), 30, 40+float64(i%7)*0.3, 0.9+float64(i%5)*0.001
			if !judged {
				s.right = 0
			}
		})
		v := newVariant(fmt.Sprint(hostile, strings.Repeat("long ", 40), i), s)
		if i%4 == 0 {
			v.Reason, v.State, v.Log = hostile, Beaten, hostile
		}
		list = append(list, v)
	}

	return newTrial(list...)
}

// The page of many variants with names from outside is of one piece, small, and has no markup of theirs.
func TestThePageOfACrowd(t *testing.T) {
	t.Parallel()

	for _, judged := range []bool{true, false} {
		var page, text bytes.Buffer
		r := Evaluate(newCrowd(60, judged), Options{})
		if err := r.WriteHTML(&page); err != nil {
			t.Fatal(err)
		}
		if err := r.WriteMarkdown(&text); err != nil {
			t.Fatal(err)
		}

		if page.Len() >= 300_000 {
			t.Errorf("the page has %d bytes", page.Len())
		}
		for _, bad := range []string{"<svg onload", "</script><svg", "\u202e", "\x1b", "\x00", "NaN", "Inf"} {
			if strings.Contains(page.String(), bad) {
				t.Errorf("the page has %q", bad)
			}
		}
		if strings.Contains(strings.ReplaceAll(text.String(), `\<`, ""), "<svg") || strings.ContainsAny(text.String(), "\x1b\u202e") {
			t.Error("the Markdown has markup or control characters")
		}
		if external := regexp.MustCompile(`(src|href)\s*=`).FindString(page.String()); external != "" {
			t.Errorf("the page loads something: %s", external)
		}
	}
}

var labelInPlot = regexp.MustCompile(`<text x="([0-9.]+)" y="([0-9.]+)" text-anchor="middle">\d+</text></g>`)

// No two labels of a plot overlap, however near the variants are, on both widths.
func TestLabelsDoNotOverlap(t *testing.T) {
	t.Parallel()

	r := Evaluate(newCrowd(60, true), Options{})
	for _, width := range []float64{deskWidth, phoneWidth} {
		found := labelInPlot.FindAllStringSubmatch(r.drawPlot(r.listMarks(), width, "x"), -1)
		if len(found) != 60 {
			t.Fatalf("%d labels, want 60", len(found))
		}

		var boxes []box
		for _, f := range found {
			x, _ := strconv.ParseFloat(f[1], 64)
			y, _ := strconv.ParseFloat(f[2], 64)
			b := box{x - 9, y - 11, 18, 13}
			for _, other := range boxes {
				if b.overlaps(other) {
					t.Fatalf("width %v: labels at %+v and %+v", width, b, other)
				}
			}
			if b.x < 0 || b.x+b.width > width || b.y < 0 || b.y+b.height > plotHeight {
				t.Errorf("width %v: the label %+v is outside", width, b)
			}
			boxes = append(boxes, b)
		}
	}
}

// The three files appear whole, and are replaced.
func TestFilesOfATrial(t *testing.T) {
	t.Parallel()

	name := filepath.Join(t.TempDir(), "tickets")
	for _, variants := range [][]Variant{nil, {newVariant("A", gemma)}} {
		if err := Evaluate(newTrial(variants...), Options{}).WriteFiles(name); err != nil {
			t.Fatal(err)
		}
	}

	for _, suffix := range []string{HTMLSuffix, MarkdownSuffix, JSONSuffix} {
		text, err := os.ReadFile(name + suffix)
		if err != nil || !bytes.Contains(text, []byte("Trial tickets: 1 variant")) && !bytes.Contains(text, []byte(`"name": "A"`)) {
			t.Errorf("%s: %v", suffix, err)
		}
	}

	if files, _ := os.ReadDir(filepath.Dir(name)); len(files) != 3 {
		t.Errorf("%d files, want 3", len(files))
	}
}
