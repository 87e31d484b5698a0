package cmdline

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"
)

// Any words are completed without a panic, and each value goes on from what is typed.
func FuzzCompletion(f *testing.F) {
	for _, line := range []string{
		"", "e", "egg ", "egg --", "egg --time ", "egg --time=1", "egg --time --help ", "egg -- -", "egg -t ",
		"--=", "egg --=",
		"egg --water a,b,", "egg --water=a,b", "egg \xff", "egg -\xff=", "egg -h ", "cup a b c ",
	} {
		f.Add(line)
	}

	f.Fuzz(func(t *testing.T, typed string) {
		var asked *cli.Command
		words := strings.Split(typed, " ")
		app := &cli.Command{
			Name:   "boil",
			Writer: io.Discard,
			Commands: []*cli.Command{
				{
					Name:      "egg",
					ArgsUsage: "EGG [soft|hard]",
					Flags: []cli.Flag{
						&cli.DurationFlag{Name: "time", Aliases: []string{"t"}, Usage: "`DURATION`: time"},
						&cli.StringFlag{Name: "water", Usage: "`KIND,...`: kinds of water"},
						&cli.BoolFlag{Name: "salt", Usage: "add salt"},
					},
					Action: func(context.Context, *cli.Command) error {
						t.Errorf("%q boils an egg", typed)
						return nil
					},
				},
				{Name: "cup", ArgsUsage: "FILE..."},
			},
		}

		Prepare(app, Rules{})

		kinds := func(_ context.Context, c *cli.Command) []string {
			asked = c
			return []string{"sea", "tap\tthat of the house"}
		}

		done := parseLine(app, words).complete(t.Context(), map[string]Values{"KIND,...": kinds, "EGG": kinds})

		for _, value := range done.values {
			if !strings.HasPrefix(value, words[len(words)-1]) {
				t.Errorf("%q is completed with %q", typed, value)
			}
		}

		if asked != nil && asked.Name != "egg" {
			t.Errorf("%q asks for the values of %s", typed, asked.Name)
		}
	})
}
