// Package progress shows the progress of a run: how far it is, its rates, its workers and its
// remaining time.
//
//	Source (parts of this process, bus) > Sample > rateTracker (rates, timeEstimator) > Screen
//
// [Show] takes a [Sample] from a [Source] four times a second and draws it as the live block of a
// [terminal.Screen], prints it as a line now and then, or writes it as JSON.
package progress

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/terminal"
)

const (
	sampleEvery = 250 * time.Millisecond
	jsonEvery   = time.Second
	// plainFirst is when the first plain line is printed: early enough to see that a run
	// works, and too late for a run that is done at once.
	plainFirst = 5 * time.Second
)

// Show shows a run on a screen until ctx ends, and then once more.
func Show(ctx context.Context, s *terminal.Screen, v *Source) {
	var asking sync.WaitGroup
	asking.Go(func() { v.pollBus(ctx) })
	defer asking.Wait()
	Follow(ctx, s, filepath.Base(v.Run.Input.FirstFile()), v.takeSample)
}

// Follow shows the samples of a run, which look takes, until ctx ends, and then a last one. name
// is the name of the input.
func Follow(ctx context.Context, s *terminal.Screen, name string, look func() Sample) {
	s.SetRunShown(true)
	defer s.SetRunShown(false)

	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()

	var t rateTracker
	begin := time.Now()
	due, shown := begin, false
	if s.Mode() == terminal.ModePlain {
		due = begin.Add(plainFirst)
	}

	for {
		v := t.complete(look())
		s.SetStatus(v.PlainText(name))
		switch now := time.Now(); {
		case s.Mode() == terminal.ModeBar:
			width, height := s.Size()
			s.Draw(v.Block(name, width-1, height-2)...)
		case now.Before(due):
		case s.Mode() == terminal.ModeJSON:
			s.WriteJSON(v)
			due = due.Add(jsonEvery)
		case s.Mode() == terminal.ModePlain:
			s.Printf("%s  %s", now.Format(time.TimeOnly), v.PlainText(name))
			due, shown = due.Add(terminal.PlainEvery), true
		}

		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}

		switch v := t.complete(look()); {
		case s.Mode() == terminal.ModeBar:
			s.Draw()
		case s.Mode() == terminal.ModeJSON:
			s.WriteJSON(v)
		case shown:
			s.Printf("%s  %s", time.Now().Format(time.TimeOnly), v.PlainText(name))
		}

		return
	}
}

// ShowValidation returns a function that shows the progress of the validation of an input.
func ShowValidation(s *terminal.Screen) func(requests int, bytes int64) {
	return func(requests int, bytes int64) {
		if requests%65536 == 0 {
			s.ShowStatus(fmt.Sprintf("validating: %s lines, %d MB", groupThousands(requests), bytes>>20))
		}
	}
}
