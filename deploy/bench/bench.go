package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// bench is one go of the program.
type bench struct {
	options
	self   string // this program, for its children
	stderr io.Writer
	inputs map[inputKind]string // paths, of the section
	stops  []func()             // that end the processes of the section
	env    []string             // of the processes of the section, besides this program's
}

// section is a table: variants of one thing, measured in turn.
type section struct {
	name, about string
	columns     []column
	variants    func(context.Context, *bench) ([]variant, error)
}

// column is a measured quantity.
type column struct {
	name string
	// against makes the column a ratio: the one of another column in the row so named,
	// in the same round. Empty: it is measured.
	against, of string
}

// variant is one way to do a section's work.
type variant struct {
	name string
	// once does the work, and returns a row of the table, or several.
	once func(context.Context) ([]sample, error)
}

// sample holds the figures of a row from one round, in the order of the measured columns.
type sample struct {
	row    string
	values []float64
}

// measureSection does a section's rounds. In each round every variant has its turn, so that a
// machine that is slow for a while is slow for all of them.
func (b *bench) measureSection(ctx context.Context, s section) (Table, error) {
	defer b.removeCaches()

	b.inputs = map[inputKind]string{}
	variants, err := s.variants(ctx, b)
	if err != nil {
		return Table{}, err
	}

	t := newTable(s)
	for round := range b.repeat {
		var samples []sample
		for i := range variants {
			v := variants[(i+round)%len(variants)]
			begin := time.Now()
			got, err := v.once(ctx)

			if ctx.Err() != nil {
				return t, context.Cause(ctx)
			}

			if err != nil {
				return t, fmt.Errorf("%s: %w", v.name, err)
			}

			fmt.Fprintf(b.stderr, "%s, round %d of %d: %s, %.1f s\n",
				s.name, round+1, b.repeat, v.name, time.Since(begin).Seconds())
			samples = append(samples, got...)
		}

		t.addSamples(s.columns, samples)
	}

	order := make([]string, len(variants))
	for i, v := range variants {
		order[i] = v.name
	}

	t.sortRows(order)

	return t, nil
}

// removeCaches ends the processes and removes the files of a section.
func (b *bench) removeCaches() {
	for i := len(b.stops) - 1; i >= 0; i-- {
		b.stops[i]()
	}
	b.stops, b.env = nil, nil
	for _, path := range b.inputs {
		os.Remove(path)
	}
}

// makeFolder makes a folder for one run, and remove, which takes it away.
func (b *bench) makeFolder() (dir string, remove func(), err error) {
	if dir, err = os.MkdirTemp(b.dir, "run-"); err != nil {
		return "", nil, fmt.Errorf("make a folder to work in: %w", err)
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// pickSize is a number for the go as it is: small for a quick one.
func (b *bench) pickSize(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// logSkip reports a section that is not measured.
func (b *bench) logSkip(what, why string) { fmt.Fprintf(b.stderr, "SKIPPED: %s: %s\n", what, why) }

// readVersion returns the version that the promptmill reports.
func (b *bench) readVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, b.promptmill, "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
