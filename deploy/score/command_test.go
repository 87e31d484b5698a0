package score

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/promptmill/promptmill/collector/quality"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answersOf yields n answers with a text.
func answersOf(n int, text string) iter.Seq2[quality.Answer, error] {
	return func(yield func(quality.Answer, error) bool) {
		for i := range n {
			a := quality.Answer{CustomID: fmt.Sprint("c-", i), Request: []byte(`{"n":1}`), Text: text}
			if !yield(a, nil) {
				return
			}
		}
	}
}

// Each answer is one line, and each line of the command one score, in any of its forms.
func TestScore(t *testing.T) {
	t.Setenv("PROMPTMILL_SCORE", "again and again")

	expected := "<b>"
	answers := func(yield func(quality.Answer, error) bool) {
		for i, text := range []string{"a", "b\nc", "d", "e", "f"} {
			a := quality.Answer{CustomID: fmt.Sprint("c-", i), Request: []byte(`{"n": 1}`), Text: text}
			if i == 1 {
				a.Expected = &expected
			}
			if !yield(a, nil) {
				return
			}
		}
	}

	input := filepath.Join(t.TempDir(), "input")
	script := `tee ` + input + ` | wc -l >&2; printenv PROMPTMILL_SCORE >&2
		printf '1\n0.25\n true\r\n{"why":[1],"score":false}\n{"score":5e-1}'`

	var printed []string
	c := Command{Script: script, Print: func(line string) { printed = append(printed, strings.TrimSpace(line)) }}
	got, err := c.Score(t.Context(), answers)
	if err != nil || !slices.Equal(got, []float64{1, 0.25, 1, 0, 0.5}) {
		t.Errorf("%v, %v", got, err)
	}
	if !slices.Equal(printed, []string{"5"}) {
		t.Errorf("standard error %q", printed)
	}

	text, err := os.ReadFile(input)
	want := `{"custom_id":"c-0","request":{"n":1},"answer":"a"}` + "\n" +
		`{"custom_id":"c-1","request":{"n":1},"answer":"b\nc","expected":"<b>"}` + "\n"
	if err != nil || !strings.HasPrefix(string(text), want) {
		t.Errorf("input %s, %v; want it to begin with %s", text, err, want)
	}
}

// A command may answer line by line or read all first, and texts that are far larger than any pipe pass.
func TestScoreLarge(t *testing.T) {
	t.Parallel()

	const n = 400
	text := strings.Repeat("x", 100_000)
	explained := `{"score":1,"why":"` + strings.Repeat("y", 10_000) + `"}`
	for name, script := range map[string]string{
		"line by line":                "awk -v explained='" + explained + "' '{ print explained; fflush() }'",
		"all first":                   "awk -v explained='" + explained + "' '{ n++ } END { while (n-- > 0) print explained }'",
		"with much on standard error": "awk -v explained='" + explained + "' '{ print explained; fflush() }' | tee /dev/stderr",
		"a process is left behind":    "sleep 3 >/dev/null 2>&1 </dev/null & sed 's/.*/1/'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := Command{Script: script}
			scores, err := c.Score(t.Context(), answersOf(n, text))
			if err != nil || len(scores) != n || slices.Min(scores) != 1 {
				t.Errorf("%d scores, %v", len(scores), err)
			}
		})
	}
}

// What is wrong with a command is said in words.
func TestScoreRefused(t *testing.T) {
	t.Parallel()

	const large = 100_000 // more than a pipe holds
	for _, tt := range []struct {
		script string
		answer int // the length of each answer
		want   string
	}{
		{"cat >/dev/null", 1, "the command printed 0 lines for 3 answers; it must print one score for each"},
		{"cat >/dev/null; echo 1; echo 1", 1, "the command printed 2 lines for 3 answers"},
		{"cat >/dev/null; for i in 1 2 3 4; do echo 0.$i; done", 1,
			`line 4 of the command's output, "0.4", is one too many: the command got 3 answers`},
		{"yes 1", large, "is one too many"},
		{"sed 's/.*/True/'", 1, `line 1 of the command's output, "True", is not JSON; print a number from 0 to 1`},
		{"cat >/dev/null; echo 1; echo", 1, `line 2 of the command's output, "", is not JSON`},
		{"sed 's/.*/7/'", 1, `line 1 of the command's output, "7", is not from 0 to 1; divide`},
		{"sed 's/.*/-0.1/'", 1, "is not from 0 to 1"},
		{"sed 's/.*/1e999/'", 1, "is not from 0 to 1"},
		{"sed 's/.*/NaN/'", 1, "is not JSON"},
		{`sed 's/.*/"1"/'`, 1, "is no score"},
		{"sed 's/.*/null/'", 1, "is no score"},
		{"sed 's/.*/[1]/'", 1, "is no score"},
		{`sed 's/.*/{"score":"1"}/'`, 1, "is no score"},
		{`sed 's/.*/{"grade":1}/'`, 1, `has no "score"`},
		{"cat", 1, `has no "score"`},
		{"cat | tr -d '\\n'", maxLine, "line 1 of the command's output is longer than 1024 KiB"},
		{"cat >/dev/null; echo one >&2; echo; for i in 2 3 4 5 6; do echo $i >&2; done; exit 3", 1, "is not JSON"},
		{"cat >/dev/null; for i in 1 2 3 4 5 6; do echo $i >&2; done; exit 3", 1,
			"the command ended with exit status 3:\n  2\n  3\n  4\n  5\n  6"},
		{"exit 4", large, "the command ended with exit status 4, and printed nothing on standard error"},
		{"no-such-command-of-anyone", 1, "exit status 127:\n  /bin/sh"},
		{"kill -9 $$", 1, "signal: killed"},
		{"true", large, "the command ended before it had read all answers"},
		{"read -r line; echo 1", large, "the command ended before it had read all answers"},
	} {
		c := Command{Script: tt.script}
		scores, err := c.Score(t.Context(), answersOf(3, strings.Repeat("x", tt.answer)))
		if err == nil || !strings.Contains(err.Error(), tt.want) || scores != nil {
			t.Errorf("%s: %v, %v, want %s", tt.script, scores, err, tt.want)
		}
	}
}

// A command that does nothing is stopped, with all its processes; so is one whose context ends, and one whose answers
// cannot be read.
func TestScoreStopped(t *testing.T) {
	t.Parallel()

	errEnd := errors.New("the end")
	broken := func(yield func(quality.Answer, error) bool) { yield(quality.Answer{}, errEnd) }

	for name, tt := range map[string]struct {
		patience time.Duration
		answers  iter.Seq2[quality.Answer, error]
		isEnded  bool // the context ends once the command has begun
		want     string
	}{
		"idle":           {50 * time.Millisecond, answersOf(3, strings.Repeat("x", 100_000)), false, "for 50ms"},
		"ended":          {time.Hour, answersOf(3, "x"), true, errEnd.Error()},
		"ended, large":   {time.Hour, answersOf(300, strings.Repeat("x", 100_000)), true, errEnd.Error()},
		"broken answers": {time.Hour, broken, false, errEnd.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			pid := filepath.Join(t.TempDir(), "pid")
			c := Command{
				Script:   "sleep 1000 & echo $! >" + pid + ".new; mv " + pid + ".new " + pid + "; wait",
				Patience: tt.patience,
			}

			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if tt.isEnded {
				go func() {
					readPID(t, pid)
					cancel(errEnd)
				}()
			}

			if _, err := c.Score(ctx, tt.answers); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}

			if _, err := os.Stat(pid); err == nil { // it may be stopped before it has begun
				awaitDeath(t, readPID(t, pid))
			}
		})
	}
}

// patience is far longer than anything takes: the machine may be busy.
const patience = 3 * time.Minute

// poll waits until a condition is true.
func poll(t *testing.T, what string, is func() bool) {
	t.Helper()

	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("after %s still waiting for %s", patience, what)
			return
		}
	}
}

// readPID waits for a file with the id of a process.
func readPID(t *testing.T, path string) (pid int) {
	t.Helper()
	poll(t, "the process", func() bool {
		text, err := os.ReadFile(path)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil
	})

	return pid
}

// awaitDeath waits until there is no process of an id, but for one that nothing waits for.
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	poll(t, "the end of the command's process", func() bool {
		if syscall.Kill(pid, 0) != nil {
			return true
		}

		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))

		return err == nil && strings.Contains(string(state), ") Z ")
	})
}

// A command is tried with one answer, which is the expected one.
func TestCheckCommand(t *testing.T) {
	t.Parallel()

	c := Command{Script: `grep -c '"answer":"42","expected":"42"}$'`}
	if err := c.Check(t.Context(), true); err != nil {
		t.Error(err)
	}

	c = Command{Script: `grep -c '"answer":"42"}$'`}
	if err := c.Check(t.Context(), false); err != nil {
		t.Error(err)
	}

	c = Command{Script: "echo no idea >&2; false"}
	want := "it was tried with one made-up answer: the command ended with exit status 1:\n  no idea"
	if err := c.Check(t.Context(), true); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// The manual's scorer in Python gives the share of the expected words.
func TestManualScorer(t *testing.T) {
	t.Parallel()

	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}

	manual, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}

	_, after, found := strings.Cut(string(manual), "```python\n# score.py")
	program, _, ended := strings.Cut("#"+after, "```")
	if !found || !ended {
		t.Fatal("the manual has no score.py")
	}

	path := filepath.Join(t.TempDir(), "score.py")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}

	wanted := []string{"Refund, please", "one Two", "bug"}
	answers := func(yield func(quality.Answer, error) bool) {
		for i, text := range []string{"refund please", "two of them", ""} {
			if !yield(quality.Answer{Request: []byte("{}"), Text: text, Expected: &wanted[i]}, nil) {
				return
			}
		}
	}

	c := Command{Script: python + " " + path}
	if err := c.Check(t.Context(), true); err != nil {
		t.Error(err)
	}

	if got, err := c.Score(t.Context(), answers); err != nil || !slices.Equal(got, []float64{1, 0.5, 0}) {
		t.Errorf("%v, %v", got, err)
	}
}

// FuzzScores ensures that whatever a command prints, in whatever pieces, is refused or a score a line.
func FuzzScores(f *testing.F) {
	for _, text := range []string{"1\n0.5\ntrue\n", `{"score":0.1}`, "\n", "-0", "1e-400", `{"score":1,"score":0}`, "\xff", "{"} {
		f.Add([]byte(text), 1, 5)
	}

	f.Fuzz(func(t *testing.T, text []byte, step, answers int) {
		read := func(step int) ([]float64, error) {
			ctx, stop := context.WithCancelCause(context.Background())
			defer stop(nil)

			r := &scoreReader{sent: &sentCounter{}, stop: stop, read: func() {}}
			for range answers % 100 {
				r.sent.add()
			}

			for rest := text; len(rest) > 0 && !r.isBad; {
				n := min(step, len(rest))
				r.Write(rest[:n])
				rest = rest[n:]
			}
			r.flush()

			return r.list, context.Cause(ctx)
		}

		whole, err := read(len(text) + 1)
		pieces, errPieces := read(max(1, step))
		if !slices.Equal(whole, pieces) || fmt.Sprint(err) != fmt.Sprint(errPieces) {
			t.Errorf("%v, %v; in pieces %v, %v", whole, err, pieces, errPieces)
		}

		for _, score := range whole {
			if !(score >= 0 && score <= 1) || math.Signbit(score) {
				t.Errorf("score %v", score)
			}
		}

		var scan jsonscan.Scanner
		if lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"); err == nil && len(text) > 0 {
			for i, line := range lines {
				if score, problem := parseScore(&scan, []byte(line)); problem != "" || score != whole[i] {
					t.Errorf("line %d, %q: %v, %s", i+1, line, score, problem)
				}
			}
		}
	})
}
