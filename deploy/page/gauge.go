package page

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto"
)

const (
	// gaugeEvery is the time between two readings of the bus's streams and disks.
	gaugeEvery = 5 * time.Second
	// mostStreams is the most streams that are read, those of the oldest runs: each costs a request to the bus.
	mostStreams = 40
	// nearlyFull is the part of a limit from which on the page warns.
	nearlyFull = 0.9
)

// busGauge measures how full a bus is.
type busGauge struct {
	link *busconn.Connection
	own  bool
	dir  string // of the outputs
	at   time.Time
	// since is the time since which the process is connected.
	since time.Time
	last  Bus
}

// newBusGauge returns the gauge of a bus. own reports that the bus is of this process, and dir is the folder of the
// outputs.
func newBusGauge(link *busconn.Connection, own bool, dir string) *busGauge {
	return &busGauge{link: link, own: own, dir: dir, since: time.Now()}
}

// read returns how full the bus is, as it was measured within gaugeEvery.
func (g *busGauge) read(ctx context.Context, runs map[string]proto.Manifest, now time.Time) Bus {
	if !g.at.IsZero() && now.Sub(g.at) < gaugeEvery {
		return g.last
	}

	name := g.link.Name
	if g.own {
		name = pipeline.HostName() // the connection has no address
	}

	b := Bus{
		Name:      name,
		Version:   g.link.Conn.ConnectedServerVersion(),
		Cluster:   g.link.Conn.ConnectedClusterName(),
		Own:       g.own,
		Since:     g.since,
		Connected: true,
		Streams:   g.readStreams(ctx, runs),
		Warnings:  []string{},
	}

	if account, err := g.link.JS.AccountInfo(ctx); err == nil { // not every role may see it
		b.StoreBytes, b.ReservedBytes = int64(account.Store), int64(account.ReservedStore)
		if account.Limits.MaxStore > 0 {
			b.LimitBytes = &account.Limits.MaxStore
		}
	}

	if free, size, err := files.MeasureDisk(g.dir); err == nil {
		b.DiskFreeBytes, b.DiskBytes = &free, &size
	}

	b.addWarnings(g.dir)
	g.last, g.at = b, now

	return b
}

// readStreams returns the streams of the runs that have not ended, the fullest first.
func (g *busGauge) readStreams(ctx context.Context, runs map[string]proto.Manifest) []Stream {
	list := []Stream{}
	for _, run := range slices.Sorted(maps.Keys(runs)) { // ids begin with the time, so the oldest come first
		m := runs[run]
		if m.State.Ended() || len(list) >= mostStreams {
			continue
		}

		for kind, name := range map[string]string{"work": proto.WorkStream(m.Run), "results": proto.ResultsStream(m.Run)} {
			stream, err := g.link.JS.Stream(ctx, name)
			if err != nil {
				if errors.Is(err, jetstream.ErrStreamNotFound) {
					continue
				}
				return list
			}

			info := stream.CachedInfo()
			s := Stream{
				Name:     name,
				Run:      m.Run,
				Kind:     kind,
				Messages: info.State.Msgs,
				Bytes:    int64(info.State.Bytes),
			}
			if info.Config.MaxBytes > 0 {
				s.LimitBytes = &info.Config.MaxBytes
			}
			list = append(list, s)
		}
	}

	slices.SortFunc(list, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(b.fill(), a.fill()), cmp.Compare(a.Name, b.Name))
	})

	return list
}

// fill returns how full the stream is, 0 to 1; 0 without a limit.
func (s Stream) fill() float64 {
	if s.LimitBytes == nil {
		return 0
	}
	return float64(s.Bytes) / float64(*s.LimitBytes)
}

// addWarnings adds a sentence for each limit that is near.
func (b *Bus) addWarnings(dir string) {
	warn := func(format string, args ...any) { b.Warnings = append(b.Warnings, fmt.Sprintf(format, args...)) }

	if b.DiskBytes != nil && float64(*b.DiskFreeBytes) < (1-nearlyFull)*float64(*b.DiskBytes) {
		warn("The disk of %s has %s free of %s: free space there before runs stop.", dir,
			formatBytes(*b.DiskFreeBytes), formatBytes(*b.DiskBytes))
	}

	if b.LimitBytes != nil && float64(max(b.StoreBytes, b.ReservedBytes)) > nearlyFull*float64(*b.LimitBytes) {
		warn("The bus has %s of %s set aside: promptmill delete takes ended runs off the bus.",
			formatBytes(max(b.StoreBytes, b.ReservedBytes)), formatBytes(*b.LimitBytes))
	}

	for _, s := range b.Streams {
		// The work stream is filled to its limit on purpose: the producer waits for the workers.
		if s.Kind == "results" && s.fill() > nearlyFull {
			warn("The results of run %s fill their stream to %.0f%%: its collector is slower than the workers, "+
				"or does not run.", s.Run, 100*s.fill())
		}
	}

	if busconn.LosesStreams(b.Version) {
		warn("%s.", capitalize(busconn.StreamLossNote))
	}
}

// formatBytes formats a size of disks.
func formatBytes(n int64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) }
