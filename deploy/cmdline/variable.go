package cmdline

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// warnOfVariables warns of environment variables that look like a mistyped variable of a flag.
// Others that begin with the prefix may belong to a compose file or a script. Nothing is
// printed where a program reads the progress.
func warnOfVariables(c *cli.Command) {
	if c.String("progress") == "json" || c.Bool("json") {
		return
	}

	var known []string
	walkCommands(c.Root(), func(other *cli.Command) {
		for _, f := range other.Flags {
			for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
				known = append(known, strings.TrimPrefix(name, Prefix))
			}
		}
	})

	for _, pair := range os.Environ() {
		pair, ok := strings.CutPrefix(pair, Prefix)
		name, value, _ := strings.Cut(pair, "=")
		if !ok || value == "" || slices.Contains(known, name) {
			continue
		}

		if meant := Suggest(name, known); meant != "" {
			fmt.Fprintf(c.Root().ErrWriter,
				"%[1]s: warning: %[2]s%[3]s is not a variable of %[1]s; did you mean %[2]s%[4]s?\n",
				c.Root().Name, Prefix, name, meant)
		}
	}
}
