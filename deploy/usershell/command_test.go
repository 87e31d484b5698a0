package usershell

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheck(t *testing.T) {
	t.Parallel()

	for script, want := range map[string]string{
		"true": "", "a | b && c; d &": "", "for i in 1 2; do echo $i; done": "",
		" ":       "the command is empty",
		"echo 'x": "the shell cannot read it at character 6: reached EOF without closing quote `'`",
	} {
		got := ""
		if err := Check(script); err != nil {
			got = err.Error()
		}

		if got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
	}
}

// The container image has no shell: its commands are refused before anything begins.
func TestCheckShell(t *testing.T) {
	t.Parallel()

	if err := CheckShell(); err != nil {
		t.Error(err)
	}
	if err := checkShell(filepath.Join(t.TempDir(), "sh")); !errors.Is(err, ErrNoShell) {
		t.Errorf("%v, want %v", err, ErrNoShell)
	}
}

// Lines of any length and bytes are texts.
func FuzzLines(f *testing.F) {
	f.Add("a\nb\r\n\n\xff", 2)
	f.Add(strings.Repeat("x", 3*maxLine), 100)
	f.Fuzz(func(t *testing.T, text string, n int) {
		var lines []string
		w := &Lines{Print: func(line string) { lines = append(lines, line) }}
		for i := 0; i < len(text); {
			part := text[i:min(len(text), i+1+max(0, n)%1000)]
			w.Write([]byte(part))
			i += len(part)
		}

		w.Flush()

		for _, line := range lines {
			if line == "" || len(line) > 2*maxLine || strings.Contains(line, "\n") {
				t.Errorf("line %q", line)
			}
		}

		if len(lines) > strings.Count(text, "\n")+1 {
			t.Errorf("%d lines of %q", len(lines), text)
		}
	})
}
