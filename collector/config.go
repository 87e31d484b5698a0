package collector

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Config configures a collector.
type Config struct {
	// JS is the connection to the bus, with the role of a collector or more. Required.
	JS jetstream.JetStream
	// Journal is the run's journal: created by journal.Create for a new run, by journal.Open
	// for one that was begun. The caller closes it after Run. Required.
	Journal *journal.Journal
	// Output is the common prefix of the output files' paths. The caller claims it for
	// the journal ([journal.Journal.Claim]). Required.
	Output output.Prefix
	// Input is the input of the run. Required.
	Input Input
	// Limits are the limits of the run's streams, if these have to be created again. Defaults to
	// those of [bus.Limits].
	Limits bus.Limits

	// Host names this machine on the bus, for people who look for the output. Defaults to no
	// name.
	Host string
	// FlushInterval is the longest time until a line is in the synced journal. Defaults to
	// 5 s.
	FlushInterval time.Duration
	// Format says how the output files are written. Defaults to one zstd frame of lines in
	// the order of completion.
	Format output.Format
	// Info is the part of the metadata that only the program around the collector knows.
	Info RunInfo
	// WriteTables writes the tables of the output when its lines are written, in the order of the input,
	// and returns their files for the metadata. It may be interrupted and repeated: the journal is there
	// until the metadata is. Defaults to no tables.
	WriteTables func(context.Context) ([]metadata.TableFile, error)
	// OnWritten is called when the output files and the metadata are whole; after a crash,
	// maybe again. Defaults to no call.
	OnWritten func()
	// OnStopped is called when the run is paused because it has reached a limit of its policy, and
	// when Run begins with such a run and has read the results that are there. Run waits for it,
	// and keeps collecting. Defaults to no call.
	OnStopped func(proto.ReachedLimit)
	// OnSynced is called when a frame of the journal is on the disk, with the size of the journal in bytes.
	// The collector waits for it. Defaults to no call.
	OnSynced func(size int64)
	// Log gets what happens to the run. Defaults to no log.
	Log zerolog.Logger
}

// Input is the input of a run. It is read when a run ends before all its requests were
// executed, and when lines of other requests have come.
type Input interface {
	// Requests returns the wanted requests in ascending order, as they are published. A
	// request may be used until the next one. The end of ctx ends it with an error.
	Requests(ctx context.Context, wanted *roaring.Bitmap) iter.Seq2[proto.Request, error]
}

// RunInfo describes a run as far as only the program around the collector knows it.
type RunInfo struct {
	// Platform names the model server, as far as it is known. Workers that report theirs
	// replace it.
	Platform string
	// Version is promptmill's version.
	Version string
	// Concurrency is the fixed limit of requests in flight; 0: it was found while running.
	Concurrency int
}

// validate returns an error that names the first field that is missing.
func (c *Config) validate() error {
	switch {
	case c.JS == nil:
		return errors.New("collector: Config.JS is required")
	case c.Journal == nil:
		return errors.New("collector: Config.Journal is required")
	case c.Output == "":
		return errors.New("collector: Config.Output is required")
	case c.Input == nil:
		return errors.New("collector: Config.Input is required")
	case c.FlushInterval < 0:
		return errors.New("collector: Config.FlushInterval is negative")
	}

	return nil
}
