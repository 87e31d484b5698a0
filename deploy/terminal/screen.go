// Package terminal writes the output of promptmill's commands for people.
//
// A [Screen] is the one writer to stderr while a command works. Messages, log lines and a live
// block of [Line] values, such as the progress of a run, go through it, so that none overwrites
// another. Everything printed is made [Printable]: names and answers that others chose cannot
// control the terminal.
package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/exit"
)

// PlainEvery is the interval between lines with the status of a long step, without a live block.
const PlainEvery = 30 * time.Second

// The escape sequences that cut a line that is too long, and that wrap it again.
const (
	wrapOff = "\x1b[?7l"
	wrapOn  = "\x1b[?7h"
)

// Mode is the way in which a screen shows progress.
type Mode string

// Modes of a screen.
const (
	ModeBar   Mode = "bar"   // a live block on a terminal
	ModePlain Mode = "plain" // lines
	ModeJSON  Mode = "json"  // an object a line
	ModeNone  Mode = "none"  // messages alone
)

// Config configures a screen.
type Config struct {
	// Out gets the output. Required.
	Out io.Writer
	// Mode is the way in which progress is shown. Defaults to ModePlain.
	Mode Mode
	// Colour allows colours.
	Colour bool
	// Size returns the size of the terminal in cells. Defaults to no terminal: lines are not
	// broken, and a block has 80 x 24 cells.
	Size func() (width, height int)
	// Reflows is set if the terminal is known to wrap the lines on it again when it becomes narrower.
	Reflows bool
	// Background reports whether the process is a background job, which draws no block. Defaults
	// to never.
	Background func() bool
}

// Screen is the one writer to stderr while a command works: log lines and messages scroll above
// a live block on a terminal, and stand between plain lines elsewhere. Its methods are safe for
// concurrent use.
type Screen struct {
	mode       Mode
	colour     bool
	wraps      bool // lines are broken to the width of the terminal
	size       func() (width, height int)
	reflows    bool
	background func() bool

	// mu guards the fields below.
	mu       sync.Mutex
	out      io.Writer
	block    []Line // the live block, as drawn
	width    int    // of the terminal when the block was drawn
	status   string // the current activity, as a plain line
	runShown bool   // a run is shown and has the block for itself
	closed   bool   // no block is drawn any more
}

// New returns a screen.
func New(cfg Config) *Screen {
	s := &Screen{
		mode:       cfg.Mode,
		colour:     cfg.Colour,
		wraps:      cfg.Size != nil,
		size:       cfg.Size,
		reflows:    cfg.Reflows,
		background: cfg.Background,
		out:        cfg.Out,
	}
	if s.mode == "" {
		s.mode = ModePlain
	}
	if s.size == nil {
		s.size = func() (int, int) { return 80, 24 }
	}
	if s.background == nil {
		s.background = func() bool { return false }
	}

	return s
}

// Open returns the screen of a command whose --progress is auto, bar, plain, json or none. With
// auto there is a live block on a terminal, unless it is a dumb one.
func Open(out *os.File, progress string, getenv func(string) string) (*Screen, error) {
	isTerminal := term.IsTerminal(int(out.Fd()))
	cfg := Config{
		Out:        out,
		Mode:       Mode(progress),
		Colour:     HasColour(out, getenv),
		Reflows:    reflows(getenv),
		Background: func() bool { return inBackground(out) },
	}

	switch cfg.Mode {
	case "auto":
		cfg.Mode = ModePlain
		if isTerminal && getenv("TERM") != "dumb" {
			cfg.Mode = ModeBar
		}
	case ModeBar, ModePlain, ModeJSON, ModeNone:
	default:
		return nil, exit.Usage("give one of auto, bar, plain, json and none",
			"--progress %q is no way to show progress", progress)
	}

	if isTerminal {
		cfg.Size = func() (int, int) { return terminalSize(out) }
	}

	return New(cfg), nil
}

// terminalSize returns the size of a terminal in cells: 80 x 24 if it does not say it.
func terminalSize(out *os.File) (width, height int) {
	width, height, err := term.GetSize(int(out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// reflows reports whether the terminal is a tmux, which wraps lines again at each resize. Most other
// terminals do so as well, but xterm and screen do not, and the variables of a terminal are inherited by
// those that are started in it.
func reflows(getenv func(string) string) bool {
	kind := getenv("TERM")
	return getenv("TMUX") != "" && getenv("STY") == "" &&
		(strings.HasPrefix(kind, "tmux") || strings.HasPrefix(kind, "screen"))
}

// HasColour reports whether out is a terminal that shows colours, and NO_COLOR is not set.
func HasColour(out io.Writer, getenv func(string) string) bool {
	return IsTerminal(out) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// IsTerminal reports whether out is a terminal.
func IsTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Mode returns how the screen shows progress.
func (s *Screen) Mode() Mode { return s.mode }

// Size returns the size of the terminal in cells.
func (s *Screen) Size() (width, height int) { return s.size() }

// Write writes log lines. It implements [io.Writer].
func (s *Screen) Write(p []byte) (int, error) {
	var err error
	if s.mode == ModeJSON {
		err = s.write(p)
	} else {
		var lines []Line
		for line := range strings.Lines(PrintableLines(string(p))) {
			lines = append(lines, colourLevel(strings.TrimSuffix(line, "\n")))
		}
		err = s.writeLines(lines)
	}

	if err != nil {
		return 0, err
	}

	return len(p), nil
}

// Printf writes a message for the user, on a separate line.
func (s *Screen) Printf(format string, args ...any) {
	if s.mode == ModeJSON {
		s.WriteJSON(map[string]any{"type": "message", "text": fmt.Sprintf(format, args...)})
		return
	}

	var lines []Line
	for line := range strings.SplitSeq(formatPrintable(format, args), "\n") {
		lines = append(lines, NewLine(line))
	}
	s.writeLines(lines)
}

// Print writes lines for the user: each is a message in [ModeJSON].
func (s *Screen) Print(lines ...Line) {
	if s.mode == ModeJSON {
		for _, l := range lines {
			s.WriteJSON(map[string]any{"type": "message", "text": l.Plain().String()})
		}
		return
	}

	printable := make([]Line, len(lines))
	for i, l := range lines {
		printable[i] = l.makePrintable()
	}
	s.writeLines(printable)
}

// writeLines writes printable lines, broken to the width of the terminal.
func (s *Screen) writeLines(lines []Line) error {
	var text bytes.Buffer
	for _, l := range lines {
		parts := []Line{l}
		if s.wraps {
			width, _ := s.size()
			parts = l.wrap(width)
		}

		for _, part := range parts {
			if !s.colour {
				part = part.Plain()
			}
			text.WriteString(part.String() + "\n")
		}
	}

	return s.write(text.Bytes())
}

// write writes whole lines above the live block.
func (s *Screen) write(text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if len(s.block) == 0 {
		_, err := s.out.Write(text)
		return err
	}

	block := s.block
	if !s.runShown {
		block = nil // a clock draws itself again, or it is over
	}

	return s.redraw(text, block)
}

// WriteJSON writes a value as a line of JSON.
func (s *Screen) WriteJSON(v any) {
	if line, err := json.Marshal(v); err == nil {
		s.write(append(line, '\n'))
	}
}

// ReportError reports the error that ends a command, if a program reads the screen: the caller
// of the command would print lines for people. It returns the error that is left to print.
func (s *Screen) ReportError(err error) error {
	if s.mode != ModeJSON || err == nil {
		return err
	}

	if !exit.IsReported(err) {
		var limit *string
		if text := exit.Limit(err); text != "" {
			limit = &text
		}

		s.WriteJSON(map[string]any{
			"type":      "error",
			"text":      err.Error(),
			"hint":      exit.Hint(err),
			"exit_code": exit.Code(err),
			"limit":     limit,
		})
	}

	return exit.Reported(exit.Code(err))
}

// Draw shows the live block. Without lines it removes the block.
func (s *Screen) Draw(block ...Line) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.closed {
		block = nil
	}
	s.redraw(nil, block)
}

// Close removes the live block for good. Messages can still be written.
func (s *Screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.redraw(nil, nil)
}

// redraw replaces the live block by the text that scrolls above it and by the new block. It
// writes all at once, and line over line, so that nothing flickers.
func (s *Screen) redraw(above []byte, block []Line) error {
	if s.background() {
		s.block = nil
		if len(above) == 0 { // the terminal may stop a background job for writing nothing, too
			return nil
		}
		_, err := s.out.Write(above)
		return err
	}

	width, height := s.size()
	var b bytes.Buffer

	rows := s.countDrawnRows(width)
	if rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", rows)
	}

	// A row that is overwritten still counts as wrapped. A wider terminal would join it with the next
	// one, and the block would have fewer rows than lines. The rows are erased one by one, because tmux
	// moves them to its history if all of the screen is erased.
	if rows > 0 && (len(above) > 0 || width != s.width) {
		b.WriteString(strings.Repeat("\x1b[2K\x1b[B", rows))
		fmt.Fprintf(&b, "\x1b[%dA\r", rows)
	}
	b.Write(above)

	s.block, s.width = s.block[:0:0], width
	if len(block) > 0 { // the terminal may be narrower already: tmux reports a resize late
		b.WriteString(wrapOff)
	}

	for _, l := range block[:min(len(block), max(1, height-2))] {
		l = l.makePrintable().cut(width - 1) // some terminals wrap a line that fills the last cell
		s.block = append(s.block, l)
		if !s.colour {
			l = l.Plain()
		}
		b.WriteString(l.String() + "\x1b[K\n")
	}

	if len(block) > 0 {
		b.WriteString(wrapOn)
	}
	if rows > 0 {
		b.WriteString("\x1b[J")
	}

	_, err := s.out.Write(b.Bytes())

	return err
}

// countDrawnRows returns how many rows above the cursor hold the live block, in a terminal that has
// width columns now. Where it is not known, it returns the least: a rest of the old block stays, and no
// line of others is erased.
func (s *Screen) countDrawnRows(width int) int {
	if !s.reflows || width >= s.width {
		return len(s.block)
	}

	rows := 0
	for _, l := range s.block {
		rows += max(1, (l.Width()+width-1)/width)
	}

	return rows
}

// SetStatus sets the status for [Screen.PrintStatusOnSignal].
func (s *Screen) SetStatus(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// ShowStatus sets the status and shows it as the live block, if there is one and no run has it.
func (s *Screen) ShowStatus(status string) {
	s.SetStatus(status)
	if s.mode == ModeBar && !s.isRunShown() {
		s.Draw(NewLine(status))
	}
}

// ShowClock shows how long a step takes: on a terminal all the time, elsewhere each PlainEvery
// after *shown, which it sets. While a run is shown, the run's status has the step.
func (s *Screen) ShowClock(step string, passed time.Duration, shown *time.Time) {
	if s.isRunShown() {
		return
	}

	status := fmt.Sprintf("%s %s", step, passed.Round(time.Second))
	s.ShowStatus(status)

	if s.mode != ModeBar && time.Since(*shown) >= PlainEvery {
		*shown = time.Now()
		s.Printf("%s", status)
	}
}

// PrintStatusOnSignal prints the status at each signal until ctx ends.
func (s *Screen) PrintStatusOnSignal(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-signals:
			s.mu.Lock()
			status := s.status
			s.mu.Unlock()
			if status == "" {
				status = "starting"
			}

			s.Printf("%s  %s", time.Now().Format(time.TimeOnly), status)
		case <-ctx.Done():
			return
		}
	}
}

// SetRunShown sets whether a run is shown, which then has the live block for itself.
func (s *Screen) SetRunShown(shown bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runShown = shown
}

func (s *Screen) isRunShown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runShown
}
