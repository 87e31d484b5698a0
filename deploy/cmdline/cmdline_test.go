package cmdline

import (
	"context"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/urfave/cli/v3"
)

func TestSuggest(t *testing.T) {
	t.Parallel()

	names := []string{"run", "worker", "workers", "status", "tail", "sim-flavour", "o"}
	for typed, want := range map[string]string{
		"runn":        "run",
		"rnu":         "run", // one swap
		"wrkers":      "workers",
		"worker":      "worker",
		"stats":       "status",
		"stauts":      "status",
		"sim-flavor":  "sim-flavour",
		"simflavour":  "sim-flavour",
		"kill":        "",
		"ls":          "",
		"frobnicate":  "",
		"x":           "", // as far from -o as from all others
		"":            "",
		"sim-flavöur": "sim-flavour",
	} {
		if got := Suggest(typed, names); got != want {
			t.Errorf("%q: %q is suggested, want %q", typed, got, want)
		}
	}
}

// The distance is symmetric, zero for the same text alone, and at most the length of the longer
// one.
func TestCountEdits(t *testing.T) {
	t.Parallel()

	if err := quick.Check(func(a, b string) bool {
		n := countEdits(a, b)
		return n == countEdits(b, a) && (n == 0) == (a == b) && n <= max(len(a), len(b))
	}, nil); err != nil {
		t.Error(err)
	}
}

func TestSpellDays(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]time.Duration{
		"1d":     24 * time.Hour,
		"1.5d":   36 * time.Hour,
		"2d12h":  60 * time.Hour,
		"2d1ms":  48*time.Hour + time.Millisecond,
		"90m":    90 * time.Minute,
		"0.001d": 86400 * time.Millisecond,
	} {
		if got, err := time.ParseDuration(spellDays(text)); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", text, got, err, want)
		}
	}

	for _, text := range []string{"d", "1.2.3d", "day", "1dd", "1day", "-1d"} {
		if got, err := time.ParseDuration(spellDays(text)); err == nil {
			t.Errorf("%s is %s, want an error", text, got)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		text          string
		column, width int
		want          string
	}{
		{"", 4, 20, ""},
		{"one two three", 0, 80, "one two three"},
		{"one two three", 4, 11, "one two\n    three"},
		{"one two three", 4, 10, "one\n    two\n    three"},
		{"a-word-that-is-longer-than-the-line two", 2, 10, "a-word-that-is-longer-than-the-line\n  two"},
		{"one  two\nthree", 0, 80, "one two three"},
	} {
		if got := wrap(tt.text, tt.column, tt.width); got != tt.want {
			t.Errorf("%q at column %d of %d: %q, want %q", tt.text, tt.column, tt.width, got, tt.want)
		}
	}
}

// Flags may stand anywhere, the command line wins over the environment, and an empty variable counts as
// not set.
func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		args     string
		variable string
		want     time.Duration
		set      bool
	}{
		{"egg e1", "", time.Minute, false},
		{"egg e1 --time 3m", "", 3 * time.Minute, true},
		{"egg --time 3m e1", "", 3 * time.Minute, true},
		{"egg --time=3m e1", "", 3 * time.Minute, true},
		{"egg -time 3m e1", "", 3 * time.Minute, true},
		{"egg -t 3m e1", "", 3 * time.Minute, true},
		{"egg -t=3m e1", "", 3 * time.Minute, true},
		{"egg --time 3m -- e1", "", 3 * time.Minute, true},
		{"egg e1", "2d", 48 * time.Hour, true},
		{"egg e1 --time 3m", "2d", 3 * time.Minute, true},
	} {
		t.Setenv("PROMPTMILL_TIME", tt.variable)

		called := false
		app := &cli.Command{
			Name: "boil",
			Commands: []*cli.Command{{
				Name:      "egg",
				ArgsUsage: "EGG",
				Flags: []cli.Flag{
					&cli.DurationFlag{Name: "time", Aliases: []string{"t"}, Value: time.Minute, Usage: "`DURATION`: time"},
				},
				Action: func(_ context.Context, c *cli.Command) error {
					called = true
					if got := c.Duration("time"); got != tt.want || c.IsSet("time") != tt.set || c.Args().First() != "e1" {
						t.Errorf("%s with %q: %s, set %t, %q", tt.args, tt.variable, got, c.IsSet("time"), c.Args().Slice())
					}
					return nil
				},
			}},
		}
		Prepare(app, Rules{})

		if err := app.Run(t.Context(), append([]string{"boil"}, strings.Fields(tt.args)...)); err != nil || !called {
			t.Errorf("%s with %q: %v", tt.args, tt.variable, err)
		}
	}
}
