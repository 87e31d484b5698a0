package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/promptmill/promptmill/collector/trial"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/worker/sim"
)

// mortalTrial is a trial of two settings of a simulated server, whose process is killed.
type mortalTrial struct {
	command

	args  []string
	kills int
	// ended has the metadata of the variants that had ended when the process was killed, by the paths.
	ended map[string][]byte
}

// The names of the files of its variants.
const (
	slowSlug = "t.trial/01-slots=2"
	fastSlug = "t.trial/02-slots=8"
)

// newMortalTrial returns a trial of a small input that has not begun. The servers log what they answer in a file for
// each variant.
func newMortalTrial(t *testing.T, more ...string) *mortalTrial {
	t.Helper()

	c := newCommand(t)
	server := "promptmill sim --listen 127.0.0.1:{port} --model {model} --sim-slots {slots} --sim-tpot 1ms --sim-ttft 20ms " +
		"--sim-load 1s --sim-log " + filepath.Join(c.dir, "answers-{slots}")

	return &mortalTrial{
		command: c,
		ended:   map[string][]byte{},
		args: append([]string{
			"trial", c.input("in.jsonl", 4000), "-o", "t", "--model", "org/small", "--exec", server, "--vary", "slots=2,8",
			"--precision", "30%", "--budget", "30s", "--concurrency", "16", "--progress", "plain",
		}, more...),
	}
}

// die starts the trial, kills it once a moment has come, and proves that nothing of it works on.
func (m *mortalTrial) die(t *testing.T, moment func(*mortalTrial) bool) {
	t.Helper()

	cmd, out := m.startAs(nil, m.args...)
	over := make(chan struct{})
	go func() {
		defer close(over)
		cmd.Wait()
	}()

	poll(t, patience, "the moment", func() bool {
		select {
		case <-over:
			t.Fatalf("the trial was done before it was killed:\n%s", out)
		default:
		}
		return moment(m)
	})
	cmd.Process.Kill()
	<-over
	m.kills++

	poll(t, pollTime, "the end of all that was started", func() bool { return len(m.alive()) == 0 })

	for _, v := range m.record().Variants {
		if path := "t.trial/" + v.Slug + ".meta.json"; v.State.HasEnded() && m.ended[path] == nil {
			m.ended[path] = []byte(m.read(path))
		}
	}
}

// finish runs the same command to its end, and proves that nothing was lost, done twice or swapped.
func (m *mortalTrial) finish(t *testing.T) {
	t.Helper()

	text, code := m.run(m.args...)
	if code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, text)
	}

	r := m.readTrial("t")
	if !r.Done || r.Chosen != "slots=8" || len(r.Variants) != 2 || r.Input.Sample != 4000 || r.Input.Requests != 4000 {
		t.Errorf("done %t, chosen %q of %d variants, %d of %d requests were drawn",
			r.Done, r.Chosen, len(r.Variants), r.Input.Sample, r.Input.Requests)
	}

	for i, want := range []string{"slots=8", "slots=2"} {
		if row := r.Variants[i]; row.Name != want || !row.State.HasEnded() || row.State == trial.Failed {
			t.Errorf("place %d has %s, which is %s: %s", i+1, row.Name, row.State, row.Reason)
		}
	}

	for path, was := range m.ended {
		if !bytes.Equal(was, []byte(m.read(path))) {
			t.Errorf("%s is another one than when the process was killed", path)
		}
	}

	for i, slug := range []string{slowSlug, fastSlug} {
		m.must("verify", "t.trial/sample.jsonl", slug+".jsonl.zst", "--answers")
		m.checkAnswers(t, filepath.Join(m.dir, []string{"answers-2", "answers-8"}[i]), m.meta(slug).Results.SuccessCount)
	}

	if left := m.alive(); len(left) > 0 {
		t.Errorf("processes %v are left of a trial that is done", left)
	}
	if left, _ := filepath.Glob(filepath.Join(m.state, "*-*")); len(left) > 0 {
		t.Errorf("the state of a trial that is done is still there: %v", left)
	}
}

// checkAnswers compares the answers that a server has logged with those that the run of its variant has. Of those that
// were in flight at a death, and not stored yet, each was given again.
func (m *mortalTrial) checkAnswers(t *testing.T, log string, answered int) {
	t.Helper()

	times, again := map[string]int{}, 0
	for _, x := range readExchanges(t, log) {
		if x.Status != 200 || x.Aborted {
			continue
		}
		if times[x.Answer]++; times[x.Answer] > 1 {
			again++
		}
	}

	if len(times) < answered {
		t.Errorf("%s has %d answers, and the run has %d", log, len(times), answered)
	}
	if most := m.kills * 2 * 16; again > most {
		t.Errorf("%s has %d answers more than once, and at most %d were in flight", log, again, most)
	}
}

// readExchanges reads the log of a simulated server, whose last line may be torn.
func readExchanges(t *testing.T, path string) (list []sim.Exchange) {
	t.Helper()

	text, err := os.ReadFile(path)
	must(t, err)
	for line := range bytes.Lines(text) {
		var x sim.Exchange
		if json.Unmarshal(line, &x) == nil {
			list = append(list, x)
		}
	}

	return list
}

// answers returns the number of answers that the server of a variant has logged.
func (m *mortalTrial) answers(slots int) int {
	text, _ := os.ReadFile(filepath.Join(m.dir, fmt.Sprintf("answers-%d", slots)))
	return bytes.Count(text, []byte("\n"))
}

// trialRecord is what the tests read of the record of a trial.
type trialRecord struct {
	Rounds   int
	Variants []struct {
		Name, Slug     string
		State, Decided trial.State
		Rounds         []trial.Round
	}
}

// record returns the record of the trial; without one, an empty one.
func (m *mortalTrial) record() (r trialRecord) {
	text, err := os.ReadFile(filepath.Join(m.dir, "t.trial/trial.json"))
	if err != nil {
		return r
	}
	must(m.t, json.Unmarshal(text, &r))

	return r
}

// has reports whether the trial has a file.
func (m *mortalTrial) has(name string) bool { return files.Exists(filepath.Join(m.dir, name)) }

// first returns the state of the first variant, and how its end was decided.
func (m *mortalTrial) first() (state, decided trial.State) {
	r := m.record()
	if len(r.Variants) == 0 {
		return "", ""
	}
	return r.Variants[0].State, r.Variants[0].Decided
}

// slowScore is a command that takes two seconds for the answers of a variant, and notes that it has begun.
const slowScore = `cat > scored.$$; n=$(wc -l < scored.$$); if [ $n -gt 1 ]; then touch scoring; sleep 2; fi; yes 1 | head -n $n`

// A trial that is killed at any moment leaves no process behind, and the same command goes on with the variant that it
// was at. It finds what it would have found.
func TestTrialKilled(t *testing.T) {
	t.Parallel()

	moments := map[string]struct {
		args []string
		come func(*mortalTrial) bool
	}{
		"the sample is drawn": {
			come: func(m *mortalTrial) bool { return m.has("t.trial/sample.jsonl.tmp") },
		},
		"the first server loads": {
			come: func(m *mortalTrial) bool { return m.has("t.trial/servers/01-slots=2/server.log") },
		},
		"the first variant runs": {
			come: func(m *mortalTrial) bool { return m.answers(2) >= 100 },
		},
		"the first variant was decided": {
			come: func(m *mortalTrial) bool { _, decided := m.first(); return decided != "" },
		},
		"the run writes its files": {
			come: func(m *mortalTrial) bool { return m.has(slowSlug+".jsonl.zst.tmp") || m.has(slowSlug+".jsonl.zst") },
		},
		"the run has ended, and the record has not its end": {
			come: func(m *mortalTrial) bool { return m.has(slowSlug + ".meta.json") },
		},
		"the answers are judged": {
			args: []string{"--score", slowScore},
			come: func(m *mortalTrial) bool { return m.has("scoring") },
		},
		"the page is written": {
			come: func(m *mortalTrial) bool { state, _ := m.first(); return state == trial.Measured },
		},
		"the second variant runs": {
			come: func(m *mortalTrial) bool { return m.answers(8) >= 200 },
		},
		"one has its turn, and the other is paused": {
			args: []string{"--side-by-side"},
			come: func(m *mortalTrial) bool { return m.answers(2) > 0 && m.answers(8) > 50 },
		},
		"a round is over": {
			args: []string{"--side-by-side"},
			come: func(m *mortalTrial) bool { return m.record().Rounds > 0 },
		},
	}

	tests := map[string]func(*testing.T){}
	for name, moment := range moments {
		tests[name] = func(t *testing.T) {
			m := newMortalTrial(t, moment.args...)
			m.die(t, moment.come)
			m.finish(t)
		}
	}
	together(t, tests)
}

// trialSeeds is the environment variable with the number of trials that are killed at random moments.
const trialSeeds = "PROMPTMILL_TEST_TRIAL_SEEDS"

// A trial that is killed at random moments, several times, finds what it would have found.
func TestTrialKilledManyTimes(t *testing.T) {
	t.Parallel()

	seeds := 1
	if text := os.Getenv(trialSeeds); text != "" {
		var err error
		seeds, err = strconv.Atoi(text)
		must(t, err)
	}

	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()

			random := rand.New(rand.NewPCG(uint64(seed), 18))
			var more []string
			if seed%2 == 1 {
				more = []string{"--side-by-side"}
			}

			m := newMortalTrial(t, more...)
			for range 4 {
				end := time.Now().Add(time.Duration(random.IntN(6000)) * time.Millisecond)
				m.die(t, func(*mortalTrial) bool { return time.Now().After(end) })
			}
			m.finish(t)
		})
	}
}
