package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Origin is what only the program around the collector knows of a run.
type Origin struct {
	Platform    string // the model server, as far as it is known
	Version     string // of promptmill
	Concurrency int    // requests in flight at most; 0: found out as it ran
}

// finish writes the output files and the metadata of a complete journal, and removes
// the journal. Everything in it can be repeated after a crash: until the journal is
// removed, all is done again; after that, all but the state on the bus is there.
func (c *Collector) finish(ctx context.Context) error {
	c.mu.Lock()
	c.finishing = true
	c.mu.Unlock()

	if err := c.prove(ctx); err != nil {
		return fmt.Errorf("collector: %w", err)
	}

	if e := c.ending.Load(); e == nil || e.state != proto.StateCancelled {
		c.setState(ctx, proto.StateFinalizing) // else it stays cancelling, should we die now
	}

	if err := c.cfg.Journal.Rewrite(ctx, c.cfg.Output, c.cfg.Format); err != nil {
		return fmt.Errorf("collector: write output files: %w", err)
	}

	c.lastWords(ctx)
	if err := c.writeMeta(); err != nil {
		return fmt.Errorf("collector: %w", err)
	}

	if c.cfg.Written != nil {
		c.cfg.Written()
	}

	c.tidy(context.WithoutCancel(ctx)) // the run is whole, whoever interrupts it now

	return nil
}

// tidy takes away what a complete run does not need any more. The files are whole, so
// nothing that goes wrong here makes the run fail.
func (c *Collector) tidy(ctx context.Context) {
	if err := c.cfg.Output.RemoveStale(); err != nil {
		c.cfg.Log.Warn().Err(err).Msg("failed to remove temporary files; the output is whole")
	}

	if err := c.cfg.Journal.Remove(); err != nil {
		c.cfg.Log.Warn().Err(err).Msg(
			"failed to remove the journal; the output is whole, and the journal can be deleted",
		)
	}

	c.setState(ctx, c.final())

	// Results stay for readers, the input for a retry. The work is done, and the bus has
	// room set aside for it.
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()

	if err := bus.DeleteStream(ctx, c.cfg.JS, proto.WorkStream(c.run)); err != nil {
		c.cfg.Log.Warn().Err(err).Msg("failed to delete the work stream of the ended run; it is deleted with the run")
	}
}

// final is the state that the run ends in. One whose last answers were on their way
// when its time was over is complete.
func (c *Collector) final() proto.State {
	s := c.cfg.Journal.State()
	e := c.ending.Load()
	if e == nil || e.state == proto.StateExpired && s.Counts.Skipped <= s.Manifest.Input.Invalid {
		return proto.StateCompleted
	}
	return e.state
}

// tidyTime is how long each step may take that a run whose files are whole leaves on the
// bus. A cluster has agreed on a new leader by then.
const tidyTime = 15 * time.Second

// setState notes the run's state on the bus. The files are what counts: a bus that
// does not answer now does not keep a run from ending.
func (c *Collector) setState(ctx context.Context, s proto.State) {
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()

	counts := c.cfg.Journal.State().Counts
	err := c.runs.Update(ctx, c.run, func(m *proto.Manifest) error {
		m.State, m.Counts = s, counts
		if s.Ended() {
			now := time.Now().UTC()
			m.EndedAt = &now
		}
		return nil
	})
	if err != nil {
		c.cfg.Log.Warn().Err(err).Str("state", string(s)).Msg("failed to note the state of the run on the bus")
	}
}

func (c *Collector) writeMeta() error {
	meta, err := c.meta(time.Now().UTC())
	if err != nil {
		return err
	}

	text, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}

	file, err := c.cfg.Journal.CreateFile(c.cfg.Output.Meta())
	if err != nil {
		return err
	}

	_, err = file.Write(append(text, '\n'))

	return file.Commit(err)
}

func (c *Collector) meta(now time.Time) (metadata.Run, error) {
	s := c.cfg.Journal.State()
	m, out := s.Manifest, c.cfg.Output
	m.State, m.EndedAt, m.Counts = c.final(), &now, s.Counts
	worked := s.Worked.Seconds()

	// The run began by the clock of its producer, and clocks can be put back. But the
	// whole is no less than its parts.
	total := max(now.Sub(m.CreatedAt), s.Worked+s.Idle+s.Lost)
	meta := metadata.Run{
		SchemaVersion: metadata.Version,
		TestID:        m.Run,
		Timestamp:     m.CreatedAt,
		Status:        m.State,
		Manifest:      &m,
		Platform:      c.cfg.Meta.Platform,
		Model:         strings.Join(m.Models(), ", "),
		Config: metadata.Config{
			Concurrency:   fixed(c.cfg.Meta.Concurrency),
			Sampling:      m.Input.Parameters,
			ShardSize:     m.Settings.ShardSize,
			GroupByPrefix: m.Settings.GroupByPrefix,
			Ordered:       c.cfg.Format.Ordered,
			Seekable:      c.cfg.Format.Seekable,
			Plain:         c.cfg.Format.Plain,
		},
		Test: metadata.Test{
			NumRequests: m.Input.Requests,
			InputFile:   m.Input.FirstFile(),
			InputSHA256: m.Input.SHA256,
			InputBytes:  &m.Input.Bytes,
			OutputFile:  out.Results(),
		},
		Results: metadata.Results{
			SuccessCount:             s.Counts.Done - s.Counts.Failed,
			FailureCount:             s.Counts.Failed,
			InferenceTimeSeconds:     worked,
			TotalTimeSeconds:         total.Seconds(),
			IdleTimeSeconds:          new(s.Idle.Seconds()),
			LostTimeSeconds:          new(s.Lost.Seconds()),
			Attempts:                 s.Counts.Attempts,
			DuplicatesDropped:        s.Counts.Duplicates,
			Dropped:                  s.Counts.Dropped,
			Interruptions:            s.Sessions - 1,
			OutputBytesUncompressed:  s.Sizes.OK + s.Sizes.Failed,
			ThroughputRequestsPerSec: metadata.Per(float64(s.Counts.Done-s.Counts.Skipped), worked),
		},
		Versions: metadata.Versions{Promptmill: c.cfg.Meta.Version, Go: runtime.Version()},
	}
	if c.cfg.Format.Plain {
		meta.Results.OutputBytesUncompressed = s.Sizes.OKPlain + s.Sizes.FailedPlain
	}

	for _, f := range m.Input.Files {
		meta.Test.InputFiles = append(meta.Test.InputFiles, f.Path)
	}

	files := map[string]*string{out.Results(): &meta.Test.OutputSHA256}
	if s.Counts.Failed > 0 {
		name := out.Errors()
		meta.Test.ErrorFile = &name
		files[name] = &meta.Test.ErrorSHA256
	}

	for file, sum := range files {
		hash, size, err := output.HashFile(file)
		if err != nil {
			return metadata.Run{}, fmt.Errorf("metadata: %w", err)
		}
		*sum = hash
		meta.Results.OutputBytes += size
	}

	if in, out := s.Counts.PromptTokens, s.Counts.CompletionTokens; in+out > 0 { // else no answer told its usage
		total := in + out
		r := &meta.Results
		r.PromptTokens, r.CompletionTokens, r.TotalTokens = &in, &out, &total
		r.ThroughputTokensPerSec = metadata.Per(float64(total), worked)
		r.InputTokensPerSec, r.OutputTokensPerSec = metadata.Per(float64(in),
			worked), metadata.Per(float64(out), worked)
	}

	r := &meta.Results
	r.CompressionRatio = metadata.Per(float64(r.OutputBytesUncompressed), float64(r.OutputBytes))
	measure(r, s)
	meta.Series = &s.Series
	describe(&meta, c.fleet.all(), s)

	return meta, nil
}

// measure fills in what the tally and the series tell.
func measure(r *metadata.Results, s *journal.State) {
	for i := range s.Series.Len() {
		p, seconds := s.Series.At(i), float64(s.Series.IntervalSeconds)
		r.PeakRequestsPerSec = metadata.Most(r.PeakRequestsPerSec, new(float64(p.Requests)/seconds))
		if s.Counts.CompletionTokens > 0 {
			r.PeakOutputTokensPerSec = metadata.Most(r.PeakOutputTokensPerSec, new(float64(p.CompletionTokens)/seconds))
		}
		r.PeakConcurrentRequests = metadata.Most(r.PeakConcurrentRequests, p.InFlight)
	}

	t := s.Stats
	if t == nil {
		return
	}

	const second = 1000 // of milliseconds
	r.LatencySeconds = t.Latency.Distribution(second, r.SuccessCount)
	if r.LatencySeconds != nil {
		r.MeanConcurrentRequests = metadata.Per(t.Latency.Sum()/second, r.InferenceTimeSeconds)
	}

	if peak := r.PeakConcurrentRequests; peak != nil &&
		(*peak == 0 || float64(*peak) < metadata.OrZero(r.MeanConcurrentRequests)) {
		r.PeakConcurrentRequests = nil // the run was over before the workers told more
	}

	// Where some answers do not tell their usage, the others are no fair sample.
	r.PromptTokensPerRequest = t.Prompt.Distribution(1, r.SuccessCount)
	r.CompletionTokensPerRequest = t.Completion.Distribution(1, r.SuccessCount)

	if t.CachedTokens > 0 {
		r.CachedPromptTokens = &t.CachedTokens
	}

	r.Slowest, r.Longest, r.FailureExamples = t.Slowest, t.Longest, t.Examples
}

// fixed is a number of requests, or null if it was not fixed.
func fixed(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}
