package terminal

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrap(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		name, text string
		width      int
		want       string
	}{
		{"it fits", "one two", 8, "one two"},
		{"the last cell stays free", "one two", 7, "one\n  two"},
		{"several lines", "one two three four", 10, "one two\n  three\n  four"},
		{"an indented line", "  29 x HTTP 400: too long", 16, "  29 x HTTP\n    400: too\n    long"},
		{"a label", "  bus     in this process", 24, "  bus     in this\n          process"},
		{"spaces are kept", "a b  c", 20, "a b  c"},
		{"a word longer than a line stays where it is", "open /a/very/long/path: denied", 14,
			"open /a/very/long/path:\n  denied"},
		{"wide characters", "日本語 日本語 日本語", 13, "日本語\n  日本語\n  日本語"},
		{"accents take no cell", "e\u0301e\u0301e\u0301 e\u0301e\u0301", 7, "e\u0301e\u0301e\u0301 e\u0301e\u0301"},
		{"a command", "see " + keepTogether("cat a b") + " there", 11, "see\n  cat a b\n  there"},
		{"nothing", "", 10, ""},
		{"a single cell", "one two", 1, "one two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			var got []string
			for _, l := range NewLine(c.text).wrap(c.width) {
				got = append(got, l.String())
			}

			if diff := cmp.Diff(c.want, strings.Join(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A broken line keeps its colours and all of its words.
func FuzzWrap(f *testing.F) {
	f.Add("stopping: ", "finishing the requests in flight", uint8(20))
	f.Add("  bus     ", "日本語 e\u0301", uint8(12))
	f.Add("", " ", uint8(0))

	f.Fuzz(func(t *testing.T, first, second string, width uint8) {
		line := Line{{Text: Printable(first), Colour: Red}, {Text: Printable(second)}}
		var red, all []string
		for _, l := range line.wrap(int(width)) {
			for _, s := range l {
				all = append(all, s.Text)
				if s.Colour == Red {
					red = append(red, s.Text)
				}
			}
			all = append(all, " ")
		}

		squeeze := func(parts ...string) string {
			return strings.ReplaceAll(strings.Join(parts, ""), " ", "")
		}
		if got, want := squeeze(all...), squeeze(line[0].Text, line[1].Text); got != want {
			t.Errorf("%q is broken into %q", want, got)
		}
		if got, want := squeeze(red...), squeeze(line[0].Text); got != want {
			t.Errorf("%q is red, want %q", got, want)
		}
	})
}
