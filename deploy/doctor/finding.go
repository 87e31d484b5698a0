package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// Status is the result of a check.
type Status string

// Results of checks.
const (
	StatusOK   Status = "ok"
	StatusWarn Status = "warn"
	StatusFail Status = "fail"
)

// Finding is one line of doctor's output.
type Finding struct {
	// Name is the name of the checked thing.
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail describes it.
	Detail string `json:"detail"`
	// Fix is an instruction. Empty if there is nothing to do.
	Fix string `json:"fix"`

	unreachable bool // a named bus or model server does not answer
}

// failedFinding returns the finding of a check that ended in an error.
func failedFinding(name string, err error) Finding {
	return Finding{
		Name:        name,
		Status:      StatusFail,
		Detail:      err.Error(),
		Fix:         exit.Hint(err),
		unreachable: exit.Code(err) == exit.CodeUnreachable,
	}
}

// The layout of a line: status, name, detail.
const (
	nameWidth = 16
	indent    = len("fail  ") + nameWidth
)

// Print prints a finding and, on the next lines, its fix.
func (f Finding) Print(w io.Writer, colour bool) {
	fmt.Fprint(w, f.Status.format(colour))
	terminal.Fprintf(w, "  %-*s%s\n", nameWidth, f.Name, f.Detail)
	for line := range strings.Lines(f.Fix) {
		terminal.Fprintf(w, "%*s%s\n", indent, "", strings.TrimSuffix(line, "\n"))
	}
}

// format returns a status. All are equally wide.
func (s Status) format(colour bool) string {
	text := fmt.Sprintf("%-4s", string(s))
	if !colour {
		return text
	}

	const green, yellow, red = 32, 33, 31
	code := map[Status]int{StatusOK: green, StatusWarn: yellow, StatusFail: red}[s]

	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

// Diagnosis has all findings, and is the form of --json.
type Diagnosis struct {
	SchemaVersion int `json:"schema_version"`
	// OK is false if a check failed.
	OK     bool      `json:"ok"`
	Checks []Finding `json:"checks"`
}

// Count returns the number of findings with a status.
func (d Diagnosis) Count(s Status) (n int) {
	for _, f := range d.Checks {
		if f.Status == s {
			n++
		}
	}
	return n
}

// Summary returns the numbers of findings by their status.
func (d Diagnosis) Summary() string {
	return fmt.Sprintf("%d ok, %d to look at, %d failed", d.Count(StatusOK), d.Count(StatusWarn), d.Count(StatusFail))
}

// Err returns an error that has the exit code of the diagnosis and no text, or nil.
func (d Diagnosis) Err() error {
	switch {
	case slices.ContainsFunc(d.Checks, func(f Finding) bool { return f.Status == StatusFail && f.unreachable }):
		return exit.Reported(exit.CodeUnreachable)
	case !d.OK:
		return exit.Reported(exit.CodeError)
	}
	return nil
}
