package terminal_test

import (
	"os"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// A worker with a hostile name can neither clear the screen nor print a line of its own.
func ExampleFprintf() {
	terminal.Fprintf(os.Stdout, "worker %s is ready\n", "\x1b[2Jbox\nerror: all is lost")
	// Output: worker ?[2Jbox error: all is lost is ready
}

func ExampleScreen_Printf() {
	screen := terminal.New(terminal.Config{Out: os.Stdout, Mode: terminal.ModeJSON})
	screen.Printf("run %s: %d requests", "r-1", 3)
	// Output: {"text":"run r-1: 3 requests","type":"message"}
}
