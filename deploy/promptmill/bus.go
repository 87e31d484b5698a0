package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/proto"
)

// bus is an embedded NATS server that nobody but this process can reach.
type bus struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	dir    string
	limits proto.Limits
}

const (
	maxPayload   = 16 << 20
	maxWork      = 1 << 30
	maxResults   = 128 << 20 // nobody else reads them here, and the collector keeps up
	startTimeout = 60 * time.Second
)

// startBus starts a server with its store in dir.
func startBus(dir string, log zerolog.Logger) (*bus, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the bus's store: %w", err)
	}
	room, err := roomFor(dir)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "promptmill", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: dir,
		// The streams' own limits hold first; a full disk would freeze a stream until
		// the server restarts.
		JetStreamMaxStore:  room * 9 / 10,
		JetStreamMaxMemory: 64 << 20, // for short-lived consumers; streams are files
		// A power cut may take what was stored within this time; it is run again.
		SyncInterval: time.Second,
		MaxPayload:   maxPayload,
		MaxPending:   256 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("start the bus: %w", err)
	}
	s.SetLoggerV2(serverLog{log.With().Str("part", "nats").Logger()}, false, false, false)
	go s.Start()
	b := &bus{server: s, dir: dir, limits: proto.Limits{
		WorkBytes: min(maxWork, room/4), ResultsBytes: min(maxResults, room/4),
	}}
	if !s.ReadyForConnections(startTimeout) {
		b.stop()
		return nil, fmt.Errorf("start the bus: not ready after %s", startTimeout)
	}
	if !s.JetStreamEnabled() {
		b.stop()
		return nil, fmt.Errorf("start the bus: JetStream cannot use its store %s (is the disk full?)", dir)
	}
	b.conn, err = nats.Connect("", nats.InProcessServer(s), nats.Name("promptmill"), nats.MaxReconnects(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn().Err(err).Msg("bus") }))
	if err == nil {
		b.js, err = jetstream.New(b.conn, jetstream.WithPublishAsyncTimeout(30*time.Second))
	}
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	return b, nil
}

// stop ends the server and waits until its store is closed.
func (b *bus) stop() {
	if b.conn != nil {
		b.conn.Close()
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// errBusStore is the cause of a run's end when the bus cannot store any more.
var errBusStore = errors.New("the bus cannot write its store")

// watch returns an error when the bus has lost its store or its disk is full: then a
// stream takes nothing any more until the server is started again.
func (b *bus) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if _, err := os.Stat(filepath.Join(b.dir, "jetstream")); err != nil {
			return fmt.Errorf("%w: %w", errBusStore, err)
		}
		if h := b.server.Healthz(&server.HealthzOptions{}); h.Error != "" {
			return fmt.Errorf("%w: %s", errBusStore, h.Error)
		}
	}
}

// roomFor is how many bytes the store in dir may have: what is free on its disk, and
// what it has already.
func roomFor(dir string) (int64, error) {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	room := int64(disk.Bavail) * int64(disk.Bsize) //nolint:unconvert // it is a uint32 on macOS
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			room += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look at the bus's store: %w", err)
	}
	if room < 1<<20 {
		return 0, withHint(fmt.Errorf("the disk of %s is full: %d bytes are free", dir, room), "free some space, or choose another disk with --state DIR")
	}
	return room, nil
}

// serverLog passes what the server says to our log. Its errors are no more than
// information there: what they mean for a run is seen, and said, by who uses the bus.
type serverLog struct{ zerolog.Logger }

func (l serverLog) Noticef(format string, v ...any) { l.Debug().Msgf(format, v...) }
func (l serverLog) Warnf(format string, v ...any)   { l.Info().Msgf(format, v...) }
func (l serverLog) Fatalf(format string, v ...any)  { l.Error().Msgf(format, v...) }
func (l serverLog) Errorf(format string, v ...any)  { l.Info().Msgf(format, v...) }
func (l serverLog) Debugf(format string, v ...any)  { l.Trace().Msgf(format, v...) }
func (l serverLog) Tracef(format string, v ...any)  { l.Trace().Msgf(format, v...) }
