package tune

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/sweep"
	"github.com/promptmill/promptmill/proto"
)

// truth is a model server whose speed is known: the product of factors of its settings.
type truth struct {
	factors  map[string]float64 // of max-num-seqs=512, for example; 1 if missing
	fails    []string           // settings that do not start
	right    map[string]float64 // the share of right answers; 0.8 if missing
	error    float64            // the standard error of the log of a measured speed
	requests int                // of the sample that are judged; 0: none
}

const command = "vllm serve m --port {port} 2>&1 | tee log"

// newSearch returns a search over the truth.
func (tr truth) newSearch(t *testing.T, command string, seed uint64) *Search {
	t.Helper()

	s, err := New(sweep.Spec{Command: command, Model: "m"}, 0)
	if err != nil {
		t.Fatal(err)
	}

	s.compare = func(a, b trial.Variant) trial.Difference {
		const half = 1.6449
		off := half * math.Hypot(tr.error, tr.error)
		log := tr.measureLog(a, seed) - tr.measureLog(b, seed)
		d := trial.Difference{Ratio: math.Exp(log), Low: math.Exp(log - off), High: math.Exp(log + off)}
		d.Real = d.Low > 1 || d.High < 1
		return d
	}

	return s
}

// measureLog returns the log of the speed of a variant as it was measured.
func (tr truth) measureLog(v trial.Variant, seed uint64) float64 {
	h := fnv.New64()
	h.Write([]byte(v.Name))

	log := tr.error * rand.New(rand.NewPCG(seed, h.Sum64())).NormFloat64()
	for _, s := range v.Settings {
		if f, ok := tr.factors[s.Name+"="+s.Value]; ok {
			log += math.Log(f)
		}
	}

	return log
}

// run measures a variant.
func (tr truth) run(spec sweep.Spec, seed uint64) trial.Variant {
	v := trial.Variant{
		Name:     spec.Name,
		Settings: spec.Settings,
		Command:  spec.Command,
		State:    trial.Measured,
		Run:      &metadata.Run{},
	}

	share := 0.8
	for _, s := range spec.Settings {
		setting := s.Name + "=" + s.Value
		if slices.Contains(tr.fails, setting) {
			v.State, v.Run = trial.Failed, nil
			return v
		}
		if right, ok := tr.right[setting]; ok {
			share = right
		}
	}

	if tr.requests > 0 {
		h := fnv.New64()
		h.Write([]byte(v.Name))
		rng := rand.New(rand.NewPCG(seed, ^h.Sum64()))
		count := 0
		for range tr.requests {
			if rng.Float64() < share {
				count++
			}
		}
		v.Quality = &quality.Quality{Expected: quality.NewShare(count, tr.requests)}
	}

	return v
}

// search runs a search to its end.
func (tr truth) search(t *testing.T, s *Search, seed uint64) (ended []trial.Variant) {
	t.Helper()

	for range 100 {
		specs := s.Next(ended)
		if len(specs) == 0 {
			return ended
		}
		for _, spec := range specs {
			ended = append(ended, tr.run(spec, seed))
		}
	}

	t.Fatal("the search does not end")

	return nil
}

func TestSearchFindsTheOptimum(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		truth truth
		want  string
	}{
		"flat": {truth{}, DefaultName},
		"up":   {truth{factors: map[string]float64{"max-num-seqs=512": 1.2, "max-num-seqs=1024": 1.5}}, "max-num-seqs=1024"},
		"top in between": {
			truth{factors: map[string]float64{"max-num-seqs=512": 1.2, "max-num-seqs=1024": 0.9}}, "max-num-seqs=512"},
		"down": {
			truth{factors: map[string]float64{"max-num-seqs=512": 0.8, "max-num-seqs=1024": 0.7, "max-num-seqs=128": 1.3}},
			"max-num-seqs=128"},
		"two flags": {
			truth{factors: map[string]float64{"max-num-batched-tokens=16384": 1.1, "kv-cache-dtype=fp8": 1.2}},
			"max-num-batched-tokens=16384 kv-cache-dtype=fp8"},
		"the larger does not fit": {
			truth{
				factors: map[string]float64{"max-num-seqs=512": 1.2, "gpu-memory-utilization=0.95": 1.1},
				fails:   []string{"max-num-seqs=1024", "kv-cache-dtype=fp8"},
			},
			"max-num-seqs=512 gpu-memory-utilization=0.95"},
	} {
		for _, noise := range []float64{0.001, 0.01} {
			c.truth.error = noise
			s := c.truth.newSearch(t, command, 1)
			ended := c.truth.search(t, s, 1)
			o := s.Outcome(ended)
			if o.Winner.Name != c.want || o.Found != (c.want != DefaultName) {
				t.Errorf("%s: %s (%+v), want %s", name, o.Winner.Name, o, c.want)
			}
			if len(ended) > s.Most() {
				t.Errorf("%s: %d variants, %d at most", name, len(ended), s.Most())
			}
		}
	}
}

// Noise is not kept: not by one step of a search, and even less as its outcome.
func TestSearchKeepsNoNoise(t *testing.T) {
	t.Parallel()

	const searches = 1000
	var kept, found int
	for seed := range uint64(searches) {
		tr := truth{error: 0.015}
		s := tr.newSearch(t, command, seed)
		ended := tr.search(t, s, seed)
		if len(s.replay(ended).choices) > 0 {
			kept++
		}
		if s.Outcome(ended).Found {
			found++
		}
	}

	if kept > searches*5/100 {
		t.Errorf("%d of %d searches kept a value that is not faster", kept, searches)
	}
	if found > searches/100 {
		t.Errorf("%d of %d searches say that a setting is faster where none is", found, searches)
	}
}

// A gain of 15 % is found at the usual precision.
func TestSearchFindsGains(t *testing.T) {
	t.Parallel()

	const searches = 500
	found, holds := 0, 0
	for seed := range uint64(searches) {
		tr := truth{error: 0.015, factors: map[string]float64{"max-num-batched-tokens=8192": 1.15, "max-num-batched-tokens=16384": 0.9}}
		s := tr.newSearch(t, command, seed)
		o := s.Outcome(tr.search(t, s, seed))
		if strings.HasPrefix(o.Winner.Name, "max-num-batched-tokens=8192") {
			found++
		}
		if o.Gain.Low <= 1.15 && 1.15 <= o.Gain.High {
			holds++
		}
	}

	if found < searches*95/100 {
		t.Errorf("%d of %d searches found it", found, searches)
	}
	if holds < searches*87/100 || holds > searches*93/100 {
		t.Errorf("the interval of the gain holds it in %d of %d searches", holds, searches)
	}
}

// The cache of half the size is twice as fast, but its answers are worse.
func TestSearchKeepsNoWorseAnswers(t *testing.T) {
	t.Parallel()

	const searches = 500
	kept := 0
	for seed := range uint64(searches) {
		tr := truth{
			error: 0.01, requests: 3000,
			factors: map[string]float64{"kv-cache-dtype=fp8": 2},
			right:   map[string]float64{"kv-cache-dtype=fp8": 0.75},
		}
		s := tr.newSearch(t, command, seed)
		if o := s.Outcome(tr.search(t, s, seed)); strings.Contains(o.Winner.Name, "fp8") {
			kept++
		}
	}

	if kept > searches/100 {
		t.Errorf("%d of %d searches kept it", kept, searches)
	}
}

// A search that was killed goes on as if it had not been.
func TestSearchResumes(t *testing.T) {
	t.Parallel()

	tr := truth{error: 0.01, factors: map[string]float64{"max-num-seqs=512": 1.2, "kv-cache-dtype=fp8": 1.2}}
	ended := tr.search(t, tr.newSearch(t, command, 7), 7)
	if len(ended) < 8 {
		t.Fatalf("only %d variants", len(ended))
	}

	for n := range ended {
		s := tr.newSearch(t, command, 7)
		before := append(slices.Clone(ended[:n]), trial.Variant{Name: ended[n].Name, State: trial.Running})
		specs := s.Next(before)
		if len(specs) != 1 || specs[0].Name != ended[n].Name || specs[0].Command != ended[n].Command {
			t.Errorf("after %d variants it goes on with %+v, not with %s", n, specs, ended[n].Name)
		}
	}
}

// Once a variant was skipped because the time was over, nothing follows, and the outcome says so.
func TestSearchEndsWithTheTime(t *testing.T) {
	t.Parallel()

	tr := truth{error: 0.01, factors: map[string]float64{"max-num-seqs=512": 1.2}}
	s := tr.newSearch(t, command, 1)
	var ended []trial.Variant
	for range 3 {
		ended = append(ended, tr.run(s.Next(ended)[0], 1))
	}

	ended = append(ended, trial.Variant{Name: s.Next(ended)[0].Name, State: trial.Skipped})
	if specs := s.Next(ended); specs != nil {
		t.Errorf("it goes on with %+v", specs)
	}

	o := s.Outcome(ended)
	if !o.Found || !o.Late || o.Confirmed || o.Winner.Name != "max-num-seqs=512" {
		t.Errorf("%+v", o)
	}
	if found := s.Tuning(ended); !found.Found || !found.Late || found.Confirmed || found.Winner != o.Winner.Name {
		t.Errorf("%+v", found)
	}
}

// Without a speed of the command as it is, nothing can be compared.
func TestSearchEndsWithTheBase(t *testing.T) {
	t.Parallel()

	s := truth{}.newSearch(t, command, 1)
	ended := []trial.Variant{{Name: DefaultName, State: trial.Failed}}
	if specs := s.Next(ended); specs != nil {
		t.Errorf("it goes on with %+v", specs)
	}
	if o, found := s.Outcome(ended), s.Tuning(ended); o.Found || o.HasBase || o.Failed != 1 || found.Winner != "" {
		t.Errorf("%+v, %+v", o, found)
	}
}

// Flags of the command are the user's choice.
func TestSearchLeavesFlagsAlone(t *testing.T) {
	t.Parallel()

	s := truth{}.newSearch(t, "vllm serve m --max-num-seqs=64 --kv_cache_dtype fp8 --port {port}", 1)
	for _, v := range (truth{}).search(t, s, 1) {
		for _, setting := range v.Settings {
			if setting.Name == "max-num-seqs" || setting.Name == "kv-cache-dtype" {
				t.Errorf("%s was tried", v.Name)
			}
		}
	}

	_, err := New(sweep.Spec{Command: "vllm serve m --max-num-seqs 64 --max-num-batched-tokens 2048 --kv-cache-dtype auto " +
		"--gpu-memory-utilization 0.9 --performance-mode balanced"}, 0)
	if err == nil || !strings.Contains(err.Error(), "sets all flags of vllm") {
		t.Errorf("%v, want that nothing is left to try", err)
	}
}

// The outcome names the command that won, with the placeholders of the user's.
func TestOutcome(t *testing.T) {
	t.Parallel()

	tr := truth{error: 0.01, factors: map[string]float64{"max-num-seqs=512": 1.3, "kv-cache-dtype=fp8": 1.1}}
	s := tr.newSearch(t, command, 3)
	o := s.Outcome(tr.search(t, s, 3))
	want := "vllm serve m --port {port} --max-num-seqs 512 --kv-cache-dtype fp8 2>&1 | tee log"
	if !o.Found || !o.Confirmed || o.Command != want || o.Failed != 0 {
		t.Errorf("%+v", o)
	}
	if found := s.Tuning(nil); found.Found || found.Winner != "" || found.Gain != nil {
		t.Errorf("before the first variant: %+v", found)
	}
	found := s.Tuning(tr.search(t, s, 3))
	if found.Flags != "--max-num-seqs 512 --kv-cache-dtype fp8" || found.Command != want || found.Gain == nil ||
		found.Gain.Ratio != o.Gain.Ratio || found.Winner != "max-num-seqs=512 kv-cache-dtype=fp8" {
		t.Errorf("%+v", found)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()

	s := truth{}.newSearch(t, "llama-server -m x.gguf --port {port} -ub 512 -ngl 99", 1)
	want := "at most 8 variants of llama-server, each with up to 10 minutes of measuring besides its start: " +
		"parallel (8, 16, 32, 64), cache-type (q8_0)"
	if got := s.Plan(10 * time.Minute); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Requests that were not run, since the variant was known well enough, are no failures of it. Those that failed are.
func TestIsWorseBySuccess(t *testing.T) {
	t.Parallel()

	base := trial.Variant{Run: endedRun(5000, 10, 14_990)}
	for name, c := range map[string]struct {
		run  *metadata.Run
		want bool
	}{
		"as good, of fewer":  {endedRun(500, 1, 19_499), false},
		"without a failure":  {endedRun(500, 0, 19_500), false},
		"nothing was run":    {endedRun(0, 0, 20_000), false},
		"a tenth has failed": {endedRun(450, 50, 19_500), true},
	} {
		if got := isWorse(trial.Variant{Run: c.run}, base); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// endedRun is a run with some answers and failures that was ended before the rest.
func endedRun(answered, failed, rest int) *metadata.Run {
	run := &metadata.Run{Manifest: &proto.Manifest{}}
	run.Results.SuccessCount, run.Results.FailureCount = answered, failed+rest
	run.Results.NotSentCount = rest
	return run
}
