package terminal

import (
	"testing"
	"time"
)

func TestLineWidth(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		text  string
		cells int
		cut   string // to 5 cells
	}{
		{"abcde", 5, "abcde"},
		{"abcdef", 6, "abcd…"},
		{"日本語", 6, "日本…"},
		{"a日本語", 7, "a日…"},                      // half a character has no room
		{"e\u0301e\u0301", 2, "e\u0301e\u0301"}, // combining
		{"█░█░█░", 6, "█░█░…"},
		{"ab👋cd", 6, "ab👋…"},
		{"abc👩‍👩‍👧", 5, "abc👩‍👩‍👧"}, // one picture of several characters
		{"abc👩‍👩‍👧d", 6, "abc…"},
	} {
		if got := NewLine(c.text).Width(); got != c.cells {
			t.Errorf("%q is %d cells wide, want %d", c.text, got, c.cells)
		}
		if got := NewLine(c.text).cut(5).String(); got != c.cut {
			t.Errorf("%q is cut to %q, want %q", c.text, got, c.cut)
		}
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ text, want string }{
		{"plain text, žluťoučký 你好 👋", "plain text, žluťoučký 你好 👋"},
		{"a\tb\r\nc\u3000d\u00a0e\u2028f", "a b  c d e f"},
		{"a\x1b[31mb\x00\x7f\u009b\u202e\u2066\ufeff", "a?[31mb??????"},
		{"half a \xe4\xbd", "half a \ufffd\ufffd"},
	} {
		if got := Printable(tt.text); got != tt.want {
			t.Errorf("%q is printed %q, want %q", tt.text, got, tt.want)
		}
	}

	if got := PrintableLines("a\n\x1bb\r\n"); got != "a\n?b \n" {
		t.Errorf("lines are printed %q", got)
	}
}

func TestFormatCount(t *testing.T) {
	t.Parallel()

	for n, want := range map[int]string{
		0: "0", 999: "999", 1000: "1,000", 20000: "20,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100",
	} {
		if got := FormatCount(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	t.Parallel()

	for want, d := range map[string]time.Duration{
		"30m":    30 * time.Minute,
		"24h":    24 * time.Hour,
		"1h30m":  90 * time.Minute,
		"1m30s":  90 * time.Second,
		"1h0m1s": time.Hour + time.Second,
		"80ms":   80 * time.Millisecond,
		"10s":    10 * time.Second,
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%s is written as %s, want %s", d, got, want)
		}
	}
}

func TestCountOf(t *testing.T) {
	t.Parallel()

	for n, want := range map[int]string{0: "0 runs", 1: "1 run", 2: "2 runs", 20000: "20,000 runs"} {
		if got := CountOf(n, "run"); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestFormatInterval(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 0, "0 s"},
		{0, 14, "0-14 s"},
		{38.4, 45, "38-45 s"},
		{55, 80, "60-80 s"},
		{100, 150, "100-150 s"},
		{150, 200, "3 min"}, // to a minute
		{301, 370, "5-6 min"},
		{50, 500, "1-8 min"},
		{597, 720, "10-12 min"},
		{600, 620, "10 min"},   // narrow
		{3600, 3780, "62 min"}, // a twentieth
		{3000, 4700, "50-78 min"},
		{3000, 9000, "50m-2h30m"},
		{7800, 8000, "2h10m"},
		{36000, 90061, "10-25 h"},
		{172800, 270000, "48-75 h"},
		{400000, 700000, "5-8 days"},
	} {
		if got := FormatInterval(c.low, c.high); got != c.want {
			t.Errorf("%v to %v: %s, want %s", c.low, c.high, got, c.want)
		}
	}
}
