package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

	wanted := regexp.MustCompile(pattern)
	var screen string
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		screen = strings.TrimRight(term.tmux("capture-pane", "-p"), "\n")
		if wanted.MatchString(screen) {
			return strings.Split(screen, "\n")
		}

		if time.Now().After(end) {
			term.t.Fatalf("no %q:\n%s", pattern, screen)
		}
	}
}

var (
	headline  = regexp.MustCompile(`^in\.jsonl  (█*░*  )?\d+%  [\d,]+/[\d,]+  \S.*$`)
	ratesLine = regexp.MustCompile(
		`^  (failed [\d,]+  )?(retried [\d,]+  )?[\d.,]+ req/s  [\d.,]+ tok/s in  [\d.,]+ out  \d+ in flight$`,
	)
	rowLine = regexp.MustCompile(`^  \S+  vLLM  \d+(/\d+)?  [\d.,]+ req/s  [\d.,]+ tok/s`)
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
	term.whole(term.see(`in\.jsonl .* failed .* in flight\n.* tok/s\s*$`), 200, 2)
	term.tmux("resize-window", "-x", "80", "-y", "24")
	term.whole(term.see(`left \d+s(-\d+s)?\n  failed .*\n.* tok/s\s*$`), 80, 3)

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

// Terminals without escape sequences, and users without colours, get plain
// lines.
func TestPlainTerminal(t *testing.T) {
	t.Parallel()

	for name, env := range map[string][]string{
		"dumb":      {"NO_COLOR=", "TERM=dumb"},
		"no colour": {"NO_COLOR=1", "TERM=tmux"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := newCommand(t)
			in := filepath.Join(c.dir, c.input("in.jsonl", 1000))
			// tmux sets TERM itself.
			term := openTmuxPane(t, 80, 24, env,
				env[1]+" promptmill run "+in+" -o out.jsonl.zst --sim --concurrency 16 --sim-ttft 0s --sim-tpot 1ms")
			term.see(`done: 1000 answered[\s\S]*exit 0`)

			raw, err := os.ReadFile(filepath.Join(term.dir, "raw"))
			if err != nil {
				t.Fatal(err)
			}

			if strings.Contains(string(raw), "\x1b") {
				t.Errorf("escape sequences:\n%q", raw)
			}
		})
	}
}
