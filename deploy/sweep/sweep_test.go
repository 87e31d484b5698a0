package sweep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// writeInput writes an input of chat prompts of various lengths.
func writeInput(t testing.TB, requests int) string {
	t.Helper()

	var text bytes.Buffer
	for i := range requests {
		fmt.Fprintf(&text, `{"custom_id":"r-%d","label":"%d","method":"POST","url":"/v1/chat/completions","body":{"messages":`+
			`[{"role":"user","content":"%s"}]}}`+"\n", i, i%3, strings.Repeat("word ", 1+i%40))
	}

	path := filepath.Join(t.TempDir(), "in.jsonl")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}

// inFlight is the number of requests at each server: enough for all slots of a simulated one.
const inFlight = 8

// newConfig returns the configuration of a trial of some specs that takes seconds.
func newConfig(t testing.TB, input string, specs ...Spec) Config {
	t.Helper()

	dir := t.TempDir()

	return Config{
		Inputs:    []string{input},
		Output:    filepath.Join(dir, "small"),
		Strategy:  List(specs),
		Precision: 0.5,
		Budget:    8 * time.Second,
		Round:     time.Second,
		Workers:   pipeline.WorkerConfig{Concurrency: inFlight}, // to find it would take longer
		State:     filepath.Join(dir, "state"),
	}
}

// runTrial runs a trial that is to succeed.
func runTrial(t testing.TB, cfg Config) *trial.Result {
	t.Helper()

	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatalf("%v (%s)", err, exit.Hint(err))
	}

	return r
}

// findRow returns the row of a variant.
func findRow(t testing.TB, r *trial.Result, name string) trial.Row {
	t.Helper()

	for _, row := range r.Variants {
		if row.Name == name {
			return row
		}
	}
	t.Fatalf("there is no variant %s in %+v", name, r.Variants)

	return trial.Row{}
}

// newSlowSim returns a simulated server with 4 slots and about 40 requests a second. Its speed is that of its slots also
// on a machine with other work, since it leaves the processor idle.
func newSlowSim() simSettings {
	return simSettings{Model: "m", Slots: 4, TPOT: 10 * time.Millisecond, Tokens: 9}
}

// isAboutHalf reports whether a speed is about half of the best one.
func isAboutHalf(d *trial.Difference) bool { return d != nil && d.Ratio > 0.4 && d.Ratio < 0.65 }

// The servers run one after the other. Each variant has the metadata of an ordinary run, and the one with twice the
// slots is the fastest.
func TestOneAfterTheOther(t *testing.T) {
	t.Parallel()

	one := newSlowSim()
	two := one
	two.Slots = 2 * one.Slots
	cfg := newConfig(t, writeInput(t, 5000),
		Spec{Name: "slots=4", Model: "m", Command: one.command(t)},
		Spec{Name: "slots=8", Model: "m", Command: two.command(t)},
		Spec{Name: "broken", Model: "m", Command: "sh -c 'echo out of memory; exit 3' " + "{port}"},
	)

	r := runTrial(t, cfg)
	if r.Chosen != "slots=8" || !r.Done {
		t.Errorf("chosen %q, done %t: %s", r.Chosen, r.Done, r.Answer)
	}

	fast, slow, broken := findRow(t, r, "slots=8"), findRow(t, r, "slots=4"), findRow(t, r, "broken")
	if d := slow.SpeedDifference; !isAboutHalf(d) {
		t.Errorf("the speeds %+v (%s) and %+v (%s) differ by %+v, want about a half", slow.Speed, slow.Reason, fast.Speed,
			fast.Reason, d)
	}

	if broken.State != trial.Failed || !strings.Contains(broken.Reason, "out of memory") {
		t.Errorf("the broken server: %s, %q", broken.State, broken.Reason)
	}

	for _, row := range []trial.Row{fast, slow} {
		meta := row.Metadata
		if row.State != trial.Measured || meta == nil || meta.Results.FailureCount != meta.Manifest.Counts.Skipped ||
			meta.Model != "m" || meta.Results.ModelLoadTimeSeconds == nil {
			t.Errorf("%s: %s, %+v", row.Name, row.State, meta)
		}
	}

	for _, name := range []string{"small.trial.html", "small.trial.md", "small.trial.json"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(cfg.Output), name)); err != nil {
			t.Error(err)
		}
	}

	// The same trial again is only shown.
	cfg.Hooks.Begin = func(v trial.Variant, _, _ int) { t.Errorf("%s began again", v.Name) }
	if again := runTrial(t, cfg); again.Answer != r.Answer {
		t.Errorf("the answer was %q, and is %q", r.Answer, again.Answer)
	}
}

// Servers that run already take turns, and their rounds are in pairs.
func TestTurns(t *testing.T) {
	t.Parallel()

	one := newSlowSim()
	two := one
	two.Slots = 2 * one.Slots
	cfg := newConfig(t, writeInput(t, 20_000),
		Spec{Name: "a", URL: one.start(t)},
		Spec{Name: "b", URL: two.start(t)},
		Spec{Name: "none", URL: "http://127.0.0.1:1"},
	)
	cfg.Precision, cfg.Budget = 0.01, 6*cfg.Round // five rounds are needed

	r := runTrial(t, cfg)
	if r.Chosen != "b" {
		t.Errorf("chosen %q: %s", r.Chosen, r.Answer)
	}

	a, b, none := findRow(t, r, "a"), findRow(t, r, "b"), findRow(t, r, "none")
	if none.State != trial.Failed {
		t.Errorf("the server that is not there: %s, %s", none.State, none.Reason)
	}

	if len(a.Rounds) == 0 || len(b.Rounds) < len(a.Rounds) {
		t.Fatalf("%d and %d rounds", len(a.Rounds), len(b.Rounds))
	}

	if len(a.Rounds) > 6 {
		t.Errorf("%d rounds of %s in a budget of %s", len(a.Rounds), cfg.Round, cfg.Budget)
	}

	for i := range a.Rounds {
		one, other := a.Rounds[i], b.Rounds[i]
		if one.Number != other.Number || one.From.Before(other.To) && other.From.Before(one.To) {
			t.Errorf("round %d: %v and %v are at one time", i, one, other)
		}
	}

	if d := a.SpeedDifference; !isAboutHalf(d) || !d.Paired {
		t.Errorf("the speeds %+v (%s) and %+v (%s) differ by %+v, want about a half, in pairs", a.Speed, a.Reason, b.Speed,
			b.Reason, d)
	}
}

// A trial that is interrupted goes on with the variant it was at, and runs no request twice.
func TestInterrupted(t *testing.T) {
	t.Parallel()

	one := newSlowSim()
	cfg := newConfig(t, writeInput(t, 5000),
		Spec{Name: "a", Model: "m", Command: one.command(t)},
		Spec{Name: "b", Model: "m", Command: one.command(t)},
	)

	cfg.Budget = 4 * time.Second

	stop := errors.New("the test stops it")
	ctx, cancel := context.WithCancelCause(t.Context())
	cfg.Hooks.Progress = func(v trial.Variant, s progress.Sample, _ trial.Speed) {
		if v.Name == "b" && s.Done > 50 {
			cancel(stop)
		}
	}

	_, err := Run(ctx, cfg)
	if !errors.Is(err, pipeline.ErrInterrupted) || !errors.Is(err, stop) || exit.Code(err) != exit.CodeInterrupted {
		t.Fatalf("the interrupted trial: %v", err)
	}

	// The figures of b so far are those of its command, so that another one is refused.
	other := cfg
	other.Strategy = List{{Name: "a", Model: "m", Command: one.command(t)}, {Name: "b", Model: "m", Command: "other"}}
	if _, err := Run(t.Context(), other); exit.Code(err) != exit.CodeUsage {
		t.Errorf("another command for a run that was interrupted: %v with code %d", err, exit.Code(err))
	}

	var began []string
	cfg.Hooks.Progress = nil
	cfg.Hooks.Begin = func(v trial.Variant, _, _ int) { began = append(began, v.Name) }
	r := runTrial(t, cfg)
	if len(began) != 1 || began[0] != "b" {
		t.Errorf("%q began again, want b alone", began)
	}

	b := findRow(t, r, "b")
	if n := b.Metadata.Results; n.Interruptions != 1 || int(n.Attempts) > n.SuccessCount+2*inFlight {
		t.Errorf("%d interruptions, %d attempts for %d answers", n.Interruptions, n.Attempts, n.SuccessCount)
	}
}

// A trial that goes on refuses another input, other settings, and another command of a variant.
func TestOtherTrial(t *testing.T) {
	t.Parallel()

	one := simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 20}
	spec := Spec{Name: "a", Model: "m", Command: one.command(t)}
	input := writeInput(t, 300)
	cfg := newConfig(t, input, spec)
	runTrial(t, cfg)

	for name, change := range map[string]func(*Config){
		"sample":   func(c *Config) { c.Sample = 100 },
		"expect":   func(c *Config) { c.Expect = "label" },
		"settings": func(c *Config) { c.Settings.Endpoint = "/v1/completions" },
		"command":  func(c *Config) { c.Strategy = List{{Name: "a", Model: "m", Command: "other " + "{port}"}} },
		"input":    func(c *Config) { c.Inputs = []string{writeInput(t, 299)} },
	} {
		other := cfg
		change(&other)
		if _, err := Run(t.Context(), other); err == nil || exit.Hint(err) == "" {
			t.Errorf("another %s: %v (%s)", name, err, exit.Hint(err))
		} else if want := "was begun without --expect, and the command is with --expect label"; name == "expect" &&
			!strings.Contains(err.Error(), want) {
			t.Errorf("another %s: %v, want %q", name, err, want)
		}
	}

	// The same input under another name is the same, and a lost sample is drawn again.
	moved := filepath.Join(t.TempDir(), "moved.jsonl")
	text, err := os.ReadFile(input)
	if err == nil {
		err = os.WriteFile(moved, text, 0o600)
	}
	if err == nil {
		err = os.Remove(filepath.Join(cfg.Output+folderSuffix, "sample.jsonl"))
	}
	if err != nil {
		t.Fatal(err)
	}

	cfg.Inputs = []string{moved}
	runTrial(t, cfg)

	if err := os.WriteFile(moved, append(text, text[:bytes.IndexByte(text, '\n')+1]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), cfg); !errors.Is(err, proto.ErrInputChanged) && exit.Code(err) != exit.CodeUsage {
		t.Errorf("a changed input: %v", err)
	}
}

// A record and metadata that stand for something else are refused, and so are two variants of one name.
func TestForeignFiles(t *testing.T) {
	t.Parallel()

	server := simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 20}
	url := server.start(t)
	list := List{{Name: "a", URL: url}, {Name: "b", URL: "http://127.0.0.1:1"}}
	cfg := newConfig(t, writeInput(t, 20), list[0])
	runTrial(t, cfg)

	cfg.Strategy = List{list[0], list[0]}
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "two variants") {
		t.Errorf("two variants of one name: %v", err)
	}

	cfg.Strategy = list
	runTrial(t, cfg)

	f := folder(cfg.Output + folderSuffix)
	for name, c := range map[string]struct{ path, old, new string }{
		"no variant":     {f.record(), `"variants": [`, `"variants": [null, `},
		"a state":        {f.record(), `"state": "measured"`, `"state": "good"`},
		"a name":         {f.record(), `"name": "b"`, `"name": "a"`},
		"another's spec": {f.record(), `"name": "b",`, `"name": "c",`},
		"a folder above": {f.record(), `"slug": "02-b"`, `"slug": "../02-b"`},
		"another's file": {f.record(), `"slug": "02-b"`, `"slug": "01-a"`},
		"a decision":     {f.record(), `"slug": "02-b"`, `"slug": "02-b", "decided": "running"`},
		"other requests": {f.output("01-a").Meta(), `"input_sha256": "`, `"input_sha256": "0`},
		"another's run":  {f.output("01-a").Meta(), `"label": "a"`, `"label": "b"`},
	} {
		was, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}

		is := bytes.Replace(was, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(was, is) {
			t.Fatalf("%s: there is no %s in %s", name, c.old, was)
		}
		if err := os.WriteFile(c.path, is, 0o600); err != nil {
			t.Fatal(err)
		}

		if _, err := Run(t.Context(), cfg); err == nil || exit.Hint(err) == "" {
			t.Errorf("%s: %v (%s)", name, err, exit.Hint(err))
		}
		if now, err := os.ReadFile(c.path); err != nil || !bytes.Equal(now, is) {
			t.Errorf("%s: the file was changed: %v", name, err)
		}

		if err := os.WriteFile(c.path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	runTrial(t, cfg)
}

// scorer scores answers by their length, and notes what it got.
type scorer struct {
	name string
	got  *[]quality.Answer
}

func (s scorer) String() string { return s.name }

func (s scorer) Score(_ context.Context, answers iter.Seq2[quality.Answer, error]) (scores []float64, err error) {
	for a, err := range answers {
		if err != nil {
			return nil, err
		}
		*s.got = append(*s.got, a)
		scores = append(scores, 0.25)
	}
	return scores, nil
}

// A table with a template is an input, too. Its answers are compared with a column and scored, and scored again by
// another scorer without another run.
func TestTable(t *testing.T) {
	t.Parallel()

	text := "id,text,label\n"
	for i := range 200 {
		text += fmt.Sprintf("%d,some words,answer %d\n", i, i)
	}

	input := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(input, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	one := simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 20}
	var answers []quality.Answer
	cfg := newConfig(t, input, Spec{Name: "a", URL: one.start(t)})
	cfg.Settings.Rows = &proto.Rows{Prompt: "Say {{.text}}"}
	cfg.Sample, cfg.Expect, cfg.Scorer = 50, "label", scorer{"first", &answers}

	r := runTrial(t, cfg)
	q := findRow(t, r, "a").Quality
	if q == nil || q.Requests != 50 || q.Expected == nil || q.Expected.Of != 50 || q.Score == nil ||
		math.Abs(q.Score.Mean-0.25) > 1e-9 {
		t.Fatalf("the quality: %+v", q)
	}

	first := answers[0]
	if len(answers) != 50 || first.Expected == nil || !strings.HasPrefix(*first.Expected, "answer ") ||
		!strings.Contains(string(first.Request), "Say some words") || first.Text == "" {
		t.Errorf("%d answers were scored, the first: %+v", len(answers), first)
	}

	answers, cfg.Scorer = nil, scorer{"second", &answers}
	cfg.Hooks.Begin = func(v trial.Variant, _, _ int) { t.Errorf("%s began again", v.Name) }
	runTrial(t, cfg)
	if len(answers) != 50 {
		t.Errorf("another scorer got %d answers", len(answers))
	}

	answers = nil
	runTrial(t, cfg)
	if len(answers) != 0 {
		t.Errorf("the same scorer got %d answers again", len(answers))
	}
}

// A variant whose server still loads as the trial's time ends has not failed.
func TestTimeIsOverWhileLoading(t *testing.T) {
	t.Parallel()

	slow := simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 20, Load: time.Hour}
	cfg := newConfig(t, writeInput(t, 50), Spec{Name: "slow", Command: slow.command(t)})
	cfg.Within = time.Second

	row := findRow(t, runTrial(t, cfg), "slow")
	if want := "the 1s of the trial were over while its server loaded"; row.State != trial.Skipped || row.Reason != want {
		t.Errorf("%s: %q, want skipped: %q", row.State, row.Reason, want)
	}
}

// A variant whose server did not start begins again with a command that was corrected; one that has figures keeps its
// command.
func TestCorrectedCommand(t *testing.T) {
	t.Parallel()

	server := newSlowSim()
	broken := Spec{Name: "a", Model: "m", Command: "sh -c 'exit 3' " + "{port}"}
	cfg := newConfig(t, writeInput(t, 300), broken)
	if r := runTrial(t, cfg); findRow(t, r, "a").State != trial.Failed {
		t.Fatalf("the broken server: %+v", r.Variants)
	}

	correct := Spec{Name: "a", Model: "m", Command: server.command(t)}
	cfg.Strategy = List{correct}
	r := runTrial(t, cfg)
	if row := findRow(t, r, "a"); row.State != trial.Measured || row.Command != correct.Command {
		t.Errorf("the corrected server: %s (%s) with the command %q", row.State, row.Reason, row.Command)
	}

	cfg.Strategy = List{broken}
	if _, err := Run(t.Context(), cfg); exit.Code(err) != exit.CodeUsage {
		t.Errorf("another command for figures that are there: %v with code %d", err, exit.Code(err))
	}
}

// A server that starts and then fails all requests makes a failed row with its own words.
func TestServerThatFailsEverything(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model"}]}`)
			return
		}
		http.Error(w, `{"error":"the worker died: out of memory"}`, http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)

	one := simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 20}
	for _, name := range []string{"alone", "in turns"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			specs := []Spec{{Name: "dead", URL: server.URL}}
			if name == "in turns" {
				specs = append(specs, Spec{Name: "good", URL: one.start(t)})
			}

			cfg := newConfig(t, writeInput(t, 20_000), specs...)
			cfg.refusal, cfg.Budget = 21*time.Second, time.Hour
			dead := findRow(t, runTrial(t, cfg), "dead")
			if dead.State != trial.Failed || !strings.Contains(dead.Reason, "answered no request") ||
				!strings.Contains(dead.Reason, "the worker died: out of memory") || strings.Contains(dead.Reason, ";") {
				t.Errorf("%s: %s", dead.State, dead.Reason)
			}
		})
	}
}

// A server whose list of models fails serves the model that the variant names.
func TestServerWithoutAList(t *testing.T) {
	t.Parallel()

	model := sim.New(simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 20}.config())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			http.Error(w, "no cache", http.StatusInternalServerError)
			return
		}
		model.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	cfg := newConfig(t, writeInput(t, 300),
		Spec{Name: "named", Model: "m", URL: server.URL}, Spec{Name: "other", URL: server.URL + "/"})
	r := runTrial(t, cfg)
	if row := findRow(t, r, "named"); row.State != trial.Measured || row.Metadata.Model != "m" {
		t.Errorf("with a model: %s, %s", row.State, row.Reason)
	}
	if row := findRow(t, r, "other"); row.State != trial.Failed {
		t.Errorf("without a model: %s, %s", row.State, row.Reason)
	}
}

// The metadata of a variant that has ended are those that its figures came from, or the trial is refused. Verdicts that
// are not those that were written, such as the other variant's, are judged again.
func TestFilesOfEndedVariants(t *testing.T) {
	t.Parallel()

	s := simSettings{Model: "m", Slots: 8, TPOT: time.Millisecond, Tokens: 5}
	other := s
	other.Tokens = 9 // its answers are others
	cfg := newConfig(t, writeInput(t, 300),
		Spec{Name: "a", Model: "m", Command: s.command(t)},
		Spec{Name: "b", Model: "m", Command: other.command(t)},
	)
	runTrial(t, cfg)

	f := folder(cfg.Output + folderSuffix)
	a, b := f.verdicts("01-a"), f.verdicts("02-b")
	was := readFile(t, a)
	if bytes.Equal(was, readFile(t, b)) {
		t.Fatal("the verdicts of a and b are the same, so the test proves nothing")
	}
	if err := os.WriteFile(a, readFile(t, b), 0o600); err != nil {
		t.Fatal(err)
	}
	runTrial(t, cfg)
	if !bytes.Equal(readFile(t, a), was) {
		t.Error("the verdicts of b are still in the place of those of a")
	}

	meta := f.output("01-a").Meta()
	text := readFile(t, meta)
	for what, change := range map[string]func() error{
		"is another file": func() error { return os.WriteFile(meta, append(slices.Clone(text), '\n'), 0o600) },
		"is gone":         func() error { return os.Remove(meta) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `of the variant "a", `+what) {
			t.Errorf("%s: %v", what, err)
		}
	}

	if err := os.WriteFile(meta, text, 0o600); err != nil {
		t.Fatal(err)
	}
	runTrial(t, cfg)
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	return text
}
