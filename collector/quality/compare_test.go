package quality

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/proto"
)

// Two runs are compared by the requests that both have ended.
func TestCompare(t *testing.T) {
	t.Parallel()

	a := endRun(t, []result{chat("yes"), chat("no "), chat("yes"), nil, fixture.FailWith(proto.CodeTimeout, 1), chat("x")})
	b := endRun(t, []result{chat("yes"), chat("no"), chat("no"), chat("yes"), chat("yes"), nil})
	for _, cfg := range []Config{a, b} {
		cfg.Expected = writeExpected(t, "yes", "no", "yes", "yes", "yes", nil)
		_, err := Judge(t.Context(), cfg)
		fixture.Must(t, err)
	}

	got, err := Compare(a.Verdicts, b.Verdicts)
	fixture.Must(t, err)

	// The differences are 0, 0, 1 and -1.
	want := Comparison{Common: 4, Agreement: NewShare(2, 3), Difference: got.Difference, By: ByExpected}
	if diff := cmp.Diff(want, got); diff != "" || got.Difference == nil || got.Difference.Mean != 0 {
		t.Errorf("comparison (-want +got):\n%s %+v", diff, got.Difference)
	}

	back, err := Compare(b.Verdicts, a.Verdicts)
	if err != nil || math.Abs(back.Difference.Low+got.Difference.High) > 1e-9 || back.Common != 4 {
		t.Errorf("the other way round: %+v, %v; want the negative of %+v", back.Difference, err, got.Difference)
	}
}

// With a schema, answers agree that are the same JSON value; with numbers, those with the same number.
func TestCompareAgreement(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		match  Match
		change func(*proto.Manifest)
		x, y   string
		want   int
	}{
		{"text", Exact, func(*proto.Manifest) {}, `{"a":1,"b":2}`, `{"b":2,"a":1}`, 0},
		{"schema", Exact, setSchema, `{"a":1,"b":2}`, ` {"b":2, "a":1.0}`, 1},
		{"schema, large numbers", Exact, setSchema, `{"a":9007199254740993}`, `{"a":9007199254740992}`, 0},
		{"number", Number, func(*proto.Manifest) {}, "It is 1,000.", "1000", 1},
		{"no number", Number, func(*proto.Manifest) {}, "none", "1000", 0},
	} {
		a, b := endRun(t, []result{chat(tt.x)}, tt.change), endRun(t, []result{chat(tt.y)}, tt.change)
		for _, cfg := range []Config{a, b} {
			cfg.Match = tt.match
			_, err := Judge(t.Context(), cfg)
			fixture.Must(t, err)
		}

		if c, err := Compare(a.Verdicts, b.Verdicts); err != nil || c.Agreement == nil || c.Agreement.Count != tt.want {
			t.Errorf("%s: %+v, %v, want %d", tt.name, c.Agreement, err, tt.want)
		}
	}
}

// The first measure that both runs have is compared.
func TestCompareBy(t *testing.T) {
	t.Parallel()

	none := math.NaN()
	for _, tt := range []struct {
		a, b verdict
		want Measure
		mean float64
	}{
		{verdict{right: yes, score: 0.25}, verdict{right: no, score: 1}, ByExpected, 1},
		{verdict{right: unknown, score: 0.25}, verdict{right: no, score: 1}, ByScore, -0.75},
		{verdict{matched: no, score: none}, verdict{matched: yes, score: 1}, BySchema, -1},
		{verdict{score: none}, verdict{score: none}, "", 0},
	} {
		tt.a.outcome, tt.b.outcome = answered, failed
		c := compare([]verdict{tt.a}, []verdict{tt.b})
		if c.By != tt.want || (c.Difference == nil) != (tt.want == "") ||
			c.Difference != nil && c.Difference.Mean != tt.mean {
			t.Errorf("%+v and %+v: by %q, %+v", tt.a, tt.b, c.By, c.Difference)
		}
	}
}

// Runs of other samples, expected answers and settings are refused, and so are damaged files.
func TestCompareRefuses(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	write := func(v verdicts) string {
		path := filepath.Join(dir, "verdicts")
		fixture.Must(t, v.write(path))
		return path
	}

	good := verdicts{mode: asText, list: make([]verdict, 2)}
	first := filepath.Join(dir, "first")
	fixture.Must(t, good.write(first))

	for want, other := range map[string]verdicts{
		"different samples":          {mode: asText, list: good.list, sample: digest{1}},
		"different settings":         {mode: asJSON, list: good.list},
		"different expected answers": {mode: asText, list: good.list, expected: digest{1}},
	} {
		if _, err := Compare(first, write(other)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}

	path := write(good)
	for offset := range int64(len(good.encode())) {
		fixture.FlipBit(t, path, offset)
		if _, err := Compare(first, path); !errors.Is(err, proto.ErrFormat) {
			t.Errorf("byte %d is damaged: %v", offset, err)
		}
		fixture.FlipBit(t, path, offset)
	}

	if _, err := Compare(first, filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// FuzzDecodeVerdicts ensures that what is read is what was written.
func FuzzDecodeVerdicts(f *testing.F) {
	v := verdicts{mode: asNumber, sample: digest{1}, expected: digest{2}, list: []verdict{
		{outcome: answered, right: yes, matched: no, answer: form{3}, score: math.NaN()}, {outcome: failed, score: 0.5},
	}}
	f.Add(v.encode())
	f.Add(verdicts{mode: asText}.encode())
	f.Add([]byte(verdictsMagic))

	got, err := decodeVerdicts(v.encode())
	options := cmp.Options{cmp.AllowUnexported(verdicts{}, verdict{}), cmpopts.EquateNaNs()}
	if diff := cmp.Diff(v, got, options); diff != "" || err != nil {
		f.Fatalf("%v (-want +got):\n%s", err, diff)
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeVerdicts(data)
		if err == nil && !bytes.Equal(v.encode(), data) {
			t.Errorf("%x is read as %+v", data, v)
		}
	})
}
