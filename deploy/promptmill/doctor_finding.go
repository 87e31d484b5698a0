package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/terminal"
)

// verdict is what a check thinks of what it found.
type verdict string

const (
	fine     verdict = "ok"
	doubtful verdict = "warn"
	broken   verdict = "fail"
)

// finding is one line of doctor's output.
type finding struct {
	Name   string  `json:"name"`
	Status verdict `json:"status"`
	Detail string  `json:"detail"`
	Mend   string  `json:"fix"` // what to do; empty if there is nothing to do

	unreachable bool // a bus or a model server that a flag names does not answer
}

// failed is the finding that something ended in an error.
func failed(name string, err error) finding {
	return finding{
		Name:        name,
		Status:      broken,
		Detail:      err.Error(),
		Mend:        exit.Hint(err),
		unreachable: exit.Code(err) == exit.CodeUnreachable,
	}
}

// The layout of a line: verdict, name, detail.
const (
	nameWidth = 16
	indent    = len("fail  ") + nameWidth
)

// print prints a finding and, on the next line, how to mend it.
func (f finding) print(w io.Writer, paint func(verdict) string) {
	fmt.Fprint(w, paint(f.Status))
	terminal.Fprintf(w, "  %-*s%s\n", nameWidth, f.Name, f.Detail)
	for line := range strings.Lines(f.Mend) {
		terminal.Fprintf(w, "%*s%s\n", indent, "", strings.TrimSuffix(line, "\n"))
	}
}

// painter returns how verdicts are written, all equally wide: in colour on a terminal,
// unless NO_COLOR is set.
func painter(env environment) func(verdict) string {
	out, ok := env.stdout.(*os.File)
	coloured := ok && term.IsTerminal(int(out.Fd())) && env.getenv("NO_COLOR") == "" && env.getenv("TERM") != "dumb"

	return func(v verdict) string {
		text := fmt.Sprintf("%-4s", v)
		if !coloured {
			return text
		}
		colour := map[verdict]int{fine: 32, doubtful: 33, broken: 31}[v] // green, yellow, red
		return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
	}
}

// diagnosis is the form of --json.
type diagnosis struct {
	SchemaVersion int       `json:"schema_version"`
	OK            bool      `json:"ok"` // nothing failed
	Checks        []finding `json:"checks"`
}

func (d diagnosis) count(v verdict) (n int) {
	for _, f := range d.Checks {
		if f.Status == v {
			n++
		}
	}
	return n
}

// err has the exit code of the diagnosis, and no text: all has been said.
func (d diagnosis) err() error {
	switch {
	case slices.ContainsFunc(d.Checks, func(f finding) bool { return f.Status == broken && f.unreachable }):
		return exit.Reported(exit.CodeUnreachable)
	case !d.OK:
		return exit.Reported(exit.CodeError)
	}
	return nil
}

// check is one thing to look at. What look does when its time is over is not waited
// for: a disk or a driver that hangs answers to no context.
type check struct {
	name  string
	limit time.Duration
	look  func(context.Context) []finding
}

// checkGrace is what a check has to say that its time was too short.
const checkGrace = time.Second

// begin starts a check. What it finds comes within its limit and a second.
func (c check) begin(ctx context.Context) <-chan []finding {
	result, looked := make(chan []finding, 1), make(chan []finding, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, c.limit)
		defer cancel()
		looked <- c.look(ctx)
	}()

	go func() {
		late := time.NewTimer(c.limit + checkGrace)
		defer late.Stop()

		select {
		case found := <-looked:
			result <- found
		case <-late.C:
			result <- []finding{{
				Name:   c.name,
				Status: broken,
				Detail: fmt.Sprintf("it hangs: no answer within %s", c.limit),
				Mend:   "look at the log of the system; a disk, a network file system or a driver may be stuck",
			}}
		case <-ctx.Done():
		}
	}()

	return result
}
