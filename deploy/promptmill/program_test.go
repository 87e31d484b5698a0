package main

import (
	"slices"
	"testing"

	"github.com/promptmill/promptmill/deploy/program"
)

// Every command but worker is typed as the program is called here.
func TestProgramCommands(t *testing.T) {
	t.Parallel()

	var want []string
	for _, c := range newApp(environment{}).Commands {
		if !c.Hidden && c.Name != "worker" {
			want = append(want, c.Name)
		}
	}

	slices.Sort(want)
	if got := slices.Sorted(slices.Values(program.Commands)); !slices.Equal(got, want) {
		t.Errorf("commands %q, want %q", got, want)
	}
}
