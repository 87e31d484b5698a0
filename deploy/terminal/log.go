package terminal

import "github.com/rs/zerolog"

// NewLog returns the log of a command, which writes to the screen: lines for people, or objects
// among those of [ModeJSON]. It has warnings and errors and, if it is verbose, all.
func (s *Screen) NewLog(verbose bool) zerolog.Logger {
	level := zerolog.WarnLevel
	if verbose {
		level = zerolog.DebugLevel
	}

	if s.mode == ModeJSON {
		return zerolog.New(s).Level(level).With().Str("type", "log").Timestamp().Logger()
	}

	console := zerolog.ConsoleWriter{Out: s, NoColor: true, TimeFormat: "15:04:05"}

	return zerolog.New(console).Level(level).With().Timestamp().Logger()
}
