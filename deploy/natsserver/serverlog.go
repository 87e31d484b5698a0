package natsserver

import (
	"fmt"
	"strings"
	"sync"

	"github.com/rs/zerolog"
)

// serverLog passes the server's log to ours. Its errors are information there: the users of the
// bus see their effect on a run, and report it.
type serverLog struct {
	zerolog.Logger
	startup *startupLog
}

func (l serverLog) Noticef(format string, v ...any) { l.Debug().Msgf(format, v...) }

func (l serverLog) Warnf(format string, v ...any) {
	l.startup.record(fmt.Sprintf(format, v...))
	l.Info().Msgf(format, v...)
}

func (l serverLog) Errorf(format string, v ...any) {
	l.startup.record(fmt.Sprintf(format, v...))
	l.Info().Msgf(format, v...)
}

func (l serverLog) Fatalf(format string, v ...any) {
	l.startup.recordFatal(fmt.Sprintf(format, v...))
	l.Info().Msgf(format, v...)
}

func (l serverLog) Debugf(format string, v ...any) { l.Trace().Msgf(format, v...) }
func (l serverLog) Tracef(format string, v ...any) { l.Trace().Msgf(format, v...) }

// startupLog keeps the warnings of a server that starts.
type startupLog struct {
	mu    sync.Mutex
	list  []string
	fatal chan string // why it gave up
}

// maxStartupLines is the most that is kept.
const maxStartupLines = 1000

func newStartupLog() *startupLog { return &startupLog{fatal: make(chan string, 1)} }

func (w *startupLog) record(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) < maxStartupLines {
		w.list = append(w.list, strings.TrimSpace(text))
	}
}

// findAbout returns the first warning that names a stream, or an empty string.
func (w *startupLog) findAbout(stream string) string {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, text := range w.list {
		if strings.Contains(text, stream) {
			return text
		}
	}

	return ""
}

// recordFatal records why the server gave up.
func (w *startupLog) recordFatal(text string) {
	select {
	case w.fatal <- text:
	default:
	}
}
