package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// tmuxPane is a pane of tmux.
type tmuxPane struct {
	t   *testing.T
	dir string
}

// openTmuxPane starts a shell command in a terminal. The file raw keeps the command's output with
// its escape sequences.
func openTmuxPane(t *testing.T, width, height int, env []string, command string) tmuxPane {
	t.Helper()

	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed: the progress display in a terminal is not tested")
	}

	dir, err := os.MkdirTemp("", "pm") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}

	term := tmuxPane{t, dir}
	t.Cleanup(func() {
		term.tmux("kill-server")
		os.RemoveAll(dir)
	})

	script := fmt.Sprintf("cd %s; until [ -e go ]; do sleep 0.05; done\n%s\necho exit $?\nexec sleep 120", dir, command)
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}

	args := []string{"new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height)}
	for _, e := range append(env, "PROMPTMILL_STATE="+dir+"/state", "PATH="+os.Getenv("PATH")) {
		args = append(args, "-e", e)
	}

	term.tmux(append(args, "sh "+dir+"/script")...)
	term.tmux("pipe-pane", "-O", "cat >"+dir+"/raw")

	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	return term
}

func (term tmuxPane) tmux(args ...string) string {
	term.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-u", "-f", "/dev/null", "-S", term.dir + "/tmux"}, args...)...).
		CombinedOutput()
	if err != nil {
		term.t.Errorf("tmux %s: %v: %s", args, err, out)
	}
	return string(out)
}

// see waits until the pane shows a pattern, and returns its lines. No block may be torn on the
// way.
func (term tmuxPane) see(pattern string) []string {
	term.t.Helper()
	return term.seeWithin(pattern)
}

// seeWithin is see, with arguments for tmux that choose the lines.
func (term tmuxPane) seeWithin(pattern string, args ...string) []string {
	term.t.Helper()

	wanted := regexp.MustCompile(pattern)
	var screen string
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		screen = strings.TrimRight(term.tmux(append([]string{"capture-pane", "-p"}, args...)...), "\n")
		if wanted.MatchString(screen) {
			return strings.Split(screen, "\n")
		}

		if time.Now().After(end) {
			term.t.Fatalf("no %q:\n%s", pattern, screen)
		}
	}
}

var (
	headline  = regexp.MustCompile(`^in\.jsonl  (█*░*  )?\d+%  [\d,]+/[\d,]+  (elapsed \S+  )?\S.*$`)
	ratesLine = regexp.MustCompile(
		`^  (failed [\d,]+  )?(retried [\d,]+  )?[\d.,]+ req/s  [\d.,]+ tok/s in  [\d.,]+ out  \d+ in flight$`,
	)
	rowLine = regexp.MustCompile(`^  \S+  simulated vLLM  \d+(/\d+)?  [\d.,]+ req/s  [\d.,]+ tok/s`)
)

// whole fails unless the lines end in one whole block of some lines, and hold no other.
func (term tmuxPane) whole(lines []string, width, rows int) {
	term.t.Helper()

	bad := len(lines) < rows
	for i, l := range lines {
		at := i - (len(lines) - rows)
		bad = bad || terminal.TextWidth(l) >= width && at >= 0
		bad = bad || headline.MatchString(l) != (at == 0) || at == rows-1 && !rowLine.MatchString(l) ||
			at == 1 && rows == 3 && !ratesLine.MatchString(l)
	}

	if bad {
		term.t.Errorf("no whole block in %d columns:\n%s", width, strings.Join(lines, "\n"))
	}
}

// The live block in a real terminal: narrow, wide, made narrow while it stands, with log
// lines that come between; and in the end it is gone.
func TestTerminal(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := filepath.Join(c.dir, c.input("in.jsonl", 1500))
	run := "echo $$ >pid; exec promptmill run " + in +
		" -o out.jsonl.zst --sim --concurrency 16 --sim-ttft 100ms --sim-faults 503=0.02,context=0.01 --verbose"
	term := openTmuxPane(t, 80, 24, []string{"NO_COLOR=", "TERM=tmux"}, "sh -c '"+run+"'")
	term.whole(term.see(`failed [\s\S]* tok/s\s*$`), 80, 3)
	term.tmux("resize-window", "-x", "200", "-y", "24")
	term.whole(term.see(`in\.jsonl  [█░]{100,}  .*\n  failed .* in flight\n.* tok/s\s*$`), 200, 3)
	term.tmux("resize-window", "-x", "80", "-y", "24")
	term.whole(term.see(`left \d+(-\d+)? s\n  failed .*\n.* tok/s\s*$`), 80, 3)

	text, err := os.ReadFile(filepath.Join(term.dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}

	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}

	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}

	term.see(`\d\d:\d\d:\d\d  in\.jsonl  \d+%`)

	lines := term.see(`exit 3`)
	for _, l := range lines {
		if headline.MatchString(l) || rowLine.MatchString(l) {
			t.Errorf("the block is still there:\n%s", strings.Join(lines, "\n"))
			break
		}
	}

	raw, err := os.ReadFile(filepath.Join(term.dir, "raw"))
	if err != nil {
		t.Fatal(err)
	}

	if !strings.Contains(string(raw), terminal.Red+"failed ") {
		t.Error("failed requests are not red")
	}
}

// The terminal becomes narrower and wider while the block stands: the line above stays. Rows of an old block
// stay only in the history of tmux, which takes them out of reach.
func TestTerminalResize(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := filepath.Join(c.dir, c.input("in.jsonl", 5000))
	term := openTmuxPane(t, 80, 40, []string{"NO_COLOR=", "TERM=tmux"},
		"promptmill run "+in+" -o out.jsonl.zst --sim --concurrency 4 --sim-ttft 100ms")
	term.see(`read now .*\nin\.jsonl  .*\n.* in flight\n.* tok/s\s*$`)

	for _, widths := range [][]int{
		{40, 80},
		{40, 200},
		{60, 80},
		{50, 200, 60, 79, 41, 80},
	} {
		for _, width := range widths {
			term.tmux("resize-window", "-x", strconv.Itoa(width), "-y", "40")
			// The rates at the end of the block are cut where there are few columns.
			room := width - 1
			// A narrower terminal scrolls the lines above out of sight.
			term.seeWithin(fmt.Sprintf(`read now  zstd -dc out\.part\.zst\n(in\.jsonl  [^\n]*\n([^\n]*\n)*)?`+
				`in\.jsonl  [^\n]{%d,%d}\n  [\d.,]+ req/s[^\n]*\n  \S+  simulated vLLM[^\n]*\s*\z`, room/2-9, room-9), "-S", "-")
		}
	}
}

// A dumb terminal gets plain lines, and with NO_COLOR there is a block without colours.
func TestPlainTerminal(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		env  []string
		want string // the first character of the escape sequences
	}{
		"dumb":      {[]string{"NO_COLOR=", "TERM=dumb"}, ""},
		"no colour": {[]string{"NO_COLOR=1", "TERM=tmux"}, "cursor"},
		"colour":    {[]string{"NO_COLOR=", "TERM=tmux"}, "colour cursor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			command := newCommand(t)
			in := filepath.Join(command.dir, command.input("in.jsonl", 1000))
			// tmux sets TERM itself.
			term := openTmuxPane(t, 80, 24, c.env,
				c.env[1]+" promptmill run "+in+" -o out.jsonl.zst --sim --concurrency 16 --sim-ttft 0s --sim-tpot 1ms")
			term.see(`done: 1,000 answered[\s\S]*exit 0`)

			raw, err := os.ReadFile(filepath.Join(term.dir, "raw"))
			if err != nil {
				t.Fatal(err)
			}

			var got []string
			for kind, sequence := range map[string]string{"colour": `\x1b\[\d*m`, "cursor": `\x1b\[\d*[AJK]`} {
				if regexp.MustCompile(sequence).Match(raw) {
					got = append(got, kind)
				}
			}

			slices.Sort(got)
			if strings.Join(got, " ") != c.want || c.want == "" && strings.Contains(string(raw), "\x1b") {
				t.Errorf("escape sequences for %q, want %q:\n%q", got, c.want, raw)
			}
		})
	}
}

// A shell stops the run, prints, resizes and continues it, in the background too: the block is drawn
// below all of that, and takes nothing away.
func TestJobControl(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("SKIPPED: bash is not installed: job control is not tested")
	}

	c := newCommand(t)
	in := filepath.Join(c.dir, c.input("in.jsonl", 3000))
	term := openTmuxPane(t, 80, 24, []string{"NO_COLOR=", "TERM=tmux"},
		"PS1='ready> ' exec bash --norc --noprofile -i")
	type keys = []string
	send := func(text ...string) { term.tmux(append(keys{"send-keys"}, text...)...) }

	term.see(`ready>\s*$`)
	send("promptmill run "+in+" -o out.jsonl.zst --sim --concurrency 8; echo ended $?", "Enter")
	term.see(`in flight\n.* tok/s\s*$`)

	// Stopped, and continued in a wider terminal.
	send("C-z")
	term.see(`Stopped[\s\S]*ready>\s*$`)
	send("echo said $((6 * 7))", "Enter")
	term.see(`said 42\nready>\s*$`)
	term.tmux("resize-window", "-x", "120", "-y", "40")
	send("fg", "Enter")
	lines := term.see(`said 42\nready> fg\n.*promptmill run[^\n]*\n(\S*\n)?in\.jsonl  [█░]+ .*\n.* in flight\n.* tok/s\s*$`)
	if blocks := countMatches(headline, lines); blocks > 2 { // as it was stopped, and as it is now
		t.Errorf("%d blocks:\n%s", blocks, strings.Join(lines, "\n"))
	}

	// In the background it draws nothing, where the terminal stops background jobs that write, too.
	send("C-z")
	term.see(`Stopped[\s\S]*Stopped[\s\S]*ready>\s*$`)
	send("stty tostop; bg", "Enter")
	term.see(`ready> stty.*\n.*&\nready>\s*$`)
	send("sleep 1; jobs; echo said $((7 * 7))", "Enter")
	term.see(`ready> stty.*\n.*&\nready> sleep.*\n.*Running[^\n]*\n(.*\n)?said 49\nready>\s*$`)
	send("fg", "Enter")
	term.see(`said 49\nready> fg\n.*promptmill run[^\n]*\n(\S*\n)?in\.jsonl  [█░]+ .*\n.* in flight\n.* tok/s\s*$`)
	send("C-c")
	term.see(`have their line[\s\S]*ready>\s*$`)
}

// countMatches returns the number of lines that match a pattern.
func countMatches(pattern *regexp.Regexp, lines []string) (n int) {
	for _, l := range lines {
		if pattern.MatchString(l) {
			n++
		}
	}
	return n
}
