package export

import (
	"fmt"
	"io"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// Err returns the error of the table, or nil.
func (c Comparison) Err() error {
	if c.Complete {
		return nil
	}

	text := "it has other columns"
	switch {
	case c.Found < c.Rows:
		text = terminal.CountOf(c.Rows-c.Found, "row") + " missing"
	case c.Found > c.Rows:
		text = terminal.CountOf(c.Found-c.Rows, "row") + " too many"
	case c.Differing == 1:
		text = "1 row differs"
	case c.Differing > 1:
		text = terminal.FormatCount(c.Differing) + " rows differ"
	}

	return exit.WithHint(fmt.Errorf("the table is not as the run gives it: %s", text),
		"promptmill export writes it again")
}

// Print prints the result for people.
func (c Comparison) Print(w io.Writer) {
	count := terminal.FormatCount[int]
	fmt.Fprintf(w, "%s: %s in the table, %s with a cell that differs\n", terminal.CountOf(c.Rows, "row"),
		count(c.Found), count(c.Differing))

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
