package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/modelservers"
)

// screen is the one writer to stderr while a run goes on: log lines and messages
// scroll above a live block on a terminal, and stand between plain lines elsewhere.
type screen struct {
	mode   string // bar, plain, json or none
	colour bool
	size   func() (width, height int)

	mu     sync.Mutex
	out    io.Writer
	block  []line // the live block, on the terminal
	status string // what goes on, as a plain line
	runs   bool   // a run is shown, which has the block for itself
}

// newScreen makes the screen of a command. Where nobody asks for it, there is no live
// block on what is no terminal or a dumb one, nor for those who want no colours.
func newScreen(out *os.File, mode string, getenv func(string) string) (*screen, error) {
	switch mode {
	case "auto":
		mode = "plain"
		if term.IsTerminal(int(out.Fd())) && getenv("TERM") != "dumb" && getenv("NO_COLOR") == "" {
			mode = "bar"
		}
	case "bar", "plain", "json", "none":
	default:
		return nil, exit.Usage("", "--progress %q: want auto, bar, plain, json or none", mode)
	}

	size := func() (int, int) {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			return 80, 24
		}
		return width, height
	}

	return &screen{
		mode:   mode,
		colour: getenv("NO_COLOR") == "",
		size:   size,
		out:    out,
	}, nil
}

// Write writes log lines.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	n := len(p)
	if s.mode != "json" {
		p = []byte(printableLines(string(p)))
	}

	if len(s.block) == 0 {
		_, err := s.out.Write(p)
		return n, err
	}

	block := s.block
	if !s.runs {
		block = nil // a clock comes again by itself, or it is over
	}

	if err := s.redraw(p, block); err != nil {
		return 0, err
	}

	return n, nil
}

// say writes a message for the user.
func (s *screen) say(format string, args ...any) {
	if s.mode == "json" {
		s.json(map[string]any{"type": "message", "text": fmt.Sprintf(format, args...)})
		return
	}
	printf(s, format+"\n", args...)
}

func (s *screen) json(v any) {
	if line, err := json.Marshal(v); err == nil {
		s.Write(append(line, '\n'))
	}
}

// failed says how a command ends, where a program reads: the caller's caller would print
// a line for people.
func (s *screen) failed(err error) error {
	if s.mode != "json" || err == nil {
		return err
	}

	if !exit.IsReported(err) {
		s.json(map[string]any{
			"type":      "error",
			"text":      err.Error(),
			"hint":      exit.Hint(err),
			"exit_code": exit.Code(err),
		})
	}

	return exit.Reported(exit.Code(err))
}

// draw shows the live block; no lines take it away.
func (s *screen) draw(block ...line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redraw(nil, block)
}

// redraw writes, where the live block stands, what is to scroll above it, and the block
// again. It does so at once, and line over line, so that nothing flickers.
func (s *screen) redraw(above []byte, block []line) error {
	width, height := s.size()
	var b bytes.Buffer

	// A terminal that became narrower has wrapped the lines.
	rows := 0
	for _, l := range s.block {
		rows += max(1, (l.width()+width-1)/width)
	}

	if rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", rows)
	}

	if len(above) > 0 {
		b.WriteString("\x1b[J")
		b.Write(above)
	}

	s.block = s.block[:0:0]
	for _, l := range block[:min(len(block), max(1, height-2))] {
		l = l.printable().cut(width - 1) // what fills the last cell makes some terminals wrap
		s.block = append(s.block, l)
		if !s.colour {
			l = l.plain()
		}
		b.WriteString(l.String() + "\x1b[K\n")
	}

	if rows > 0 {
		b.WriteString("\x1b[J")
	}

	_, err := s.out.Write(b.Bytes())

	return err
}

// close takes the live block away.
func (s *screen) close() { s.draw() }

// now notes what goes on, for who asks, and whether that may be drawn.
func (s *screen) now(status string) (drawn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
	return s.mode == "bar" && !s.runs
}

// answer says what goes on whenever somebody asks, until ctx ends.
func (s *screen) answer(ctx context.Context, asked <-chan os.Signal) {
	for {
		select {
		case <-asked:
			s.mu.Lock()
			status := s.status
			s.mu.Unlock()
			if status == "" {
				status = "starting"
			}

			s.say("%s  %s", time.Now().Format(time.TimeOnly), status)
		case <-ctx.Done():
			return
		}
	}
}

// setRuns says whether a run is shown.
func (s *screen) setRuns(runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = runs
}

// clock shows how long something takes: on a terminal all the time, elsewhere every
// half minute since it was shown last. While a run is shown, that says it.
func (s *screen) clock(what string, passed time.Duration, shown *time.Time) {
	status := fmt.Sprintf("%s %s", what, passed.Round(time.Second))
	s.mu.Lock()
	runs := s.runs
	s.mu.Unlock()
	switch {
	case runs:
	case s.now(status):
		s.draw(text(status))
	case s.mode != "bar" && time.Since(*shown) >= plainEvery:
		*shown = time.Now()
		s.say("%s", status)
	}
}

// loading returns what shows how long model servers load: a clock for each.
func (s *screen) loading() modelservers.Loading {
	var mu sync.Mutex
	shown := map[string]time.Time{} // by URL

	return func(url, what string, waited time.Duration) {
		mu.Lock()
		defer mu.Unlock()

		last, ok := shown[url]
		if !ok {
			last = time.Now().Add(-waited)
		}

		s.clock(what, waited, &last)
		shown[url] = last
	}
}

// validating shows how far validation is.
func (s *screen) validating(requests int, bytes int64) {
	if requests%65536 != 0 {
		return
	}
	status := fmt.Sprintf("validating: %s lines, %d MB", grouped(requests), bytes>>20)
	if s.now(status) {
		s.draw(text(status))
	}
}
