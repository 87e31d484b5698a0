package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
)

// screen is the one writer to stderr while a run goes on: log lines and messages
// scroll above a live line on a terminal, and stand between plain lines elsewhere.
type screen struct {
	mode string // bar, plain, json or none

	mu   sync.Mutex
	out  *os.File
	live bool // the live line is on the terminal
}

func newScreen(out *os.File, mode string, getenv func(string) string) (*screen, error) {
	switch mode {
	case "auto":
		mode = "plain"
		if term.IsTerminal(int(out.Fd())) && getenv("TERM") != "dumb" {
			mode = "bar"
		}
	case "bar", "plain", "json", "none":
	default:
		return nil, usage("", "--progress %q: want auto, bar, plain, json or none", mode)
	}
	return &screen{mode: mode, out: out}, nil
}

// Write writes log lines.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	return s.out.Write(p)
}

// say writes a message for the user.
func (s *screen) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.mode == "json" {
		s.json(map[string]any{"type": "message", "text": text})
		return
	}
	fmt.Fprintln(s, text)
}

func (s *screen) json(v any) {
	if line, err := json.Marshal(v); err == nil {
		s.Write(append(line, '\n'))
	}
}

func (s *screen) clear() {
	if s.live {
		io.WriteString(s.out, "\r\x1b[K")
		s.live = false
	}
}

// line shows the live line.
func (s *screen) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	width, _, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 20 {
		width = 80
	}
	if runes := []rune(text); len(runes) >= width {
		text = string(runes[:width-1])
	}
	io.WriteString(s.out, "\r\x1b[K"+text)
	s.live = true
}

// close takes the live line away.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// validating shows how far validation is.
func (s *screen) validating(requests int, bytes int64) {
	if s.mode == "bar" && requests%65536 == 0 {
		s.line(fmt.Sprintf("validating: %d lines, %d MB", requests, bytes>>20))
	}
}

// sample is the state of a run at a moment, and the form of --progress json.
type sample struct {
	Type            string   `json:"type"` // "progress"
	Time            string   `json:"time"`
	Run             string   `json:"run"`
	Total           int      `json:"total"`
	Done            int      `json:"done"`
	Failed          int      `json:"failed"`
	Durable         int      `json:"durable"`
	Retries         int64    `json:"retries"`
	InFlight        int64    `json:"in_flight"`
	RequestsPerS    float64  `json:"requests_per_s"`
	OutputTokPerS   float64  `json:"output_tokens_per_s"`
	RemainingS      *float64 `json:"remaining_s"` // null until there is a rate
	State           string   `json:"state"`
	at              time.Time
	completedTokens int64
}

// rateWindow is over how long rates are averaged.
const rateWindow = 30 * time.Second

// show shows the run until ctx ends, and then once more.
func (s *screen) show(ctx context.Context, m proto.Manifest, w *worker.Worker, c *collector.Collector) {
	name := filepath.Base(m.Input.Files[0].Path)
	every := map[string]time.Duration{"bar": 250 * time.Millisecond, "plain": 30 * time.Second, "json": time.Second, "none": time.Hour}[s.mode]
	sampling, showing := time.NewTicker(250*time.Millisecond), time.NewTicker(every)
	defer sampling.Stop()
	defer showing.Stop()
	window := []sample{look(m, w, c)}
	for {
		select {
		case <-sampling.C:
			window = append(window, look(m, w, c))
			for len(window) > 2 && window[len(window)-1].at.Sub(window[1].at) >= rateWindow {
				window = window[1:]
			}
			continue
		case <-showing.C:
			s.print(name, rates(window))
		case <-ctx.Done():
			if s.mode == "json" {
				s.print(name, rates(append(window, look(m, w, c))))
			}
			return
		}
	}
}

func look(m proto.Manifest, w *worker.Worker, c *collector.Collector) sample {
	now, got, ws := time.Now(), c.Progress(), w.Stats()
	state := "running"
	switch {
	case got.Finishing:
		state = "writing the output files"
	case ws.Down.Load():
		state = "waiting for the model server"
	case ws.Stalled.Load():
		state = "waiting for the bus"
	}
	return sample{
		Type: "progress", Time: now.UTC().Format(time.RFC3339), Run: m.Run, Total: got.Total,
		Done: got.Received.Done, Failed: got.Received.Failed, Durable: got.Durable, Retries: ws.Retries.Load(),
		InFlight: ws.InFlight.Load(), State: state, at: now, completedTokens: got.Received.CompletionTokens,
	}
}

// rates is the latest sample with the rates over the window.
func rates(window []sample) sample {
	first, last := window[0], window[len(window)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return last
	}
	last.RequestsPerS = float64(last.Done-first.Done) / seconds
	last.OutputTokPerS = float64(last.completedTokens-first.completedTokens) / seconds
	if last.RequestsPerS > 0 {
		remaining := float64(last.Total-last.Done) / last.RequestsPerS
		last.RemainingS = &remaining
	}
	return last
}

func (s *screen) print(name string, v sample) {
	switch s.mode {
	case "json":
		s.json(v)
	case "bar":
		s.line(v.text(name, true))
	case "plain":
		fmt.Fprintln(s, time.Now().Format("15:04:05")+"  "+v.text(name, false))
	}
}

// text is the sample as a line.
func (v sample) text(name string, bar bool) string {
	var b strings.Builder
	percent := 100 * float64(v.Done) / float64(max(1, v.Total))
	if runes := []rune(name); len(runes) > 20 {
		name = string(runes[:17]) + "..."
	}
	b.WriteString(name)
	if bar {
		const cells = 10
		full := int(percent / 100 * cells)
		b.WriteString("  " + strings.Repeat("█", full) + strings.Repeat("░", cells-full))
	}
	fmt.Fprintf(&b, "  %.0f%% %d/%d", percent, v.Done, v.Total)
	if v.State != "running" {
		return b.String() + "  " + v.State
	}
	if v.RemainingS != nil { // first what matters most: a narrow terminal cuts the end
		fmt.Fprintf(&b, "  eta %s", (time.Duration(*v.RemainingS) * time.Second).Round(time.Second))
	}
	if v.Failed > 0 {
		fmt.Fprintf(&b, "  failed %d", v.Failed)
	}
	if v.Retries > 0 {
		fmt.Fprintf(&b, "  retried %d", v.Retries)
	}
	fmt.Fprintf(&b, "  %.1f req/s  %.0f tok/s  %d in flight", v.RequestsPerS, v.OutputTokPerS, v.InFlight)
	return b.String()
}

// summary says what a complete run has brought.
func (r *runner) summary(meta *collector.Meta) {
	res := meta.Results
	r.screen.say("done: %d answered, %d failed, in %s", res.SuccessCount, res.FailureCount, (time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))
	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		r.screen.say("      %.1f requests/s, %.0f tokens/s in, %.0f tokens/s out", *res.ThroughputRequestsPerSec, *res.InputTokensPerSec, *res.OutputTokensPerSec)
	}
	r.files(meta)
}

// files names the output files and the commands to look at them.
func (r *runner) files(meta *collector.Meta) {
	out := r.options.output
	r.screen.say("  results   %s", shorten(out.Results()))
	if meta.Test.ErrorFile != nil {
		r.screen.say("  errors    %s", shorten(out.Errors()))
	}
	r.screen.say("  metadata  %s", shorten(out.Meta()))
	if r.options.command.Args().First() != "-" {
		r.screen.say("prove it:   promptmill verify %s %s", strings.Join(r.options.command.Args().Slice(), " "), shorten(out.Results()))
	}
}

// shorten is a path as seen from the working directory, if that is shorter.
func shorten(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}
