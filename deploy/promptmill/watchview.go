package main

import (
	"bytes"
	"io"
	"os"

	"golang.org/x/term"
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

// terminalWidth returns the width of the terminal that out is, or 0 if it is none.
func terminalWidth(out io.Writer) int {
	width, _ := terminalSize(out)
	return width
}

// watchView shows texts on standard output, with --watch one in place of the other.
type watchView struct {
	out   io.Writer
	shown bool // a text is shown
}

// show prints a text. On a terminal, a watched text replaces the one before, and is cut to the
// height: a text that scrolls cannot be replaced.
func (v *watchView) show(watched bool, write func(w io.Writer, width int) error) error {
	width, height := terminalSize(v.out)
	if !watched || height == 0 {
		return write(v.out, width)
	}

	var text bytes.Buffer
	if err := write(&text, width); err != nil {
		return err
	}

	lines := bytes.Split(bytes.TrimSuffix(text.Bytes(), []byte("\n")), []byte("\n"))
	if len(lines) > height-1 {
		lines = append(lines[:max(0, height-2)], []byte("... a larger terminal shows the rest"))
	}

	// Line over line, so that nothing flickers and nothing scrolls away.
	var screen bytes.Buffer
	if !v.shown {
		screen.WriteString("\x1b[2J")
		v.shown = true
	}

	screen.WriteString("\x1b[H")
	for _, line := range lines {
		screen.Write(line)
		screen.WriteString("\x1b[K\n")
	}

	screen.WriteString("\x1b[J")
	_, err := v.out.Write(screen.Bytes())

	return err
}
