package notice

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Notice is the news that this box goes away.
type Notice struct {
	// Source names the source, as [Parse] reads it: aws, file:/run/leave.
	Source string
	// Reason says in a few words what happens: "spot instance: terminate".
	Reason string
	// Deadline is when the box goes. It is never before the moment of the notice.
	Deadline time.Time
}

// Source is a place where notices appear. [Parse] and [Auto] return sources.
type Source interface {
	// String names the source as [Parse] reads it.
	String() string
	// watch announces notices to w until ctx ends.
	watch(ctx context.Context, w *watcher)
}

// DefaultGrace is the time left after a notice that names none.
const DefaultGrace = 30 * time.Second

// Config describes what [Watch] watches.
type Config struct {
	// Sources are the places to watch. None: Watch returns at once.
	Sources []Source
	// Grace is the time left after a notice that names none. Defaults to [DefaultGrace].
	Grace time.Duration
	// Announce gets each notice that is the first, or whose deadline is nearer than all before. It is not called
	// again before it has returned. Required.
	Announce func(Notice)
	// Log gets warnings about sources that do not answer. The zero value discards them.
	Log zerolog.Logger
}

// Watch watches sources until ctx ends. It returns an error if the configuration is wrong.
func Watch(ctx context.Context, cfg Config) error {
	switch {
	case cfg.Announce == nil:
		return fmt.Errorf("notice: Config.Announce is required")
	case cfg.Grace < 0:
		return fmt.Errorf("notice: Config.Grace is %s, must not be negative", cfg.Grace)
	case cfg.Grace == 0:
		cfg.Grace = DefaultGrace
	}

	w := &watcher{
		grace:      cfg.Grace,
		onNotice:   cfg.Announce,
		log:        cfg.Log,
		outageAt:   zerolog.WarnLevel,
		announcing: &announcements{},
	}

	var watching sync.WaitGroup
	for _, s := range cfg.Sources {
		watching.Go(func() { s.watch(ctx, w) })
	}

	watching.Wait()

	return nil
}

// watcher is shared by the sources of one call of [Watch].
type watcher struct {
	grace    time.Duration
	onNotice func(Notice)
	log      zerolog.Logger
	outageAt zerolog.Level // of the line about a source that does not answer

	announcing *announcements
}

// announcements remembers the notices of all sources.
type announcements struct {
	mu      sync.Mutex
	nearest time.Time // zero: none was announced
}

// nearer is the least change of a deadline that is announced again: the times of servers have whole seconds.
const nearer = 1500 * time.Millisecond

// announce announces that the box goes after the time left.
func (w *watcher) announce(s Source, reason string, left time.Duration) {
	w.announcing.mu.Lock()
	defer w.announcing.mu.Unlock()

	deadline := time.Now().Add(max(0, left))
	if n := w.announcing.nearest; !n.IsZero() && !deadline.Before(n.Add(-nearer)) {
		return
	}

	w.announcing.nearest = deadline
	w.onNotice(Notice{
		Source:   s.String(),
		Reason:   reason,
		Deadline: deadline,
	})
}

// withQuietLog returns a watcher that does not warn of a source without an answer, since nobody has named it.
func (w *watcher) withQuietLog() *watcher {
	quiet := *w
	quiet.outageAt = zerolog.DebugLevel

	return &quiet
}

// outage logs the first of several failures of a source in a row, and their end.
type outage struct {
	source Source
	lasts  bool
}

// noteAnswer records the outcome of an attempt at the source.
func (o *outage) noteAnswer(ctx context.Context, w *watcher, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil && o.lasts:
		o.lasts = false
		w.log.WithLevel(w.outageAt).Str("source", o.source.String()).Msg("the source of notices answers again")
	case err != nil && !o.lasts:
		o.lasts = true
		w.log.WithLevel(w.outageAt).Str("source", o.source.String()).Err(err).Msg(
			"failed to learn whether this box goes away; trying again and again")
	}
}

// pollUntilEnd calls ask at once, and again after every, until ctx ends. It logs failures, and waits twice as long
// after one.
func pollUntilEnd(ctx context.Context, w *watcher, s Source, every time.Duration, ask func() error) {
	o := outage{source: s}
	for ctx.Err() == nil {
		err := ask()
		o.noteAnswer(ctx, w, err)

		wait := every
		if err != nil {
			wait *= 2
		}

		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}
