package cmdline

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// flag is a flag of urfave/cli, with all that this package asks of it.
type flag interface {
	cli.Flag
	cli.DocGenerationMultiValueFlag
	cli.VisibleFlag
	cli.CategorizableFlag
	cli.LocalFlag

	IsBoolFlag() bool
}

// checkedFlag is a flag that is also an environment variable, refuses values in sentences for
// people, and knows days as durations.
type checkedFlag struct {
	flag

	// given is set once the command line has the flag.
	given bool
	// rivals are the flags that exclude this one.
	rivals []*checkedFlag
	// refusal is the error of the flag's last value, with its hint.
	refusal error
}

// IsLocal implements [cli.LocalFlag]: the commands of a command do not have its flags.
func (f *checkedFlag) IsLocal() bool { return true }

// Set implements [cli.Flag] for a value of the command line.
func (f *checkedFlag) Set(name, value string) error {
	name = dashed(name)
	switch {
	case f.given && !f.IsMultiValueFlag() && !f.IsBoolFlag():
		f.refusal = exit.Usage("leave out one of them", "%s is given twice", name)
	case !f.IsBoolFlag() && dashedFlag.MatchString(value):
		f.refusal = exit.Usage("give "+name+" "+metavar(f), "%s needs a value, and %s looks like a flag", name, value)
	default:
		f.refusal = f.parse(name, " ", value)
	}

	f.given = true

	return f.refusal
}

// PostParse implements [cli.Flag]: an environment variable counts where the command line has neither
// a value nor a flag that excludes this one. An empty one counts as not set, so that compose and
// unit files can leave a value empty.
func (f *checkedFlag) PostParse() error {
	for _, name := range f.GetEnvVars() {
		if value := os.Getenv(name); value != "" && !f.IsSet() && !f.isExcluded() {
			return f.parse(name, "=", value)
		}
	}
	return nil
}

// GetEnvVars implements [cli.DocGenerationFlag]. A flag may name others than its own, and one
// that is local has none.
func (f *checkedFlag) GetEnvVars() []string {
	names := f.flag.GetEnvVars()
	if len(names) == 0 && !f.flag.IsLocal() {
		names = []string{variableOf(f)}
	}
	return names
}

// variableOf returns the environment variable of a flag.
func variableOf(f cli.Flag) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(f.Names()[0], "-", "_"))
}

// parse sets the value that a flag or a variable has.
func (f *checkedFlag) parse(name, separator, value string) error {
	text := value
	if f.TypeName() == "duration" {
		text = spellDays(value)
	}

	err := f.flag.Set(f.Names()[0], text)
	if err == nil {
		return nil
	}

	if f.IsBoolFlag() {
		separator = "="
	}

	problem, example := explainValue(f.TypeName(), value, errors.Is(err, strconv.ErrRange))
	if value == "" {
		value = `""`
	}

	return exit.Usage("for example "+name+separator+example, "%s%s%s: must be %s", name, separator, value, problem)
}

// explainValue says what values a type has, and gives an example. large is set for a number
// that the type cannot hold.
func explainValue(typeName, value string, large bool) (problem, example string) {
	switch typeName {
	case "bool":
		return "true or false", "true"
	case "float":
		return "a number", "1.5"
	case "duration":
		switch {
		case duration.MatchString(value):
			return "shorter: 292 years at most", "24h or 30d"
		case number.MatchString(value):
			return "a duration with a unit", value + "s or " + value + "m"
		}
		return "a duration", "30s, 5m, 2h or 1d"
	case "uint":
		if strings.HasPrefix(value, "-") {
			return "a whole number that is not negative", "8"
		}
	}

	if large {
		return "smaller", "8"
	}

	return "a whole number", "8"
}

var (
	dashedFlag = regexp.MustCompile(`^--[a-z]`)
	number     = regexp.MustCompile(`^\d+$`)
	duration   = regexp.MustCompile(`^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$`)
	days       = regexp.MustCompile(`^([0-9.]+)d`)
)

// ParseDuration parses a duration as flags have it: as Go does, with days besides, as in 30d.
func ParseDuration(text string) (time.Duration, error) { return time.ParseDuration(spellDays(text)) }

// spellDays returns a duration with its days as hours: 1d12h as 24h12h, which Go's parser reads.
func spellDays(value string) string {
	found := days.FindStringSubmatch(value)
	if found == nil {
		return value
	}

	n, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		return value
	}

	return strconv.FormatFloat(n*24, 'f', -1, 64) + "h" + value[len(found[0]):]
}

// dashed returns a flag's name as it is typed.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// metavar returns the name of a flag's value, which begins its usage in backticks: "`FILE`:
// input". It is empty for a flag without a value.
func metavar(f cli.DocGenerationFlag) string {
	name, _ := splitUsage(f)
	return name
}

// splitUsage splits the usage of a flag into the name of its value and the description.
func splitUsage(f cli.DocGenerationFlag) (name, description string) {
	description = f.GetUsage()
	if rest, ok := strings.CutPrefix(description, "`"); ok {
		name, description, _ = strings.Cut(rest, "`")
		description = strings.TrimPrefix(description, ": ")
	}

	return name, description
}

// describeFlag returns the usage of a flag with its default, and whether it may be repeated.
func describeFlag(f flag) string {
	_, text := splitUsage(f)

	var notes []string
	if f.IsMultiValueFlag() {
		notes = append(notes, "repeatable")
	}

	if value := defaultOf(f); value != "" {
		notes = append(notes, "default: "+value)
	}

	if len(notes) > 0 {
		text += " (" + strings.Join(notes, "; ") + ")"
	}

	return text
}

// defaultOf returns the default of a flag as a person writes it. It is empty for none, for zero and
// for false.
func defaultOf(f flag) string {
	if text := f.GetDefaultText(); text != "" || !f.IsDefaultVisible() {
		return text
	}

	value := strings.Trim(f.GetValue(), `"`)
	if f.TypeName() == "duration" {
		if d, err := time.ParseDuration(value); err == nil && d > 0 {
			return terminal.FormatDuration(d)
		}
		return ""
	}

	if value == "0" || value == "false" {
		return ""
	}

	return value
}
