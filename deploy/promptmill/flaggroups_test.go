package main

import (
	"slices"
	"testing"

	"github.com/urfave/cli/v3"
)

// Each flag is in a group of the help.
func TestFlagGroups(t *testing.T) {
	t.Parallel()

	for _, c := range newApp(environment{}).Commands {
		for _, f := range c.Flags {
			group := f.(cli.CategorizableFlag).GetCategory()
			if !slices.Contains(flagGroups, group) {
				t.Errorf("promptmill %s --%s is in group %q, want one of %q", c.Name, f.Names()[0], group, flagGroups)
			}
		}
	}
}
