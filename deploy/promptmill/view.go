package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// terminalSize returns the size in cells of the terminal that out is, or 0 and 0 if it is none.
func terminalSize(out io.Writer) (width, height int) {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0, 0
	}

	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, 0
	}

	return width, height
}

// formatMinute formats a time of this machine's time zone, or returns a word for none.
func formatMinute(at time.Time, none string) string {
	if at.IsZero() {
		return none
	}
	return at.Local().Format("2006-01-02 15:04")
}

// view shows texts on standard output, with --watch one in place of the other.
type view struct {
	out io.Writer
	// drawn reports that a text is drawn on the terminal.
	drawn bool
}

// show prints the text that write writes for a width in cells; 0: without a limit. On a terminal,
// lines are broken at spaces.
func (v *view) show(write func(w io.Writer, width int) error) error {
	width, _ := terminalSize(v.out)
	lines, err := wrapText(width, write)
	if err != nil {
		return err
	}

	_, err = io.WriteString(v.out, strings.Join(lines, "\n")+"\n")

	return err
}

// draw is show in the place of the text before, on a terminal. The text is cut to the height: one
// that scrolls could not be replaced.
func (v *view) draw(write func(w io.Writer, width int) error) error {
	width, height := terminalSize(v.out)
	if height == 0 {
		return v.show(write)
	}

	lines, err := wrapText(width, write)
	if err != nil {
		return err
	}

	if len(lines) > height-1 {
		lines = append(lines[:max(0, height-2)], "... a larger terminal shows the rest")
	}

	// Line over line, so that nothing flickers.
	var screen bytes.Buffer
	if !v.drawn {
		screen.WriteString("\x1b[2J")
		v.drawn = true
	}

	screen.WriteString("\x1b[H")
	for _, line := range lines {
		screen.WriteString(line + "\x1b[K\n")
	}

	screen.WriteString("\x1b[J")
	_, err = v.out.Write(screen.Bytes())

	return err
}

// wrapText returns the lines of a text for a terminal of a width; 0: there is none.
func wrapText(width int, write func(w io.Writer, width int) error) ([]string, error) {
	var text bytes.Buffer
	err := write(&text, max(0, width-1)) // some terminals wrap a line that fills the last cell

	return terminal.WrapLines(text.String(), width), err
}
