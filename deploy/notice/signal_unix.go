//go:build unix

package notice

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signals are the signals that can be sources.
var signals = map[string]os.Signal{
	"SIGUSR1": syscall.SIGUSR1,
	"SIGUSR2": syscall.SIGUSR2,
}

// signalSource is a signal that says that this box goes.
type signalSource struct {
	name  string
	asked chan os.Signal
}

// newSignalSource returns the source of a signal. The signal ends the process no more, from now on.
func newSignalSource(name string) (Source, bool) {
	s, known := signals[name]
	if !known {
		return nil, false
	}

	source := &signalSource{
		name:  name,
		asked: make(chan os.Signal, 1),
	}
	signal.Notify(source.asked, s)

	return source, true
}

// String returns the name of the signal.
func (s *signalSource) String() string { return s.name }

func (s *signalSource) watch(ctx context.Context, w *watcher) {
	defer signal.Stop(s.asked)

	for {
		select {
		case <-s.asked:
			w.announce(s, "signal", w.grace)
		case <-ctx.Done():
			return
		}
	}
}
