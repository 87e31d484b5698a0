package quality

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// A request that failed is wrong; one that was not sent, and one without an expected answer, do not count.
func TestJudgeExpected(t *testing.T) {
	t.Parallel()

	cfg := endRun(t, []result{
		chat(" yes\u3000\n"),
		chat("Yes"),
		fixture.FailWith(proto.CodeTimeout, 3),
		nil,
		chat("whatever"),
		chat("\n"),
	})
	cfg.Expected = writeExpected(t, "yes", "yes", "yes", "yes", nil, "")

	got, err := Judge(t.Context(), cfg)
	fixture.Must(t, err)

	want := &Quality{
		Requests:   5,
		Expected:   NewShare(2, 4),
		Wrong:      got.Wrong,
		Characters: (6 + 3 + 8 + 1) / 4.0,
		Empty:      1,
	}
	if w := got.Wrong; w == nil || w.CustomID == "" || w.Expected != "yes" || w.Text != "Yes" {
		t.Errorf("the first wrong answer: %+v", w)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("quality (-want +got):\n%s", diff)
	}

	if got, err := Judge(t.Context(), cfg); err != nil || !cmp.Equal(want, got) {
		t.Errorf("the second time: %+v, %v", got, err)
	}
}

func TestJudgeNumbers(t *testing.T) {
	t.Parallel()

	cfg := endRun(t, []result{
		chat("6 times 7 is **42**."),
		chat("It costs $1,200.50"),
		chat("about 4"),
		chat("I do not know"),
		fixture.FailWith(proto.CodeConnection, 1),
	})
	cfg.Match = Number
	cfg.Expected = writeExpected(t, "42.0", "1200.5", "5", "6", "...\n#### 7")

	got, err := Judge(t.Context(), cfg)
	fixture.Must(t, err)

	if diff := cmp.Diff(NewShare(2, 5), got.Expected); diff != "" {
		t.Errorf("expected (-want +got):\n%s", diff)
	}
}

// The first answer that matches counts at once, also after attempts without an answer. With a schema, the value of an
// answer is compared, and that of its only member.
func TestJudgeSchema(t *testing.T) {
	t.Parallel()

	cfg := endRun(t, []result{
		chat(`{"label": "billing"}`),
		after(chat(`{"label":"b\u0075g"}`), "503", proto.CodeTimeout),
		after(chat(`{"b":1.0, "a":[true]}`), proto.CodeSchemaMismatch),
		after(chat(`{"stars":4}`), "length"),
		mismatch("billing"),
		fixture.FailWith(proto.CodeTimeout, 1),
		chat(`{"label":"billing","sure":true}`),
	}, setSchema)
	cfg.Expected = writeExpected(t, "billing", "bug", `{"a":[true],"b":1}`, "4", "billing", "billing", "billing")

	got, err := Judge(t.Context(), cfg)
	fixture.Must(t, err)

	want := &Quality{
		Requests:     7,
		Schema:       NewShare(5, 7),
		SchemaAtOnce: NewShare(3, 7),
		Expected:     NewShare(4, 7),
		Wrong:        &Wrong{CustomID: "c-6", Expected: "billing", Text: `{"label":"billing","sure":true}`},
		Characters:   got.Characters,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("quality (-want +got):\n%s", diff)
	}
}

// scorer is a scorer in this process.
type scorer func(answers []Answer) ([]float64, error)

// Score implements [Scorer].
func (s scorer) Score(_ context.Context, answers iter.Seq2[Answer, error]) ([]float64, error) {
	var all []Answer
	for a, err := range answers {
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return s(all)
}

func TestJudgeScore(t *testing.T) {
	t.Parallel()

	cfg := endRun(t, []result{chat("good"), fixture.FailWith(proto.CodeTimeout, 1), nil, chat("bad"), chat("fair")})
	cfg.Expected = writeExpected(t, "good", nil, nil, nil, "fine")

	var got []Answer
	cfg.Scorer = scorer(func(answers []Answer) ([]float64, error) {
		got = answers

		var scores []float64
		for _, a := range answers {
			scores = append(scores, map[string]float64{"good": 1, "fair": 0.5}[a.Text])
		}

		return scores, nil
	})

	q, err := Judge(t.Context(), cfg)
	fixture.Must(t, err)

	good, fine := "good", "fine"
	want := []Answer{
		{CustomID: "c-0", Request: []byte(`{"prompt":"0"}`), Text: "good", Expected: &good},
		{CustomID: "c-3", Request: []byte(`{"prompt":"3"}`), Text: "bad"},
		{CustomID: "c-4", Request: []byte(`{"prompt":"4"}`), Text: "fair", Expected: &fine},
	}
	slices.SortFunc(got, func(a, b Answer) int { return strings.Compare(a.CustomID, b.CustomID) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}

	if q.Score == nil || q.Score.Mean != 1.5/4 || q.Score.Of != 4 {
		t.Errorf("score %+v, want 1.5 of 4", q.Score)
	}

	var scores []string
	v, err := readVerdicts(cfg.Verdicts)
	fixture.Must(t, err)
	for _, one := range v.list {
		scores = append(scores, fmt.Sprint(one.score))
	}
	if got := strings.Join(scores, " "); got != "1 0 NaN 0 0.5" {
		t.Errorf("scores of the verdicts %s", got)
	}
}

// A scorer that fails, or does not score each answer from 0 to 1, is refused, and leaves no verdicts.
func TestJudgeScoreRefused(t *testing.T) {
	t.Parallel()

	cfg := endRun(t, []result{chat("a"), chat("b")})
	for want, s := range map[string]Scorer{
		"no idea":                     scorer(func([]Answer) ([]float64, error) { return nil, errors.New("no idea") }),
		"there are 1 scores of 2":     scorer(func([]Answer) ([]float64, error) { return []float64{1}, nil }),
		"there are 3 scores of 2":     scorer(func([]Answer) ([]float64, error) { return []float64{1, 1, 1}, nil }),
		"is 1.1, and not from 0 to 1": scorer(func([]Answer) ([]float64, error) { return []float64{1, 1.1}, nil }),
		"there are 0 scores of 2":     lazyScorer{},
	} {
		cfg.Scorer = s
		if _, err := Judge(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}

	fixture.CheckAbsent(t, cfg.Verdicts)
}

// lazyScorer wants no second answer.
type lazyScorer struct{}

// Score implements [Scorer].
func (lazyScorer) Score(_ context.Context, answers iter.Seq2[Answer, error]) ([]float64, error) {
	for range answers {
		break
	}
	return nil, nil
}

// Embeddings have no text: they count, and cannot be compared.
func TestJudgeData(t *testing.T) {
	t.Parallel()

	vector := func(r *proto.Result) { r.Body = []byte(`{"data":[{"embedding":[0.1]}]}`) }
	cfg := endRun(t, []result{vector, vector, fixture.FailWith(proto.CodeTimeout, 1)})

	got, err := Judge(t.Context(), cfg)
	if want := (&Quality{Requests: 3, Data: 2}); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}

	if c, err := Compare(cfg.Verdicts, cfg.Verdicts); err != nil || c != (Comparison{Common: 3}) {
		t.Errorf("%+v, %v", c, err)
	}

	cfg.Expected = writeExpected(t, "a", "b", "c")
	if _, err := Judge(t.Context(), cfg); !errors.Is(err, ErrNoText) {
		t.Errorf("%v, want %v", err, ErrNoText)
	}
}

func TestJudgeRefuses(t *testing.T) {
	t.Parallel()

	good := endRun(t, []result{chat("1"), chat("2"), fixture.FailWith(proto.CodeTimeout, 1)})
	sample, err := os.ReadFile(good.Sample)
	fixture.Must(t, err)

	writeText := func(text string) string {
		path := writeExpected(t)
		fixture.Must(t, os.WriteFile(path, []byte(text), 0o666))
		return path
	}

	for want, change := range map[string]func(*Config){
		`Config.Match is "about"`: func(c *Config) { c.Match = "about" },
		"no such file":            func(c *Config) { c.Sample += ".missing" },
		"has 2 requests, and the run of " + good.Output.Meta() + " has 3": func(c *Config) {
			c.Sample = writeSample(t, 2)
		},
		`its request 2 is "c-1", and in the sample`: func(c *Config) {
			c.Sample = writeText(strings.ReplaceAll(string(sample), "c-1", "d-1"))
		},
		`request 3: it has no "custom_id"`: func(c *Config) {
			c.Sample = writeText(strings.ReplaceAll(string(sample), `"c-2"`, "2"))
		},
		"is compressed with gzip": func(c *Config) { c.Sample = writeText("\x1f\x8b\x08\x00") },
		"has 2 expected answers, and the sample": func(c *Config) {
			c.Expected = writeExpected(t, "1", "2")
		},
		`request 2 of the sample: 2 is neither a JSON string nor null`: func(c *Config) {
			c.Expected = writeExpected(t, "1", 2, "3")
		},
		`request 3 of the sample: "about 3" is no number`: func(c *Config) {
			c.Match, c.Expected = Number, writeExpected(t, "1", nil, "about 3")
		},
		"metadata": func(c *Config) { c.Output = output.Prefix(c.Sample) },
	} {
		cfg := good
		change(&cfg)

		if _, err := Judge(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}

	fixture.CheckAbsent(t, good.Verdicts)

	ctx, cancel := context.WithCancelCause(t.Context())
	errEnd := errors.New("the end")
	cancel(errEnd)
	if _, err := Judge(ctx, good); !errors.Is(err, errEnd) {
		t.Errorf("after the end: %v", err)
	}

	fixture.FlipBit(t, good.Output.Results(), 30)
	if _, err := Judge(t.Context(), good); !errors.Is(err, output.ErrModified) {
		t.Errorf("a damaged output: %v", err)
	}

	fixture.Must(t, os.WriteFile(good.Output.Journal(), nil, 0o666))
	if _, err := Judge(t.Context(), good); err == nil || !strings.Contains(err.Error(), "has not ended") {
		t.Errorf("with a journal: %v", err)
	}
}

// The first expected answer that is none is known before there are answers, with its line.
func TestCheckExpected(t *testing.T) {
	t.Parallel()

	path := writeExpected(t, "1", nil, "2024-11-29")
	err := CheckExpected(path, Number)
	if bad, ok := errors.AsType[*ExpectedError](err); !ok || bad.Line != 3 || bad.Path != path {
		t.Errorf("%v", err)
	}

	if err := CheckExpected(path, Exact); err != nil {
		t.Errorf("as texts: %v", err)
	}
}

// FuzzParseExpectation ensures that an expected answer is one of its own forms.
func FuzzParseExpectation(f *testing.F) {
	for _, line := range []string{`"a"`, `" 1,234 "`, `null`, `"{\"b\":1,\"a\":\"x\"}"`, `"\ud800"`, `1`, `"a" 1`, `"`} {
		f.Add([]byte(line), true)
	}

	f.Fuzz(func(t *testing.T, line []byte, isJSON bool) {
		for _, match := range []Match{Exact, Number} {
			file := &expectedFile{match: match, isJSON: isJSON}
			e, problem := file.parse(line)
			if problem != "" || !e.isJudged {
				continue
			}

			text, _ := parseText(line)
			file.list = []expectation{e}
			if !file.isRight(0, text) {
				t.Errorf("%s does not equal itself, with match %s", line, match)
			}
		}
	})
}
