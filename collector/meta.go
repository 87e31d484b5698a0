package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// MetaSchema is the version of the metadata's format.
const MetaSchema = 1

// Origin is what only the program around the collector knows of a run.
type Origin struct {
	Platform    string // the model server, as far as it is known
	Version     string // of promptmill
	Concurrency int    // requests in flight at most; 0: found out as it ran
}

// Meta is the metadata of a complete run, NAME.meta.json. What is unknown is null.
type Meta struct {
	SchemaVersion int            `json:"schema_version"`
	TestID        string         `json:"test_id"`   // the run
	Timestamp     time.Time      `json:"timestamp"` // when it began
	Platform      string         `json:"platform"`  // several are joined by ", "
	Model         string         `json:"model"`     // several are joined by ", "
	Config        MetaConfig     `json:"config"`
	Test          MetaTest       `json:"test"`
	Results       MetaResults    `json:"results"`
	Workers       []MetaWorker   `json:"workers"`
	Status        proto.State    `json:"status"`
	Versions      MetaVersions   `json:"versions"`
	Manifest      proto.Manifest `json:"manifest"`
}

// MetaConfig is how the run was made.
type MetaConfig struct {
	Concurrency *int `json:"concurrency"` // null: found out as it ran
	ShardSize   int  `json:"shard_size"`
	Ordered     bool `json:"ordered"`
	Seekable    bool `json:"seekable"`
	Plain       bool `json:"plain"`
}

// MetaTest names the files.
type MetaTest struct {
	NumRequests int      `json:"num_requests"`
	InputFile   string   `json:"input_file"` // the first
	InputFiles  []string `json:"input_files"`
	InputSHA256 string   `json:"input_sha256"`
	OutputFile  string   `json:"output_file"`
	ErrorFile   *string  `json:"error_file"`
}

// MetaResults are the figures. Rates are over InferenceTimeSeconds.
type MetaResults struct {
	SuccessCount         int      `json:"success_count"`
	FailureCount         int      `json:"failure_count"`
	ModelLoadTimeSeconds *float64 `json:"model_load_time_seconds"` // the longest
	// InferenceTimeSeconds is how long the run was worked on, TotalTimeSeconds how
	// long it took from its beginning, pauses and crashes included.
	InferenceTimeSeconds     float64  `json:"inference_time_seconds"`
	TotalTimeSeconds         float64  `json:"total_time_seconds"`
	PromptTokens             *int64   `json:"prompt_tokens"`
	CompletionTokens         *int64   `json:"completion_tokens"`
	TotalTokens              *int64   `json:"total_tokens"`
	ThroughputTokensPerSec   *float64 `json:"throughput_tokens_per_sec"`
	ThroughputRequestsPerSec *float64 `json:"throughput_requests_per_sec"`
	InputTokensPerSec        *float64 `json:"input_tokens_per_sec"`
	OutputTokensPerSec       *float64 `json:"output_tokens_per_sec"`
	// EnergyJoules is what the workers' cards took for the run; null if that of any of
	// them is unknown.
	EnergyJoules              *float64 `json:"energy_joules"`
	JoulesPer1000OutputTokens *float64 `json:"joules_per_1000_output_tokens"`
	Attempts                  int64    `json:"attempts"`
	// What [Tally] counts, each with the lines of the output.
	AttemptsHistogram       map[string]int64 `json:"attempts_histogram"`
	AttemptFailures         map[string]int64 `json:"attempt_failures"`
	FinishReasons           map[string]int64 `json:"finish_reasons"`
	Failures                map[string]int64 `json:"failures"`
	DuplicatesDropped       int64            `json:"duplicates_dropped"`
	Interruptions           int              `json:"interruptions"`
	OutputBytesUncompressed int64            `json:"output_bytes_uncompressed"`
	OutputBytes             int64            `json:"output_bytes"`
}

// MetaVersions are the versions of what made the output.
type MetaVersions struct {
	Promptmill string `json:"promptmill"`
	Go         string `json:"go"`
}

// finish writes the output files and the metadata of a complete journal, and removes
// the journal. Everything in it can be repeated after a crash.
func (c *Collector) finish(ctx context.Context) error {
	c.mu.Lock()
	c.finishing = true
	c.mu.Unlock()
	if e := c.ending.Load(); e == nil || e.state != proto.StateCancelled {
		c.setState(ctx, proto.StateFinalizing) // else it stays cancelling, should we die now
	}
	if err := c.cfg.Journal.rewrite(ctx, c.cfg.Output, c.cfg.Format); err != nil {
		return fmt.Errorf("collector: write output files: %w", err)
	}
	c.lastWords(ctx)
	if err := c.writeMeta(); err != nil {
		return fmt.Errorf("collector: %w", err)
	}
	if err := c.cfg.Journal.Remove(); err != nil {
		return fmt.Errorf("collector: %w", err)
	}
	c.setState(ctx, c.final())
	// Results stay for readers, the input for a retry. The work is done, and the bus has
	// room set aside for it.
	if err := c.cfg.JS.DeleteStream(ctx, proto.WorkStream(c.run)); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		c.cfg.Log.Warn().Err(err).Msg("delete the work stream of the ended run")
	}
	return nil
}

// final is the state that the run ends in. One whose last answers were on their way
// when its time was over is complete.
func (c *Collector) final() proto.State {
	s := c.cfg.Journal.State()
	e := c.ending.Load()
	if e == nil || e.state == proto.StateExpired && s.Counts.NotRun <= s.Manifest.Input.Invalid {
		return proto.StateCompleted
	}
	return e.state
}

// setState notes the run's state on the bus. The files are what counts: a bus that
// does not answer now does not keep a run from ending.
func (c *Collector) setState(ctx context.Context, s proto.State) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
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
		c.cfg.Log.Warn().Err(err).Str("state", string(s)).Msg("note the state of the run")
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
	path := c.cfg.Output.Meta()
	file, err := os.Create(path + ".tmp")
	if err != nil {
		return fmt.Errorf("write metadata: %w", err)
	}
	_, err = file.Write(append(text, '\n'))
	return commitFile(file, path, err)
}

func (c *Collector) meta(now time.Time) (Meta, error) {
	s := c.cfg.Journal.State()
	m, out := s.Manifest, c.cfg.Output
	m.State, m.EndedAt, m.Counts = c.final(), &now, s.Counts
	worked := s.Worked.Seconds()
	meta := Meta{
		SchemaVersion: MetaSchema, TestID: m.Run, Timestamp: m.CreatedAt, Status: m.State, Manifest: m,
		Platform: c.cfg.Meta.Platform, Model: strings.Join(m.Models(), ", "),
		Config: MetaConfig{
			Concurrency: fixed(c.cfg.Meta.Concurrency), ShardSize: m.Settings.ShardSize,
			Ordered: c.cfg.Format.Ordered, Seekable: c.cfg.Format.Seekable, Plain: c.cfg.Format.Plain,
		},
		Test: MetaTest{
			NumRequests: m.Input.Requests, InputFile: m.Input.Files[0].Path,
			InputSHA256: m.Input.SHA256, OutputFile: out.Results(),
		},
		Results: MetaResults{
			SuccessCount: s.Counts.Done - s.Counts.Failed, FailureCount: s.Counts.Failed,
			InferenceTimeSeconds: worked, TotalTimeSeconds: now.Sub(m.CreatedAt).Seconds(),
			Attempts: s.Counts.Attempts, DuplicatesDropped: s.Counts.Duplicates,
			Interruptions:            s.Sessions - 1,
			OutputBytesUncompressed:  s.Sizes.OK + s.Sizes.Failed,
			ThroughputRequestsPerSec: per(float64(s.Counts.Done-s.Counts.NotRun), worked),
		},
		Versions: MetaVersions{Promptmill: c.cfg.Meta.Version, Go: runtime.Version()},
	}
	if c.cfg.Format.Plain {
		meta.Results.OutputBytesUncompressed = s.Sizes.OKPlain + s.Sizes.FailedPlain
	}
	for _, f := range m.Input.Files {
		meta.Test.InputFiles = append(meta.Test.InputFiles, f.Path)
	}
	files := []string{out.Results()}
	if s.Counts.Failed > 0 {
		name := out.Errors()
		meta.Test.ErrorFile = &name
		files = append(files, name)
	}
	for file := range slices.Values(files) {
		info, err := os.Stat(file)
		if err != nil {
			return Meta{}, fmt.Errorf("metadata: %w", err)
		}
		meta.Results.OutputBytes += info.Size()
	}
	if in, out := s.Counts.PromptTokens, s.Counts.CompletionTokens; in+out > 0 { // else no answer told its usage
		total := in + out
		r := &meta.Results
		r.PromptTokens, r.CompletionTokens, r.TotalTokens = &in, &out, &total
		r.ThroughputTokensPerSec = per(float64(total), worked)
		r.InputTokensPerSec, r.OutputTokensPerSec = per(float64(in), worked), per(float64(out), worked)
	}
	meta.describe(c.fleet.all(), s)
	return meta, nil
}

// fixed is a number of requests, or null if it was not fixed.
func fixed(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// per is a rate, or null if no time passed.
func per(amount, seconds float64) *float64 {
	if seconds <= 0 {
		return nil
	}
	rate := amount / seconds
	return &rate
}
