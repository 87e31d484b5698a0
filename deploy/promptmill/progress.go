package main

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/files"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/proto"
)

const (
	sampleEvery = 250 * time.Millisecond
	jsonEvery   = time.Second
	plainEvery  = 30 * time.Second
	// plainFirst is when the first plain line comes: soon enough to see that a run does
	// what it should, too late for runs that are done at once.
	plainFirst = 5 * time.Second
)

// show shows the run until ctx ends, and then once more.
func (s *screen) show(ctx context.Context, v *view) {
	var asking sync.WaitGroup
	asking.Go(func() { v.ask(ctx) })
	defer asking.Wait()
	s.follow(ctx, filepath.Base(v.run.Input.FirstFile()), v.look)
}

// follow shows the samples of a run.
func (s *screen) follow(ctx context.Context, name string, look func() sample) {
	s.setRuns(true)
	defer s.setRuns(false)

	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()

	var t track
	begin := time.Now()
	due, shown := begin, false
	if s.mode == "plain" {
		due = begin.Add(plainFirst)
	}

	for {
		v := t.add(look())
		s.now(v.plain(name))
		switch now := time.Now(); {
		case s.mode == "bar":
			width, height := s.size()
			s.draw(v.block(name, width-1, height-2)...)
		case now.Before(due):
		case s.mode == "json":
			s.json(v)
			due = due.Add(jsonEvery)
		case s.mode == "plain":
			s.say("%s  %s", now.Format(time.TimeOnly), v.plain(name))
			due, shown = due.Add(plainEvery), true
		}

		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}

		switch v := t.add(look()); {
		case s.mode == "bar":
			s.draw()
		case s.mode == "json":
			s.json(v)
		case shown:
			s.say("%s  %s", time.Now().Format(time.TimeOnly), v.plain(name))
		}

		return
	}
}

// summary says what a complete run has brought.
func (s *screen) summary(meta *metadata.Run, out collector.Output, inputs []string) {
	res := meta.Results
	done := "done"
	if meta.Status != proto.StateCompleted {
		done = string(meta.Status)
	}

	s.say("%s: %d answered, %d failed, in %s", done, res.SuccessCount, res.FailureCount,
		(time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))

	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		s.say("      %.1f requests/s, %.0f tokens/s in, %.0f tokens/s out",
			*res.ThroughputRequestsPerSec, *res.InputTokensPerSec, *res.OutputTokensPerSec)
	}

	s.causes(meta, out.Errors())
	s.files(meta, out, inputs)
}

// files names the output files and the commands to look at them.
func (s *screen) files(meta *metadata.Run, out collector.Output, inputs []string) {
	s.say("  results   %s", files.Short(out.Results()))
	if meta.Test.ErrorFile != nil {
		s.say("  errors    %s", files.Short(out.Errors()))
	}

	s.say("  metadata  %s", files.Short(out.Meta()))
	for _, path := range []string{out.ReportMarkdown(), out.ReportHTML()} {
		if files.Exists(path) {
			s.say("  report    %s", files.Short(path))
		}
	}

	if len(inputs) > 0 && inputs[0] != "-" {
		words := []string{"promptmill", "verify"}
		for _, input := range inputs {
			if input[0] == '-' {
				input = "./" + input // else it would be taken for a flag
			}
			words = append(words, input)
		}

		s.say("prove it:   %s", report.ShellWords(append(words, files.Short(out.Results()))...))
	}
}
