package inputerror

import "github.com/promptmill/promptmill/deploy/exit"

// hint is the way to an input that can be sent: a text and the command line behind it, which may be
// empty.
type hint struct{ text, command string }

// usage returns an error of the input with the hint.
func (h hint) usage(format string, args ...any) error {
	err := exit.Usage("", format, args...)
	if h.command == "" {
		return exit.WithHint(err, h.text)
	}
	return exit.WithCommand(err, h.text, h.command)
}
