// Package progress shows the progress of a run: how far it is, its rates, its workers and its
// remaining time.
//
//	Source (parts of this process, bus) > Sample > rateTracker (rates) > Display
//
// [Source.Follow] takes a [Sample] of a run four times a second. A [Display] draws the samples
// as the live block of a [terminal.Screen], prints one as a line now and then, or writes them
// as JSON.
package progress

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
)

const (
	sampleEvery = 250 * time.Millisecond
	jsonEvery   = time.Second
	// plainFirst is the delay of the first plain line: short enough to see that a run works, and
	// too long for a run that is done at once.
	plainFirst = 5 * time.Second
)

// Follow calls each with a sample of the run four times a second until ctx ends, and then with a
// final one. It never calls it twice at a time.
func (v *Source) Follow(ctx context.Context, each func(Sample)) {
	var polling sync.WaitGroup
	polling.Go(func() { v.pollBus(ctx) })
	defer polling.Wait()

	followSamples(ctx, v.takeSample, each)
}

// followSamples calls each with the samples that look takes, completed with the rates.
func followSamples(ctx context.Context, look func() Sample, each func(Sample)) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()

	var t rateTracker
	for {
		each(t.complete(look()))

		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}

		last := t.complete(look())
		last.Final = true
		each(last)

		return
	}
}

// Display shows the samples of runs on a screen, one run after the other.
type Display struct {
	screen *terminal.Screen

	shown   bool      // a run is shown
	printed bool      // it has a plain line
	due     time.Time // of the next line
}

// NewDisplay returns a display.
func NewDisplay(s *terminal.Screen) *Display { return &Display{screen: s} }

// Show shows the next sample of a run. A final one ends the run.
func (d *Display) Show(v Sample) {
	s := d.screen
	if !d.shown {
		s.SetRunShown(true)
		d.shown, d.printed, d.due = true, false, time.Now()
		if s.Mode() == terminal.ModePlain {
			d.due = d.due.Add(plainFirst)
		}
	}

	if v.Final {
		d.end(v)
		return
	}

	s.SetStatus(v.PlainText(v.Input))
	switch now := time.Now(); {
	case s.Mode() == terminal.ModeBar:
		width, height := s.Size()
		s.Draw(v.Block(v.Input, width-1, height-2)...)
	case now.Before(d.due):
	case s.Mode() == terminal.ModeJSON:
		s.WriteJSON(v)
		d.due = d.due.Add(jsonEvery)
	case s.Mode() == terminal.ModePlain:
		d.print(v)
		d.due, d.printed = d.due.Add(terminal.PlainEvery), true
	}
}

// end shows the final sample of a run.
func (d *Display) end(v Sample) {
	s := d.screen
	defer s.SetRunShown(false)

	d.shown = false

	switch {
	case s.Mode() == terminal.ModeBar:
		s.Draw()
	case s.Mode() == terminal.ModeJSON:
		s.WriteJSON(v)
	case d.printed:
		d.print(v)
	}
}

// print prints a sample as a line.
func (d *Display) print(v Sample) {
	d.screen.Printf("%s  %s", time.Now().Format(time.TimeOnly), v.PlainText(v.Input))
}

// ShowValidation returns a function that shows the progress of the validation of an input.
func ShowValidation(s *terminal.Screen) func(requests int, bytes int64) {
	return func(requests int, bytes int64) {
		if requests%65536 == 0 {
			s.ShowStatus(fmt.Sprintf("validating: %s requests, %d MB", terminal.FormatCount(requests), bytes>>20))
		}
	}
}
