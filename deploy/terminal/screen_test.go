package terminal

import (
	"bytes"
	"errors"
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

	s.Draw(Line{{Text: "one "}, {Text: "red", Colour: Red}}, NewLine("two"), NewLine("three: has no room"))
	wrote("a block", "\x1b[?7lone red\x1b[K\ntwo\x1b[K\n\x1b[?7h")
	s.Printf("a message")
	wrote("a message", "\x1b[2A\r\x1b[2K\x1b[B\x1b[2K\x1b[B\x1b[2A\ra message\n\x1b[?7lone red\x1b[K\ntwo\x1b[K\n\x1b[?7h\x1b[J")
	s.colour = true
	s.Draw(Line{{Text: "one "}, {Text: "red", Colour: Red}}, NewLine("exactly twenty cells"))
	wrote("colours, and a line too long",
		"\x1b[2A\r\x1b[?7lone \x1b[31mred\x1b[0m\x1b[K\nexactly twenty cel…\x1b[K\n\x1b[?7h\x1b[J")
	width = 10
	s.Draw(NewLine("one"))
	wrote("what a narrower terminal may have wrapped", "\x1b[2A\r\x1b[2K\x1b[B\x1b[2K\x1b[B\x1b[2A\r\x1b[?7lone\x1b[K\n\x1b[?7h\x1b[J")
	width, s.reflows = 20, true
	s.Draw(NewLine("exactly twenty cells"), NewLine("two"))
	wrote("a wider terminal", "\x1b[1A\r\x1b[2K\x1b[B\x1b[1A\r\x1b[?7lexactly twenty cel…\x1b[K\ntwo\x1b[K\n\x1b[?7h\x1b[J")
	width = 10
	s.Draw(NewLine("one"))
	wrote("what a narrower terminal has wrapped", "\x1b[3A\r\x1b[2K\x1b[B\x1b[2K\x1b[B\x1b[2K\x1b[B\x1b[3A\r\x1b[?7lone\x1b[K\n\x1b[?7h\x1b[J")
	s.Close()
	wrote("the end", "\x1b[1A\r\x1b[J")
	s.Close()
	wrote("the end again", "")
	s.Draw(NewLine("one"))
	s.Printf("the end")
	wrote("a block after the end", "the end\n")
}

// Without a terminal there is a live block only if it is asked for, and never a colour.
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

		if s.mode != c.want || s.colour {
			t.Errorf("%v: %s, colours %v", c, s.mode, s.colour)
		}
	}

	if _, err := Open(file, "fancy", os.Getenv); exit.Code(err) != exit.CodeUsage {
		t.Errorf("an unknown mode: %v", err)
	}
}

// A tmux wraps lines again at a resize. A terminal that was started in one inherits its variables.
func TestReflows(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		term, tmux, sty string
		want            bool
	}{
		{"tmux-256color", "/tmp/tmux,1,0", "", true},
		{"screen", "/tmp/tmux,1,0", "", true},
		{"screen", "/tmp/tmux,1,0", "1.pts", false},
		{"xterm-256color", "/tmp/tmux,1,0", "", false},
		{"screen", "", "1.pts", false},
	} {
		got := reflows(func(name string) string {
			return map[string]string{"TERM": c.term, "TMUX": c.tmux, "STY": c.sty}[name]
		})
		if got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
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

// Messages and log lines are broken between words, with their levels in colour.
func TestScreenBreaksLines(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	s := New(Config{Out: &out, Colour: true, Size: func() (int, int) { return 30, 24 }})
	s.Printf("stopping: finishing %d requests in flight, at most %s", 3, "30s")
	s.Printf("to add a box:\n  %s", Command("promptmill worker --join pm1_abcdefgh"))
	s.Write([]byte("15:04:05 WRN the model server is away; retrying\n15:04:05 INF fine\n"))
	s.Print(Line{{Text: "  read now  ", Colour: Dim}, {Text: "zstd -dc a-file-with-a-long-name.part.zst", Whole: true}})

	want := `stopping: finishing 3
  requests in flight, at most
  30s
to add a box:
  promptmill worker --join pm1_abcdefgh
15:04:05` + "\x1b[33m WRN \x1b[0m" + `the model server
  is away; retrying
15:04:05 INF fine
` + "\x1b[2m  read now  \x1b[0m" + `zstd -dc a-file-with-a-long-name.part.zst
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// A background job writes its messages, and leaves what else is on the terminal alone.
func TestScreenInBackground(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	background := false
	s := New(Config{Out: &out, Mode: ModeBar, Background: func() bool { return background }})
	s.SetRunShown(true)
	s.Draw(NewLine("a block"))
	background = true
	s.Printf("a message")
	s.Draw(NewLine("a block"))
	background = false
	s.Draw(NewLine("a new block"))

	if diff := cmp.Diff("\x1b[?7la block\x1b[K\n\x1b[?7ha message\n\x1b[?7la new block\x1b[K\n\x1b[?7h", out.String()); diff != "" {
		t.Error(diff)
	}
}

// The command line of a hint can be copied: it has no line break, also where it has no room in a line.
func TestPrintErrorKeepsCommand(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	screen := New(Config{
		Out:  &out,
		Size: func() (int, int) { return 40, 24 },
	})

	screen.printError(exit.WithCommand(errors.New("this is not what was expected"), "convert it, and give b: ",
		"convert --from a --to b --slowly --with=care 'it is'"))

	want := "promptmill: error: this is not what was\n  expected\n" +
		"promptmill: hint: convert it, and give\n" +
		"  b: convert --from a --to b --slowly --with=care 'it is'\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestPrintError(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	PrintError(&out, exit.Usage("do it\x1b[2J", "no good\nat all"))
	want := "promptmill: error: no good\nat all\npromptmill: hint: do it?[2J\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
