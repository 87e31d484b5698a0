package cmdline

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
)

// Rules are how the flags of a program depend on each other. Names of flags have no dashes. An
// environment variable breaks no rule: it may be set for another command.
type Rules struct {
	// Needs has the flags that do nothing without another one.
	Needs []Need
	// Exclusions has pairs of flags that exclude each other. Where the command line has one of a pair,
	// the environment variable of the other does not count. A command refuses both on its command line.
	Exclusions [][2]string
	// NotEmpty has the flags whose value must not be empty on the command line.
	NotEmpty []string
}

// Need is flags that do nothing without another one. It holds for commands that have this other one.
type Need struct {
	// Flags do nothing unless one of Any is set. Required.
	Flags []string
	// Any are set on the command line or in the environment. Required.
	Any []string
	// Commands are the commands for which this holds. Defaults to all.
	Commands []string
}

// IsTyped reports whether the command line has a flag, rather than the environment.
func IsTyped(c *cli.Command, name string) bool {
	f := findChecked(c, name)
	return f != nil && f.given
}

// findChecked returns a flag of a prepared command, or nil.
func findChecked(c *cli.Command, name string) *checkedFlag {
	for _, f := range c.Flags {
		if f, ok := f.(*checkedFlag); ok && slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// addRivals gives each flag of a command those that exclude it.
func (r Rules) addRivals(c *cli.Command) {
	for _, pair := range r.Exclusions {
		one, other := findChecked(c, pair[0]), findChecked(c, pair[1])
		if one == nil || other == nil {
			continue
		}
		one.rivals, other.rivals = append(one.rivals, other), append(other.rivals, one)
	}
}

// check refuses a command line with flags that do nothing there.
func (r Rules) check(c *cli.Command) error {
	for _, name := range r.NotEmpty {
		if f := findChecked(c, name); f != nil && f.given && f.Get() == "" {
			return exit.Usage("give "+dashed(name)+" "+metavar(f)+", or leave it out", "%s needs a value", dashed(name))
		}
	}

	for _, need := range r.Needs {
		if err := need.check(c); err != nil {
			return err
		}
	}

	return nil
}

// check refuses a flag on the command line that does nothing there.
func (n Need) check(c *cli.Command) error {
	if len(n.Commands) > 0 && !slices.Contains(n.Commands, c.Name) {
		return nil
	}

	var having []string
	for _, name := range n.Any {
		f := findChecked(c, name)
		switch {
		case f == nil:
			continue
		case f.isInEffect():
			return nil
		}
		having = append(having, dashed(name))
	}

	if len(having) == 0 {
		return nil
	}

	for _, name := range n.Flags {
		if IsTyped(c, name) {
			return exit.Usage("give "+having[0]+" too, or leave out "+dashed(name), "%s needs %s", dashed(name),
				joinAlternatives(having))
		}
	}

	return nil
}

// isInEffect reports whether a flag is set, and neither off nor empty.
func (f *checkedFlag) isInEffect() bool { return f.IsSet() && f.Get() != false && f.Get() != "" }

// isExcluded reports whether the command line has a flag that excludes f.
func (f *checkedFlag) isExcluded() bool {
	return slices.ContainsFunc(f.rivals, func(rival *checkedFlag) bool { return rival.given && rival.isInEffect() })
}

// joinAlternatives joins names in a sentence: a, b or c.
func joinAlternatives(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
