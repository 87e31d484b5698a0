package terminal

import (
	"context"
	"os"

	"golang.org/x/sys/windows"
)

// FollowJobControl does nothing: Windows has no jobs that stop.
func (s *Screen) FollowJobControl(context.Context) {}

// inBackground reports whether the console cannot be redrawn: one that does not understand escape sequences.
func inBackground(file *os.File) bool {
	console := windows.Handle(file.Fd())

	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return false
	}

	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) != nil
}
