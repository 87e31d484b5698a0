package export

import (
	"fmt"
	"io"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// maxExamples is the most examples of a [Comparison].
const maxExamples = 10

// Comparison is the result of comparing a table with the one that the run gives, and the form of --json.
type Comparison struct {
	// Rows is the number of rows that the table must have, and Found the number of those that it has.
	Rows  int `json:"rows"`
	Found int `json:"found"`
	// Differing is the number of rows with a cell that differs.
	Differing int `json:"differing"`
	// Missing is the number of rows that the table lacks, and Extra the number of those that it must not
	// have. A row in a wrong place is one of both.
	Missing int `json:"missing"`
	Extra   int `json:"extra"`
	// Complete is set if the table has exactly the rows and the columns that it must have, in Parquet with their types.
	Complete bool `json:"complete"`
	// Examples are the first differences.
	Examples []string `json:"examples"`

	omitted int // differences that are no example
}

// addExample adds a difference.
func (c *Comparison) addExample(format string, args ...any) {
	if len(c.Examples) == maxExamples {
		c.omitted++
		return
	}
	c.Examples = append(c.Examples, fmt.Sprintf(format, args...))
}

// Err returns the error of the table, or nil.
func (c Comparison) Err() error {
	if c.Complete {
		return nil
	}

	var faults []string
	if c.Missing > 0 {
		faults = append(faults, terminal.CountOf(c.Missing, "row")+" missing")
	}
	if c.Extra > 0 {
		faults = append(faults, terminal.CountOf(c.Extra, "row")+" too many")
	}

	switch {
	case c.Differing == 1:
		faults = append(faults, "1 row differs")
	case c.Differing > 1:
		faults = append(faults, terminal.FormatCount(c.Differing)+" rows differ")
	case len(faults) == 0:
		faults = append(faults, "it has other columns or other types")
	}

	return exit.WithHint(fmt.Errorf("the table is not as the run gives it: %s", strings.Join(faults, ", ")),
		"move it away, and promptmill export writes it again")
}

// Print prints the result for people.
func (c Comparison) Print(w io.Writer) {
	count := terminal.FormatCount[int]
	fmt.Fprintf(w, "%s: %s in the table, %s missing, %s too many, %s with a cell that differs\n",
		terminal.CountOf(c.Rows, "row"), count(c.Found), count(c.Missing), count(c.Extra), count(c.Differing))

	for _, example := range c.Examples {
		terminal.Fprintf(w, "  %s\n", example)
	}

	if c.omitted > 0 {
		fmt.Fprintf(w, "  and %s more\n", count(c.omitted))
	}

	if c.Complete {
		fmt.Fprintln(w, "proved: the table has exactly one row for each request, in order; "+
			"each cell has the value of the input or of the output line")
	}
}
