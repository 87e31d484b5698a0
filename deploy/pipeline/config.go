package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/collector/report"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/modelservers"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/deploy/objectstore"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/modelserver"
)

// Config describes the input, the model servers, the bus and the output of a run. The zero
// value of each field that is not required is safe.
type Config struct {
	// Inputs are the files of requests: JSONL in OpenAI's batch format, or with one request body
	// a line, plain, gzip or zstd. "-" alone is Stdin. Required.
	Inputs []string
	// Opener opens the inputs. Defaults to files of this machine.
	Opener inputfile.Opener
	// Stdin is read if Inputs is "-". Defaults to os.Stdin.
	Stdin io.Reader
	// Output is NAME or NAME.jsonl.zst: answers are written to NAME.jsonl.zst, metadata, reports
	// and failed requests beside it. A run is resumed by its output. Required.
	Output string

	// ServerURL is an OpenAI-compatible model server. Defaults to Servers.
	ServerURL string
	// Servers selects the model servers and their settings. Defaults to the servers found at the
	// usual ports of this machine.
	Servers modelservers.Config
	// Opened, if not nil, are model servers that the caller has opened, and closes when it wants to.
	// It excludes ServerURL and Servers. Run waits until they are loaded.
	Opened *modelservers.Set
	// Workers has the settings of the workers.
	Workers WorkerConfig

	// Settings apply to the lines of the input: models, body fields, a schema.
	// ShardSize defaults to 32 requests, and ShardBytes to 256 KiB (1 MiB with GroupByPrefix).
	// Workers is always set.
	Settings proto.Settings
	// Policy sets how the bus treats the run, and the limits that stop it with a [LimitError]: of
	// a run that is resumed, these may be others. Attended is always set. Defaults to no expiry, no
	// limits, and to no time on the bus after the end.
	Policy proto.RunPolicy
	// RunID is the id of the run. Defaults to one from the time.
	RunID string
	// Label is a name for the run, for people: see [proto.CheckLabel]. A run that is resumed with
	// another label has that one from then on. Defaults to the label that the run has, or none.
	Label string
	// Retry runs the failed requests of a complete run again. Defaults to false: a complete run
	// is only reported.
	Retry bool

	// Bus names the NATS server. Defaults to one that is embedded in this process.
	Bus busconn.Options
	// Listen is where the embedded server listens, HOST:PORT. Workers on other machines can join
	// it then. Defaults to this machine alone.
	Listen natsserver.ListenAddress
	// Shared is set if other machines may work for the run, so that it may wait for workers.
	// Defaults to false. It is set with Bus and with Listen.
	Shared bool
	// State is the folder for state: locks, the embedded server's store, copies of standard
	// input. Defaults to $XDG_STATE_HOME/promptmill, or ~/.local/state/promptmill.
	State string

	// FlushInterval is the longest time until an answer is in the output file. Defaults to 5 s.
	FlushInterval time.Duration
	// Format is the format of the output file. Defaults to lines in the order of their arrival.
	Format output.Format
	// Table is a table of the answers beside the output's files. Defaults to none.
	Table TableOutput
	// Report adds data to the report besides the run. Defaults to no prices, and to the
	// last run of another model on the same input for comparison.
	Report report.Options

	// Version is the version of the program, for the metadata. Defaults to none.
	Version string
	// Metrics, if not nil, exports the counters of the parts of the run, the run as the bus has it, and the disks
	// of the folders.
	Metrics *metrics.Exporter
	// Observe, if not nil, returns the observer of the requests at a model server; nil: none.
	Observe func(*modelserver.Server) worker.Observer
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Hooks report the progress of the run.
	Hooks Hooks
	// Upload, if not nil, copies the output to another place.
	Upload Upload
	// API, if not nil, serves the run to clients of another protocol. It is called when the run is on the
	// bus, and runs beside the parts of the run until ctx ends; the bus stays up until it returns. Its error
	// ends the run.
	API func(ctx context.Context, run LiveRun) error
}

// Upload copies the output of a run to another place, such as an object store. The local files stay.
type Upload interface {
	// LogTo sets the log of what fails and is tried again. It is called first.
	LogTo(log zerolog.Logger)
	// Output names the files there, for people.
	Output() output.Prefix
	// Prepare is called before anything is done for the run, and refuses a place that cannot be used.
	Prepare(ctx context.Context) error
	// Follow copies the journal of a run, of which size bytes are synced, until ctx ends. It returns an error
	// if another run has the output.
	Follow(ctx context.Context, run string, size int64) error
	// Synced notes that the synced journal has another size. It must not wait.
	Synced(size int64)
	// Finish copies the files of the complete run that are not there yet, and returns their number. Its error
	// has an exit code, unless ctx has ended.
	Finish(ctx context.Context, meta *metadata.Run) (copied int, err error)
}

// LiveRun is a run that is on the bus.
type LiveRun struct {
	// Bus is the connection to its bus.
	Bus *busconn.Connection
	// Run is the id of the run.
	Run string
	// Inputs are the absolute paths of the input files, or of the copy of standard input.
	Inputs []string
	// Output names the files of the output.
	Output output.Prefix
}

// Hooks are functions that report the progress of a run. Each may be nil.
type Hooks struct {
	// Printf gets lines for a person at a terminal, such as a hint how to join other machines.
	Printf func(format string, args ...any)
	// Validating is called as the input is read for the first time, with the requests and bytes
	// read until then.
	Validating func(requests int, bytes int64)
	// Loading is called while a model server loads.
	Loading modelservers.Loading
	// Start is called before requests run, with the facts of the run: its servers, bus and output.
	Start func(progress.Start)
	// Collecting is called before requests run, with a function that returns at any time what the
	// collector has so far.
	Collecting func(counts func() collector.Progress)
	// Progress is called four times a second while requests run, and at the end with a final
	// sample: how far the run is, its rates, workers and remaining time. It is never called
	// twice at a time, and the run waits for the last call.
	Progress func(progress.Sample)
}

// printf calls Printf.
func (h Hooks) printf(format string, args ...any) {
	if h.Printf != nil {
		h.Printf(format, args...)
	}
}

// printJoin prints how a worker joins an embedded server.
func (h Hooks) printJoin(s *natsserver.Server) {
	switch {
	case s.Reachable():
		h.printf("to add a box, run this there:\n  promptmill worker --join %s", s.JoinString(proto.RoleWorker))
	case s.Local():
		h.printf("only this machine can join, with promptmill worker; --listen %s lets other boxes join",
			s.OpenAddress())
	default:
		h.printf("no other box can join: this machine has no address in a network; --advertise HOST names one")
	}
}

// start calls Start.
func (h Hooks) start(v progress.Start) {
	if h.Start != nil {
		h.Start(v)
	}
}

// printLines calls Printf for each line.
func (h Hooks) printLines(lines []string) {
	for _, line := range lines {
		h.printf("%s", line)
	}
}

// startProgress calls Collecting, and then Progress until the returned function is called.
func (h Hooks) startProgress(v *progress.Source) (stop func()) {
	if h.Collecting != nil {
		h.Collecting(v.Counts)
	}

	if h.Progress == nil {
		return func() {}
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Follow(ctx, h.Progress)
	}()

	return func() {
		cancel()
		<-done
	}
}

// Result is the result of a complete run.
type Result struct {
	// Run is the id of the run.
	Run string
	// Answered and Failed are the counts of requests. Together they are all of the input.
	Answered, Failed int
	// Output names the files on this machine.
	Output output.Prefix
	// Place names the files in the place that Config.Upload copies them to, or else like Output.
	Place output.Prefix
	// Metadata is the content of the metadata file.
	Metadata *metadata.Run
	// Reached is the limit of Config.Policy that the whole run has reached, or nil. The files of such a
	// run are as complete as those of any other.
	Reached *proto.ReachedLimit
	// WasComplete is set if an earlier run had completed the output, and nothing was run.
	WasComplete bool
	// Copied is set if the output is a copy of a run that had ended.
	Copied bool
}

// newResult returns the result of an output with some metadata, judged by the limits of a policy.
func newResult(out output.Prefix, meta *metadata.Run, policy proto.RunPolicy) *Result {
	return &Result{
		Run:      meta.TestID,
		Answered: meta.Results.SuccessCount,
		Failed:   meta.Results.FailureCount,
		Output:   out,
		Place:    out,
		Metadata: meta,
		Reached:  policy.FindReachedAtEnd(meta.Manifest.Counts),
	}
}

const (
	// DefaultShardBytes is the default of Config.Settings.ShardBytes. A shard of one request may
	// have more.
	DefaultShardBytes = proto.DefaultShardBytes
	defaultFlush      = 5 * time.Second
)

// sharedWorkers is the least number of workers that a run counts with where machines may join that
// are not known yet. Up to four times as many still end together.
const sharedWorkers = 8

// Validate returns an error that names the field of a value that cannot be used.
func (c Config) Validate() error {
	switch {
	case len(c.Inputs) == 0:
		return errors.New("pipeline: Config.Inputs is required")
	case len(c.Inputs) > 1 && slices.Contains(c.Inputs, "-"):
		return errors.New(`pipeline: Config.Inputs: "-" cannot be mixed with files`)
	case c.Output == "":
		return errors.New("pipeline: Config.Output is required")
	case c.ServerURL != "" && (len(c.Servers.URLs) > 0 || len(c.Servers.Commands) > 0 || c.Servers.Sim != nil):
		return errors.New("pipeline: Config.ServerURL excludes Config.Servers.URLs, Command and Sim")
	case c.Opened != nil && (c.ServerURL != "" || c.Servers.Sim != nil || len(c.Servers.Commands) > 0 ||
		len(c.Servers.URLs) > 0):
		return errors.New("pipeline: Config.Opened excludes Config.ServerURL and Config.Servers")
	case c.FlushInterval < 0:
		return fmt.Errorf("pipeline: Config.FlushInterval is %s, must not be negative", c.FlushInterval)
	case c.Settings.ShardSize < 0 || c.Settings.ShardSize > proto.MaxShardSize:
		return fmt.Errorf("pipeline: Config.Settings.ShardSize is %d, must be from 1 to %d",
			c.Settings.ShardSize, proto.MaxShardSize)
	case c.Settings.ShardEncoding != "" && !slices.Contains(proto.Encodings(), c.Settings.ShardEncoding):
		return fmt.Errorf("pipeline: Config.Settings.ShardEncoding is %q, must be one of %q",
			c.Settings.ShardEncoding, proto.Encodings())
	case c.Settings.Endpoint != "" && !slices.Contains(proto.Endpoints, c.Settings.Endpoint):
		return fmt.Errorf("pipeline: Config.Settings.Endpoint is %q, must be one of %q",
			c.Settings.Endpoint, proto.Endpoints)
	case c.Settings.Model != "" && c.Settings.OverrideModel != "":
		return errors.New("pipeline: Config.Settings.Model excludes Config.Settings.OverrideModel")
	}

	if err := checkLimits(c.Policy); err != nil {
		return fmt.Errorf("pipeline: Config.Policy.%w", err)
	}

	if c.RunID != "" {
		if err := proto.CheckRunID(c.RunID); err != nil {
			return fmt.Errorf("pipeline: Config.RunID: %w", err)
		}
	}

	if c.Label != "" {
		if err := proto.CheckLabel(c.Label); err != nil {
			return fmt.Errorf("pipeline: Config.Label: %w", err)
		}
	}

	out := output.Prefix(strings.TrimSuffix(c.Output, output.ResultsSuffix))
	if err := c.Table.validate(out, c.Format); err != nil {
		return fmt.Errorf("pipeline: Config.%w", err)
	}

	if err := c.Workers.Validate(); err != nil {
		return err
	}

	servers := c.Servers
	if c.ServerURL != "" {
		servers.URLs = []string{c.ServerURL}
	}

	servers.StateDir = cmp.Or(servers.StateDir, "the run's")

	return servers.Validate()
}

// withDefaults returns the configuration with its defaults, and with absolute paths.
func (c Config) withDefaults() (Config, error) {
	if err := c.Validate(); err != nil {
		return c, err
	}

	var err error
	if c.Output, err = filepath.Abs(strings.TrimSuffix(c.Output, output.ResultsSuffix)); err != nil {
		return c, err
	}

	if c.Table.enabled() {
		c.Table.Path = c.Output + export.Ending(c.Table.Path)
	}

	if c.Inputs, err = AbsoluteInputs(c.Inputs); err != nil {
		return c, err
	}

	if c.State == "" {
		if c.State, err = statedir.Default(os.Getenv); err != nil {
			return c, err
		}
	}

	if c.Stdin == nil {
		c.Stdin = os.Stdin
	}

	if c.ServerURL != "" {
		c.Servers.URLs = []string{c.ServerURL}
	}

	c.Servers.StateDir = cmp.Or(c.Servers.StateDir, statedir.ForOutput(c.State, c.Output))
	c.Servers.Log = c.Log
	c.Listen.Address = cmp.Or(c.Listen.Address, natsserver.Loopback.Address)
	c.Shared = c.Shared || c.Bus.External() || c.Listen.Address != natsserver.Loopback.Address
	c.FlushInterval = cmp.Or(c.FlushInterval, defaultFlush)
	c.Policy.Attended = true
	c.Settings.Simulated = c.Servers.Sim != nil

	return c, nil
}

// AbsoluteInputs returns the inputs with absolute paths. URLs, and the - of standard input, stay as they are.
func AbsoluteInputs(inputs []string) ([]string, error) {
	list := slices.Clone(inputs)
	for i, input := range list {
		if input == "-" || objectstore.IsURL(input) {
			continue
		}

		path, err := filepath.Abs(input)
		if err != nil {
			return nil, err
		}
		list[i] = path
	}

	return list, nil
}

// withShardDefaults returns the settings with the default size of shards.
func withShardDefaults(s proto.Settings) proto.Settings {
	s.ShardSize = cmp.Or(s.ShardSize, proto.DefaultShardSize)
	if s.ShardBytes == 0 {
		s.ShardBytes = DefaultShardBytes
		if s.GroupByPrefix {
			s.ShardBytes *= 4 // requests that begin alike are often long
		}
	}

	return s
}
