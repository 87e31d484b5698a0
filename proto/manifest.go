package proto

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// State is the state of a run. The words are the states of OpenAI's batches, and paused.
type State string

// The states of a run.
const (
	StateValidating State = "validating"
	StateFailed     State = "failed" // the run was refused: see [Manifest.Problem]
	StateInProgress State = "in_progress"
	StatePaused     State = "paused"
	StateFinalizing State = "finalizing" // all requests have a line; the files are being written
	StateCompleted  State = "completed"
	StateCancelling State = "cancelling"
	StateCancelled  State = "cancelled"
	StateExpired    State = "expired"
)

// Word returns the state as a sentence has it.
func (s State) Word() string {
	if s == StateInProgress {
		return "running"
	}
	return string(s)
}

// Manifest is all that the parts of a run must agree on. It is one JSON value under
// the run's id in [RunsBucket], and the first frame of the run's journal.
type Manifest struct {
	// Schema is [SchemaFor] the settings.
	Schema int    `json:"schema"`
	Run    string `json:"run"`
	// Label is the name that people gave the run, see [CheckLabel]. It is free text and need not be
	// unique; empty if they gave none.
	Label string `json:"label,omitempty"`
	State State  `json:"state"`
	// StateAt is the time at which State was set; zero: at CreatedAt.
	StateAt   time.Time    `json:"state_at,omitzero"`
	CreatedAt time.Time    `json:"created_at"`
	EndedAt   *time.Time   `json:"ended_at,omitempty"`
	Policy    RunPolicy    `json:"policy"`
	Input     Input        `json:"input"`
	Settings  Settings     `json:"settings"`
	Publish   PublishState `json:"publish"`
	Counts    Counts       `json:"counts"`
	// Failures counts the failed requests in the synced output by the code of their error, see
	// [TopFailures].
	Failures map[string]int64 `json:"failures,omitempty"`
	// Output is the run's output, as HOST:PATH without the suffixes of the files; empty until a
	// collector has begun.
	Output string `json:"output,omitempty"`
	// Retries counts the times that the failed requests of the ended run were started again.
	Retries int `json:"retries,omitempty"`
	// Problem is a sentence: the reason why the run cannot be collected now or, of a run that has
	// failed, the reason why it was refused.
	Problem string `json:"problem,omitempty"`
	// StoppedBy is the limit of the policy that has stopped the run, which is paused then. Nil: no
	// limit has, or the run was resumed since.
	StoppedBy *ReachedLimit `json:"stopped_by,omitempty"`
}

// RunPolicy has the settings of a run that its owner chooses for the bus.
type RunPolicy struct {
	// Priority orders the runs: workers take from the run with the highest priority first.
	Priority int `json:"priority,omitempty"`
	// ExpiresAt is the end of the run's time: a request without an answer by then fails.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// KeepSeconds is the time in seconds that the run stays on the bus after its end.
	KeepSeconds int64 `json:"keep_seconds"`
	// KeepResults reports that results stay on the bus for later readers, instead of being purged
	// when the stream fills.
	KeepResults bool `json:"keep_results,omitempty"`
	// Attended reports that the process that made the run collects it, or a person starts a
	// collector. A server that collects all runs leaves it alone.
	Attended bool `json:"attended,omitempty"`
	// Batch reports that the run is a batch of the batch API. The promptmill serve --api that made it
	// collects it; Attended keeps other servers away.
	Batch bool `json:"batch,omitempty"`
	// FailIf are the thresholds of which each stops the run. They are judged by the requests that
	// have ended since the latest start of the run, and once more, by all, when it is complete.
	FailIf []Threshold `json:"fail_if,omitempty"`
	// MaxTokens stops the run when it has used so many tokens, of prompts and of answers, over all
	// its starts. 0: no limit.
	MaxTokens int64 `json:"max_tokens,omitempty"`
}

// DisplayName names the run for people: by its id and, if it has one, its label.
func (m Manifest) DisplayName() string {
	if m.Label == "" {
		return m.Run
	}
	return m.Run + " (" + m.Label + ")"
}

// StateSince returns the time since which the run is in its state.
func (m Manifest) StateSince() time.Time {
	if m.StateAt.IsZero() {
		return m.CreatedAt
	}
	return m.StateAt
}

// Ended reports whether the run has ended: it stays as it is unless it is retried or deleted.
func (s State) Ended() bool {
	switch s {
	case StateFailed, StateCompleted, StateCancelled, StateExpired:
		return true
	}
	return false
}

// ManifestSchema is the version of the manifest's format.
const ManifestSchema = 3

// endpointSchema is the version of the format with [Settings.ShardEncoding] and [Settings.Endpoint].
// A program that reads only [ManifestSchema] could not read such shards, and would publish other
// requests of such an input. It leaves the run alone.
const endpointSchema = 4

// rowsSchema is the version of the format with [Settings.Rows], [Settings.Limit] and [Settings.Sample], and
// with input files that are not on the machine of the producer.
const rowsSchema = 5

// SchemaFor returns the lowest version of the manifest's format that has the settings.
func SchemaFor(s Settings) int {
	if s.Rows != nil || s.Limit > 0 || s.Sample > 0 {
		return rowsSchema
	}
	if cmp.Or(s.ShardEncoding, Snappy) != Snappy || s.Endpoint != "" {
		return endpointSchema
	}
	return ManifestSchema
}

// CheckSchema returns an error for a manifest of another version's schema, on the bus, in a journal
// or in the metadata of an output. It counts as [ErrFormat].
func CheckSchema(schema int) error {
	if schema >= ManifestSchema && schema <= rowsSchema {
		return nil
	}

	return schemaError(schema)
}

// schemaError is the error of a schema that this version does not read.
type schemaError int

// Error implements error.
func (e schemaError) Error() string {
	return fmt.Sprintf("another version of promptmill made the run (schema %d, this version reads %d to %d); "+
		"finish or delete it with that version", int(e), ManifestSchema, rowsSchema)
}

// Is reports whether target is [ErrFormat].
func (e schemaError) Is(target error) bool { return target == ErrFormat }

// Input describes the input of a run, as validation found it.
type Input struct {
	Files []File `json:"files"`
	// SHA256 is the hash of the unpacked text of all files, in order. A file of Parquet, which is read by
	// its columns, counts with the lines that its chosen rows are rendered to, each with a line feed.
	SHA256 string `json:"sha256"`
	// Bytes is the size of what SHA256 is the hash of.
	Bytes    int64 `json:"bytes"`
	Requests int   `json:"requests"`
	// Rows is the number of rows or lines of the input, of which [Settings.Limit] and [Settings.Sample]
	// choose requests. 0: as many as requests.
	Rows int `json:"rows,omitempty"`
	// Digest is the digest of all requests as they are published. The digest of the output's
	// lines must be the same.
	Digest Digest `json:"digest"`
	// Invalid counts the requests that are refused lines.
	Invalid int `json:"invalid"`
	// DuplicateIDs lists the requests whose custom_id an earlier line has, in the form of
	// [FormatIndexes]. They are refused too. Only validation can find them, since it has seen all
	// ids.
	DuplicateIDs string `json:"duplicate_ids,omitempty"`
	// Models counts the requests of each model. Refused lines are not counted.
	Models map[string]int `json:"models"`
	// Parameters are the sampling parameters of the requests. Refused lines are not counted.
	Parameters map[string]Parameter `json:"parameters,omitempty"`
	// Stored reports that the files are in the run's object store too, under the names
	// of [InputObject], plain, gzip or zstd.
	Stored bool `json:"stored,omitempty"`
}

// FirstFile is the path of the first input file; empty if the manifest names none.
func (in Input) FirstFile() string {
	if len(in.Files) == 0 {
		return ""
	}
	return in.Files[0].Path
}

// Name names the input for people: by its first file without the folder, and the number of the
// others.
func (in Input) Name() string {
	switch n := len(in.Files); n {
	case 0:
		return ""
	case 1:
		return baseName(in.FirstFile())
	default:
		return fmt.Sprintf("%s +%d", baseName(in.FirstFile()), n-1)
	}
}

// baseName returns the last part of a path or URL, without the query of a URL of the web.
func baseName(file string) string {
	if strings.HasPrefix(file, "https://") || strings.HasPrefix(file, "http://") {
		file, _, _ = strings.Cut(file, "?")
	}
	return path.Base(file)
}

// Parameter has the values of one sampling parameter, such as temperature, in the requests of a
// run.
type Parameter struct {
	// Requests counts the requests that name the parameter.
	Requests int `json:"requests"`
	// Values are the first few different values, as they stand in the requests.
	Values []json.RawMessage `json:"values"`
	// More reports that there are more values than Values has.
	More bool `json:"more,omitempty"`
}

// InputObject names the object that holds the index-th input file.
func InputObject(index int) string { return fmt.Sprintf("input-%d", index) }

// File describes one input file at the time when the run began.
type File struct {
	Path    string    `json:"path"`
	Bytes   int64     `json:"bytes"`
	ModTime time.Time `json:"mod_time"`
	// Inode and ChangeTime differ for a copy that keeps the size and time of another file; 0:
	// unknown. restic detects changed files by the same four.
	Inode      uint64    `json:"inode,omitempty"`
	ChangeTime time.Time `json:"change_time,omitzero"`
	// ETag identifies the contents of a file of an object store or a web server; empty for any other.
	ETag string `json:"etag,omitempty"`

	// Origin is the path that validation has read, if the file has another one now. The folders of that
	// path are part of the table: columns of its rows, and places of its images. Empty: Path.
	Origin string `json:"origin,omitempty"`
	// Format is the format of a table that validation has found, one of [TableFormats]. The file is read
	// in this format from then on, whatever its name is. Empty: the file is no table.
	Format string `json:"format,omitempty"`
	// Delimiter is the character between the fields of CSV that validation has found. Empty for any
	// other format.
	Delimiter string `json:"delimiter,omitempty"`
	// TextBytes is the part of [Input.Bytes] that a table has. 0 for a file that is no table.
	TextBytes int64 `json:"text_bytes,omitempty"`
}

// OriginalPath returns the path that validation has read.
func (f File) OriginalPath() string { return cmp.Or(f.Origin, f.Path) }

// Move notes that the file has another path now.
func (f *File) Move(to string) {
	origin := f.OriginalPath()
	f.Path, f.Origin = to, ""
	if origin != to {
		f.Origin = origin
	}
}

// Table returns how a validated file is read, by the settings and what validation has found.
func (f File) Table(settings Table) Table {
	settings.Format = cmp.Or(f.Format, settings.Format)
	settings.Delimiter = cmp.Or(f.Delimiter, settings.Delimiter)

	return settings
}

// Settings turn the input into requests and shards. They stay the same for a whole run, so that a
// shard is a pure function of input and settings.
type Settings struct {
	// Model is the model of bodies that name none.
	Model string `json:"model,omitempty"`
	// OverrideModel is the model of all bodies, whatever they name.
	OverrideModel string `json:"override_model,omitempty"`

	// Endpoint is the path of all requests, one of [Endpoints]. A line without a url has it, and a line
	// that means another endpoint is refused. Empty: each line names its own.
	Endpoint string `json:"endpoint,omitempty"`

	// Rows says how requests are made of the rows of tables. Nil: each line of the input is a request.
	Rows *Rows `json:"rows,omitempty"`
	// Limit is the most requests of the run, the first of the input. 0: all.
	Limit int `json:"limit,omitempty"`
	// Sample is the number of requests of the run, which are spread over the input at random, but are
	// the same for inputs of the same length. 0: all.
	Sample int `json:"sample,omitempty"`

	// Set has body fields, as JSON, for bodies that lack them.
	Set map[string]string `json:"set,omitempty"`
	// SkipInvalid reports that refused lines do not stop the run; each of them fails.
	SkipInvalid bool `json:"skip_invalid,omitempty"`
	// Simulated reports that promptmill's simulated server answers the run.
	Simulated bool `json:"simulated,omitempty"`
	// RetryTruncated is the factor of the token limit when a request, whose answer was cut off at
	// its limit, runs once more; 0: it does not run again.
	RetryTruncated float64 `json:"retry_truncated,omitempty"`
	// Schema is a JSON Schema that the text of each answer must match.
	Schema json.RawMessage `json:"schema,omitempty"`
	// GroupByPrefix puts requests that begin alike into one shard.
	GroupByPrefix bool `json:"group_by_prefix,omitempty"`
	// ShardSize is the most requests in a shard. Defaults to [DefaultShardSize].
	ShardSize int `json:"shard_size"`
	// ShardBytes is the most text in a shard, unless one request alone has more. Defaults to
	// [DefaultShardBytes].
	ShardBytes int `json:"shard_bytes"`
	// Workers is the number of workers that the run counts with. Shards shrink toward the end of
	// the input, later the fewer there are. Defaults to a cut by Capacity.
	Workers int `json:"workers,omitempty"`
	// Capacity is the number of requests that the workers run at once. Only a run that began
	// before there was Workers has it, and its shards are cut by it. Defaults to
	// [DefaultCapacity].
	Capacity int `json:"capacity,omitempty"`
	// ShardEncoding is the encoding of the shards. Defaults to [Snappy].
	ShardEncoding Encoding `json:"shard_encoding,omitempty"`
}

// The defaults of [Settings].
const (
	DefaultShardSize  = 32
	DefaultShardBytes = 256 << 10
	DefaultCapacity   = 256
)

// WithDefaults returns the settings with defaults in place of zeros.
func (s Settings) WithDefaults() Settings {
	s.ShardSize = cmp.Or(s.ShardSize, DefaultShardSize)
	s.ShardBytes = cmp.Or(s.ShardBytes, DefaultShardBytes)
	s.Capacity = cmp.Or(s.Capacity, DefaultCapacity)

	return s
}

// PublishState is the progress of the producer.
//
// The sequence of the work stream is the count of the shards published: each is published with the
// sequence that it must get, so a shard can be stored neither twice nor out of order, whichever
// process crashes. Round 0 publishes the whole input. Each further round publishes the requests
// whose results are lost, listed in an object of the run's store.
type PublishState struct {
	Round int `json:"round"`
	// FirstSequence is the work stream's sequence before the round's first shard.
	FirstSequence uint64 `json:"first_sequence"`
	// Missing names the object with the round's requests, a serialized Roaring
	// bitmap; empty in round 0.
	Missing string `json:"missing,omitempty"`
	// Done reports that all shards of the round are stored.
	Done bool `json:"done"`
	// Retry reports that the failed requests of the ended run are to be published in the next
	// round, which its collector has not begun yet.
	Retry bool `json:"retry,omitempty"`
	// Checkpoint is a place in the input at which the producer can continue cutting, without
	// reading the input from the start. It may lag behind the stream.
	Checkpoint Checkpoint `json:"checkpoint"`
}

// Checkpoint is a place in the input between two shards.
type Checkpoint struct {
	// File is the index of the input file.
	File int `json:"file"`
	// Offset is the offset in the unpacked text of the file, in bytes.
	Offset int64 `json:"offset"`
	// Line counts the lines of the file before the checkpoint.
	Line int `json:"line"`
	// Row counts the rows of the file before the checkpoint, if it is a table.
	Row int `json:"row,omitempty"`
	// Passed counts the rows or lines of all files before the checkpoint, if [Settings.Sample] chooses from
	// them.
	Passed int `json:"passed,omitempty"`
	// Index is the index of the next request.
	Index uint32 `json:"index"`
	// Shard is the index of the next shard in its round.
	Shard uint64 `json:"shard"`
	// Digest is the digest of the requests before the checkpoint.
	Digest Digest `json:"digest"`
}

// Counts are the collector's counts of the lines in the synced output.
type Counts struct {
	// Done counts the requests that were answered or failed.
	Done   int `json:"done"`
	Failed int `json:"failed"`
	// Skipped counts the failed requests that were refused, cancelled or expired.
	Skipped          int   `json:"skipped"`
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	Attempts         int64 `json:"attempts"`
	// Truncated counts the answers that were cut off at their token limit.
	Truncated int `json:"truncated,omitempty"`
	// Duplicates counts the lines that came for a request that had a line already.
	Duplicates int64 `json:"duplicates"`
	// Dropped counts the messages of results, and lines of them, that did not fit the run.
	Dropped int64 `json:"dropped,omitempty"`
}

// Add adds the counts of d to c.
func (c *Counts) Add(d Counts) {
	c.Done += d.Done
	c.Failed += d.Failed
	c.Skipped += d.Skipped
	c.PromptTokens += d.PromptTokens
	c.CompletionTokens += d.CompletionTokens
	c.Attempts += d.Attempts
	c.Truncated += d.Truncated
	c.Duplicates += d.Duplicates
	c.Dropped += d.Dropped
}

// Minus returns the counts of c less the counts of d.
func (c Counts) Minus(d Counts) Counts {
	return Counts{
		Done:             c.Done - d.Done,
		Failed:           c.Failed - d.Failed,
		Skipped:          c.Skipped - d.Skipped,
		PromptTokens:     c.PromptTokens - d.PromptTokens,
		CompletionTokens: c.CompletionTokens - d.CompletionTokens,
		Attempts:         c.Attempts - d.Attempts,
		Truncated:        c.Truncated - d.Truncated,
		Duplicates:       c.Duplicates - d.Duplicates,
		Dropped:          c.Dropped - d.Dropped,
	}
}

// Executed returns the number of requests that were sent to a model server and have ended.
func (c Counts) Executed() int { return c.Done - c.Skipped }

// Bounds of the values in a manifest. Times have to fit a [time.Duration], and the number of
// workers an int with a factor.
const (
	maxSeconds  = 9e9
	maxTruncate = 1e6
	maxWorkers  = 1e6
)

// ParseManifest reads the manifest under a key of [RunsBucket]. It refuses a manifest of another
// format, and one with impossible values.
func ParseManifest(key string, data []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w: %w", ErrFormat, err)
	}

	if err := CheckSchema(m.Schema); err != nil {
		return Manifest{}, err
	}

	if err := CheckRunID(m.Run); err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w: %w", ErrFormat, err)
	}

	if err := m.checkFields(key); err != nil {
		return Manifest{}, fmt.Errorf("manifest of run %s: %w", m.Run, err)
	}

	return m, nil
}

// checkFields returns the first field with an impossible value.
func (m Manifest) checkFields(key string) error {
	in, s, p := m.Input, m.Settings, m.Publish
	sum := 0
	for _, n := range in.Models {
		if n < 0 || n > in.Requests {
			return NewFieldError("input.models", "%d of %d requests are for one model", n, in.Requests)
		}
		sum += n
	}

	switch {
	case m.Run != key:
		return NewFieldError("run", "it is under the key %q", Excerpt(key))
	case m.Label != "" && CheckLabel(m.Label) != nil:
		return NewFieldError("label", "%q", Excerpt(m.Label))
	case !slices.Contains(states, m.State):
		return NewFieldError("state", "%q is no state", Excerpt(string(m.State)))
	case m.Policy.KeepSeconds < 0 || m.Policy.KeepSeconds > maxSeconds:
		return NewFieldError("policy.keep_seconds", "%d", m.Policy.KeepSeconds)
	case m.Policy.MaxTokens < 0:
		return NewFieldError("policy.max_tokens", "%d", m.Policy.MaxTokens)
	case m.Retries < 0:
		return NewFieldError("retries", "%d", m.Retries)
	case in.Requests < 0 || int64(in.Requests) > math.MaxUint32:
		return NewFieldError("input.requests", "%d", in.Requests)
	case in.Bytes < 0 || in.Invalid < 0 || in.Invalid > in.Requests || sum > in.Requests:
		return NewFieldError("input", "%d bytes, %d of %d requests refused, %d with a model",
			in.Bytes, in.Invalid, in.Requests, sum)
	case s.ShardSize < 0 || s.ShardSize > MaxShardSize || s.ShardBytes < 0 || s.Workers < 0 || s.Workers > maxWorkers ||
		s.Capacity < 0:
		return NewFieldError("settings", "shards of %d requests or %d bytes, for %d workers, or %d requests at once",
			s.ShardSize, s.ShardBytes, s.Workers, s.Capacity)
	case !s.ShardEncoding.isKnown():
		return NewFieldError("settings.shard_encoding", "%q is no encoding that this program reads",
			Excerpt(string(s.ShardEncoding)))
	case s.Endpoint != "" && !slices.Contains(Endpoints, s.Endpoint):
		return NewFieldError("settings.endpoint", "%q is none of %q", Excerpt(s.Endpoint), Endpoints)
	case m.Schema < SchemaFor(Settings{ShardEncoding: s.ShardEncoding}):
		return NewFieldError("schema", "%d has no settings.shard_encoding", m.Schema)
	case m.Schema < SchemaFor(Settings{ShardEncoding: s.ShardEncoding, Endpoint: s.Endpoint}):
		return NewFieldError("schema", "%d has no settings.endpoint", m.Schema)
	case m.Schema < SchemaFor(s):
		return NewFieldError("schema", "%d has no settings.rows, settings.limit or settings.sample", m.Schema)
	case s.RetryTruncated < 0 || s.RetryTruncated > maxTruncate:
		return NewFieldError("settings.retry_truncated", "%g", s.RetryTruncated)
	case p.Round < 0 || p.Checkpoint.File < 0 || p.Checkpoint.Offset < 0 || p.Checkpoint.Line < 0 ||
		p.Checkpoint.Row < 0 || p.Checkpoint.Passed < 0:
		return NewFieldError("publish", "round %d, line %d of file %d, at byte %d",
			p.Round, p.Checkpoint.Line, p.Checkpoint.File, p.Checkpoint.Offset)
	case p.Missing != "" && !strings.HasPrefix(p.Missing, missingObject):
		return NewFieldError("publish.missing", "%q is no list of requests", Excerpt(p.Missing))
	}

	for code, n := range m.Failures {
		if n < 0 {
			return NewFieldError("failures", "%d of %q", n, Excerpt(code))
		}
	}

	for _, f := range in.Files {
		switch {
		case f.Bytes < 0 || f.TextBytes < 0:
			return NewFieldError("input.files", "one of %d bytes, %d of text", f.Bytes, f.TextBytes)
		case f.Format != "" && !slices.Contains(TableFormats, f.Format):
			return NewFieldError("input.files", "one in the format %q", Excerpt(f.Format))
		}
	}

	return nil
}

// states are all states of a run.
var states = []State{
	StateValidating, StateFailed, StateInProgress, StatePaused, StateFinalizing,
	StateCompleted, StateCancelling, StateCancelled, StateExpired,
}

// maxFailureCodes is the most codes in [Manifest.Failures].
const maxFailureCodes = 10

// OtherFailures is the code in [Manifest.Failures] for all requests whose code is not listed.
const OtherFailures = "other"

// TopFailures returns the most frequent codes of failed requests, ten at most, and the sum of the
// rest as [OtherFailures]. It returns nil if there are none.
func TopFailures(counts map[string]int64) map[string]int64 {
	if len(counts) == 0 {
		return nil
	}

	codes := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})

	top := make(map[string]int64, min(len(codes), maxFailureCodes))
	for i, code := range codes {
		if i >= maxFailureCodes-1 && len(codes) > maxFailureCodes {
			code = OtherFailures
		}
		top[code] += counts[codes[i]]
	}

	return top
}

const missingObject = "missing-"

// MissingObject names the object with the requests of a round of publishing. unique makes
// it one that nothing ever replaces, since shards are cut by it.
func MissingObject(round int, unique string) string {
	return fmt.Sprintf("%s%d-%s", missingObject, round, unique)
}

// Models are the models that the run's requests name, sorted. A run of refused lines
// alone has the one model "", so that its shards have a consumer.
func (m Manifest) Models() []string {
	models := make([]string, 0, len(m.Input.Models)+1)
	for model := range m.Input.Models {
		models = append(models, model)
	}

	if len(models) == 0 {
		models = append(models, "")
	}

	slices.Sort(models)

	return models
}
