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
	"github.com/promptmill/promptmill/collector/metadata"
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

// clock shows how long something takes: on a terminal all the time, elsewhere every
// half minute since it was shown last.
func (s *screen) clock(what string, passed time.Duration, shown *time.Time) {
	text := fmt.Sprintf("%s %s", what, passed.Round(time.Second))
	switch {
	case s.mode == "bar":
		s.line(text)
	case time.Since(*shown) >= 30*time.Second:
		*shown = time.Now()
		s.say("%s", text)
	}
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
	Workers         int      `json:"workers"`
	RequestsPerS    float64  `json:"requests_per_s"`
	OutputTokPerS   float64  `json:"output_tokens_per_s"`
	RemainingS      *float64 `json:"remaining_s"` // null until there is a rate
	State           string   `json:"state"`
	at              time.Time
	completedTokens int64
}

// rateWindow is over how long rates are averaged.
const rateWindow = 30 * time.Second

// view is where the state of a run is seen.
type view struct {
	run       proto.Manifest
	worker    *worker.Worker // of this process, or nil
	collector *collector.Collector
	link      *link

	mu     sync.Mutex
	others []proto.WorkerInfo // on the bus, but for ours
	asked  bool               // others is known
	state  proto.State        // on the bus
}

// ask looks for other workers, and for what others did to the run, until ctx ends.
func (v *view) ask(ctx context.Context) {
	presence, err := proto.OpenPresence(ctx, v.link.js)
	if err != nil {
		return
	}
	runs, err := proto.OpenRuns(ctx, v.link.js)
	if err != nil {
		return
	}
	for ; ctx.Err() == nil; sleep(ctx, 2*time.Second) {
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		all, err := presence.Workers(asking)
		m, runErr := runs.Get(asking, v.run.Run)
		cancel()
		if err != nil || runErr != nil {
			continue
		}
		v.mu.Lock()
		v.asked, v.state, v.others = true, m.State, v.others[:0]
		for _, w := range all {
			if v.worker == nil || w.Name != hostName() {
				v.others = append(v.others, w)
			}
		}
		v.mu.Unlock()
	}
}

// show shows the run until ctx ends, and then once more.
func (s *screen) show(ctx context.Context, v *view) {
	var asking sync.WaitGroup
	asking.Go(func() { v.ask(ctx) })
	defer asking.Wait()
	name := filepath.Base(v.run.Input.Files[0].Path)
	every := map[string]time.Duration{"bar": 250 * time.Millisecond, "plain": 30 * time.Second, "json": time.Second, "none": time.Hour}[s.mode]
	sampling, showing := time.NewTicker(250*time.Millisecond), time.NewTicker(every)
	defer sampling.Stop()
	defer showing.Stop()
	window := []sample{v.look()}
	for {
		select {
		case <-sampling.C:
			window = append(window, v.look())
			for len(window) > 2 && window[len(window)-1].at.Sub(window[1].at) >= rateWindow {
				window = window[1:]
			}
			continue
		case <-showing.C:
			s.print(name, rates(window))
		case <-ctx.Done():
			if s.mode == "json" {
				s.print(name, rates(append(window, v.look())))
			}
			return
		}
	}
}

// waitForWorkers is how long a run may lack a worker before that is said.
const waitForWorkers = 10 * time.Second

func (v *view) look() sample {
	now, got := time.Now(), v.collector.Progress()
	out := sample{
		Type: "progress", Time: now.UTC().Format(time.RFC3339), Run: v.run.Run, Total: got.Total,
		Done: got.Received.Done, Failed: got.Received.Failed, Durable: got.Durable, State: "running",
		at: now, completedTokens: got.Received.CompletionTokens,
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	out.Workers = len(v.others)
	for _, w := range v.others {
		out.InFlight += w.InFlight
	}
	if v.worker != nil {
		ws := v.worker.Stats()
		out.Workers++
		out.Retries = ws.Retries.Load()
		out.InFlight += ws.InFlight.Load()
		if why, since := v.worker.Waiting(); why != "" {
			out.State = fmt.Sprintf("%s %s", why, now.Sub(since).Round(time.Second))
		} else if ws.Stalled.Load() {
			out.State = "waiting for the bus"
		}
	}
	switch missing, _ := missingModels(v.run, v.others); {
	case got.Finishing:
		out.State = "writing the output files"
	case v.state == proto.StatePaused || v.state == proto.StateCancelling:
		out.State = string(v.state)
	case v.worker == nil && v.asked && len(missing) > 0:
		out.State = "waiting for a worker that serves " + strings.Join(missing, ", ")
	}
	return out
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
	if v.Workers > 1 {
		fmt.Fprintf(&b, "  %d workers", v.Workers)
	}
	return b.String()
}

// summary says what a complete run has brought.
func (s *screen) summary(meta *metadata.Run, out collector.Output, inputs []string) {
	res := meta.Results
	done := "done"
	if meta.Status != proto.StateCompleted {
		done = string(meta.Status)
	}
	s.say("%s: %d answered, %d failed, in %s", done, res.SuccessCount, res.FailureCount, (time.Duration(res.InferenceTimeSeconds*1000) * time.Millisecond).Round(10*time.Millisecond))
	if res.ThroughputRequestsPerSec != nil && res.OutputTokensPerSec != nil {
		s.say("      %.1f requests/s, %.0f tokens/s in, %.0f tokens/s out", *res.ThroughputRequestsPerSec, *res.InputTokensPerSec, *res.OutputTokensPerSec)
	}
	s.files(meta, out, inputs)
}

// files names the output files and the commands to look at them.
func (s *screen) files(meta *metadata.Run, out collector.Output, inputs []string) {
	s.say("  results   %s", shorten(out.Results()))
	if meta.Test.ErrorFile != nil {
		s.say("  errors    %s", shorten(out.Errors()))
	}
	s.say("  metadata  %s", shorten(out.Meta()))
	if len(inputs) > 0 && inputs[0] != "-" {
		s.say("prove it:   promptmill verify %s %s", strings.Join(inputs, " "), shorten(out.Results()))
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
