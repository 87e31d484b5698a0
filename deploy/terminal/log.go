package terminal

import (
	"strings"

	"github.com/rs/zerolog"
)

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

// logTime is the width of the time in front of the level of a log line.
const logTime = len("15:04:05")

// colourLevel returns a log line with a colour for the level of a warning or an error.
func colourLevel(line string) Line {
	for level, colour := range map[string]string{" WRN ": Yellow, " ERR ": Red} {
		if len(line) > logTime && strings.HasPrefix(line[logTime:], level) {
			end := logTime + len(level)
			return Line{{Text: line[:logTime]}, {Text: line[logTime:end], Colour: colour}, {Text: line[end:]}}
		}
	}

	return NewLine(line)
}
