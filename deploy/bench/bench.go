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
	stops  []func()             // end what the section has started
}

// section is a table: variants of one thing, measured in turn.
type section struct {
	name, about string
	columns     []column
	variants    func(context.Context, *bench) ([]variant, error)
}

// column is what is measured.
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

// sample is what one round says of a row, in the order of the columns that are measured.
type sample struct {
	row    string
	values []float64
}

// measure does a section's rounds. In each round every variant has its turn, so that a
// machine that is slow for a while is slow for all of them.
func (b *bench) measure(ctx context.Context, s section) (Table, error) {
	defer b.clean()

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

		t.add(s.columns, samples)
	}

	order := make([]string, len(variants))
	for i, v := range variants {
		order[i] = v.name
	}

	t.sort(order)

	return t, nil
}

// clean ends and removes what a section has left.
func (b *bench) clean() {
	for i := len(b.stops) - 1; i >= 0; i-- {
		b.stops[i]()
	}
	b.stops = nil
	for _, path := range b.inputs {
		os.Remove(path)
	}
}

// folder makes a folder for one run, and remove, which takes it away.
func (b *bench) folder() (dir string, remove func(), err error) {
	if dir, err = os.MkdirTemp(b.dir, "run-"); err != nil {
		return "", nil, fmt.Errorf("make a folder to work in: %w", err)
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// pick is a number for the go as it is: small for a quick one.
func (b *bench) pick(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// skip says aloud what is not measured.
func (b *bench) skip(what, why string) { fmt.Fprintf(b.stderr, "SKIPPED: %s: %s\n", what, why) }

// version is what the promptmill says of itself.
func (b *bench) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, b.promptmill, "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
