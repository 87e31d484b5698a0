package main

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/history"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/doctor"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/deploy/terminal"
	"github.com/promptmill/promptmill/proto"
)

// hostile has each effect of a text on a terminal: a title, a bell, a cleared screen, a reset,
// C1 controls, writing from right to left, a line and a column of its own.
const hostile = "a\x1b]0;title\x07\x1b[2J\x1bc\u009b31m\u0085\u202e\u2066\u200e\u2028\x7f\b\r\nforged\tcolumn"

// ours are the escape sequences that promptmill itself writes.
var ours = regexp.MustCompile(`\x1b\[(\d+A\r|J|2?K|B|\?7[hl]|3[1-3]m|[02]m)`)

// Text from outside is printed without characters that move the cursor or begin a line.
func TestForeignTextIsPrintable(t *testing.T) {
	t.Parallel()

	manifest := proto.Manifest{
		Run:       hostile,
		State:     proto.State(hostile),
		CreatedAt: time.Now(),
		Output:    hostile,
		Input:     proto.Input{Models: map[string]int{hostile: 1}},
	}

	run := status.Run{
		Manifest:  manifest,
		Missing:   []string{hostile},
		Problem:   hostile,
		Collector: &status.Collector{CollectorInfo: proto.CollectorInfo{Host: hostile, Output: hostile}},
	}

	worker := proto.WorkerInfo{
		Name:    hostile,
		Models:  []string{hostile},
		Version: hostile,
		GPU:     []proto.GPU{{Name: hostile}},
	}

	onScreen := func(mode terminal.Mode, use func(*terminal.Screen)) func(io.Writer) {
		return func(w io.Writer) {
			use(terminal.New(terminal.Config{
				Out:    w,
				Mode:   mode,
				Colour: true,
				Size:   func() (int, int) { return 1000, 24 }, // no line is broken
			}))
		}
	}
	for _, tt := range []struct {
		name  string
		print func(io.Writer)
		lines int // 0: not counted
	}{
		{"list", func(w io.Writer) { status.PrintRuns(w, []status.Run{run}, 0) }, 3},
		{"status", func(w io.Writer) { status.PrintRun(w, run) }, 10},
		{"workers", func(w io.Writer) { status.PrintWorkers(w, []status.Worker{{WorkerInfo: worker}}, 0) }, 2},
		{"history", func(w io.Writer) {
			printHistory(w, []history.Entry{{
				TestID: hostile,
				Model:  hostile,
				Status: proto.State(hostile),
				Meta:   hostile,
			}}, 0)
		}, 2},
		{"doctor", func(w io.Writer) {
			doctor.Finding{Name: hostile, Status: doctor.StatusFail, Detail: hostile}.Print(w, true)
		}, 1},
		{"what doctor advises", func(w io.Writer) {
			doctor.Finding{Status: doctor.StatusFail, Fix: hostile}.Print(w, false)
		}, 0},
		{"an error and its hint", func(w io.Writer) { terminal.PrintError(w, exit.Usage(hostile, "%s", hostile)) }, 0},
		{"a message", onScreen(terminal.ModePlain, func(s *terminal.Screen) {
			s.Printf("%s, %v, %q", hostile, errors.New(hostile), hostile)
		}),
			1},
		{"a message above the block", onScreen(terminal.ModeBar, func(s *terminal.Screen) {
			s.Draw(terminal.NewLine(hostile))
			s.Printf("%s", hostile)
		}), 0},
		{"progress", onScreen(terminal.ModePlain, func(s *terminal.Screen) {
			begin := time.Time{}
			s.ShowClock(hostile, time.Second, &begin)
		}), 1},
		{"progress", onScreen(terminal.ModeBar, func(s *terminal.Screen) {
			v := progress.Sample{
				State:    hostile,
				ByWorker: []progress.Worker{{Name: hostile, Flavour: hostile, WaitsFor: hostile}},
			}
			s.Draw(v.Block(hostile, 200, 24)...)
		}), 3},
		{"plain progress", onScreen(terminal.ModePlain, func(s *terminal.Screen) {
			v := progress.Sample{State: hostile, ByWorker: []progress.Worker{{Name: hostile, WaitsFor: hostile}}}
			s.Printf("%s", v.PlainText(hostile))
		}), 1},
		{"a log line", onScreen(terminal.ModePlain, func(s *terminal.Screen) {
			log := zerolog.New(zerolog.ConsoleWriter{Out: s, NoColor: true})
			log.Warn().Err(errors.New(hostile)).Str("worker", hostile).Msg("it failed")
		}), 1},
		{"a log line of foreign text", onScreen(terminal.ModeBar, func(s *terminal.Screen) {
			log := zerolog.New(zerolog.ConsoleWriter{Out: s, NoColor: true})
			log.Warn().Msg(hostile)
		}), 0},
		{"a report", func(w io.Writer) {
			r := report.Report{
				Title:       hostile,
				Subtitle:    hostile,
				Warning:     hostile,
				Answer:      hostile,
				Conclusions: []report.Conclusion{{Text: hostile}},
			}
			r.Markdown(w)
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var b bytes.Buffer
			tt.print(&b)

			got := ours.ReplaceAllString(b.String(), "")
			if !strings.Contains(got, "title") || !strings.Contains(got, "forged") {
				t.Errorf("the text is not there: %q", got)
			}

			if bad := strings.Map(func(r rune) rune {
				if unicode.IsPrint(r) || r == '\n' {
					return -1
				}
				return r
			}, got); bad != "" {
				t.Errorf("%q in %q", bad, got)
			}

			if n := strings.Count(got, "\n"); tt.lines > 0 && n != tt.lines {
				t.Errorf("%d lines, want %d: %q", n, tt.lines, got)
			}
		})
	}
}
