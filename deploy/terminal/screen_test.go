package terminal

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/exit"
)

// Log lines scroll above the block, and Close removes it.
func TestScreenBlock(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	width := 20
	s := New(Config{Out: &out, Mode: ModeBar, Size: func() (int, int) { return width, 4 }})
	s.SetRunShown(true)
	wrote := func(what, want string) {
		t.Helper()
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
		out.Reset()
	}

	s.Draw(Line{{Text: "one "}, {"red", Red}}, NewLine("two"), NewLine("three: has no room"))
	wrote("a block", "one red\x1b[K\ntwo\x1b[K\n")
	s.Printf("a message")
	wrote("a message", "\x1b[2A\r\x1b[Ja message\none red\x1b[K\ntwo\x1b[K\n\x1b[J")
	s.colour = true
	s.Draw(Line{{Text: "one "}, {"red", Red}}, NewLine("exactly twenty cells"))
	wrote("colours, and a line too long", "\x1b[2A\rone \x1b[31mred\x1b[0m\x1b[K\nexactly twenty cel…\x1b[K\n\x1b[J")
	width = 10
	s.Draw(NewLine("one"))
	wrote("what a narrower terminal has wrapped", "\x1b[3A\rone\x1b[K\n\x1b[J")
	s.Close()
	wrote("the end", "\x1b[1A\r\x1b[J")
	s.Close()
	wrote("the end again", "")
}

// Without a terminal or with NO_COLOR there are no escape sequences.
func TestOpenMode(t *testing.T) {
	t.Parallel()

	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	for _, c := range []struct {
		mode, noColour string
		want           Mode
	}{
		{"auto", "", ModePlain}, // no terminal
		{"bar", "", ModeBar},
		{"bar", "1", ModeBar},
	} {
		s, err := Open(file, c.mode, func(name string) string {
			return map[string]string{"NO_COLOR": c.noColour}[name]
		})
		if err != nil {
			t.Fatal(err)
		}

		if s.mode != c.want || s.colour != (c.noColour == "") {
			t.Errorf("%v: %s, colours %v", c, s.mode, s.colour)
		}
	}

	if _, err := Open(file, "fancy", os.Getenv); exit.Code(err) != exit.CodeUsage {
		t.Errorf("an unknown mode: %v", err)
	}
}

// JSON has escapes of its own, so a program reads the original text.
func TestPrintfJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	s := New(Config{Out: &b, Mode: ModeJSON})
	s.Printf("%s", "a\x1b[2J\u202eb")
	if want := `{"text":"a\u001b[2J` + "\u202e" + `b","type":"message"}` + "\n"; b.String() != want {
		t.Errorf("got %s, want %s", b.String(), want)
	}
}

func TestHasColour(t *testing.T) {
	t.Parallel()
	if HasColour(&bytes.Buffer{}, func(string) string { return "" }) {
		t.Error("a buffer shows colours")
	}
}
