package main

import (
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/terminal"
)

// newLog is a command's log: lines for people, or objects among those of --progress json.
func newLog(verbose bool, screen *terminal.Screen) zerolog.Logger {
	level := zerolog.WarnLevel
	if verbose {
		level = zerolog.DebugLevel
	}

	if screen.Mode() == terminal.ModeJSON {
		return zerolog.New(screen).Level(level).With().Str("type", "log").Timestamp().Logger()
	}

	return zerolog.New(zerolog.ConsoleWriter{Out: screen, NoColor: true, TimeFormat: "15:04:05"}).Level(level).With().
		Timestamp().Logger()
}
