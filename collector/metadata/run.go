// Package metadata is the record of a run: NAME.meta.json.
//
// The names test_id to status, and those in config, test and results that stand in
// schema.json as of other tools, come from files that existed before promptmill, so
// that old measurements can be compared with new ones.
package metadata

import (
	_ "embed"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// Version is the version of the format.
const Version = 1

// Schema is a JSON Schema (draft 2020-12) of the format.
//
//go:embed schema.json
var Schema []byte

// Run is the metadata of a run. What is unknown is null. Units are in the names; a
// token is one as the model server counts them.
type Run struct {
	SchemaVersion int         `json:"schema_version"`
	TestID        string      `json:"test_id"`         // the run
	Label         string      `json:"label,omitempty"` // the name that people gave the run; empty: none
	Timestamp     time.Time   `json:"timestamp"`       // when it began
	Platform      string      `json:"platform"`        // flavour and version of the model server; several are joined by ", "
	Model         string      `json:"model"`           // several are joined by ", "
	Config        Config      `json:"config"`
	Test          Test        `json:"test"`
	Results       Results     `json:"results"`
	Status        proto.State `json:"status"`
	Workers       []Worker    `json:"workers"`
	Series        *Series     `json:"series"`
	Versions      Versions    `json:"versions"`
	// Manifest lets promptmill resume the run; null if another tool wrote the metadata.
	Manifest *proto.Manifest `json:"manifest"`
}

// Config holds the settings of the run.
type Config struct {
	Concurrency *int `json:"concurrency"` // null: found out as it ran
	// context length of the model in tokens, the shortest among the workers
	MaxModelLen          *int     `json:"max_model_len"`
	GPUMemoryUtilization *float64 `json:"gpu_memory_utilization"` // 0 to 1, as vLLM was started with
	// Sampling are the parameters of the requests, by name.
	Sampling      map[string]proto.Parameter `json:"sampling"`
	ShardSize     int                        `json:"shard_size"`
	GroupByPrefix bool                       `json:"group_by_prefix"`
	Ordered       bool                       `json:"ordered"`
	Seekable      bool                       `json:"seekable"`
	Plain         bool                       `json:"plain"`
}

// TableFile is a table of the answers: all of it, or one of its parts.
type TableFile struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Rows   int    `json:"rows"`
}

// Test names the input and the output.
type Test struct {
	NumRequests int      `json:"num_requests"`
	InputFile   string   `json:"input_file"` // the first
	InputFiles  []string `json:"input_files"`
	InputSHA256 string   `json:"input_sha256"`
	InputBytes  *int64   `json:"input_bytes"` // unpacked
	OutputFile  string   `json:"output_file"`
	ErrorFile   *string  `json:"error_file"`
	// OutputSHA256 and ErrorSHA256 are of the files as they were written; empty: unknown.
	OutputSHA256 string `json:"output_sha256,omitempty"`
	ErrorSHA256  string `json:"error_sha256,omitempty"`
	// Tables are the files that join the answers with the rows of the input, in order.
	Tables []TableFile `json:"tables,omitempty"`
}

// Results are the figures. Rates are over InferenceTimeSeconds.
type Results struct {
	SuccessCount int `json:"success_count"`
	FailureCount int `json:"failure_count"` // with those that were not sent
	// NotSentCount counts the failures of requests that were never sent: the run was cancelled or expired before
	// their turn, or their lines in the input are invalid. Most readers want CountFailed and CountSent.
	NotSentCount         int      `json:"not_sent_count,omitempty"`
	ModelLoadTimeSeconds *float64 `json:"model_load_time_seconds"` // the longest
	// ModelLoad has the parts of ModelLoadTimeSeconds, of the worker that took so long; null: unknown.
	ModelLoad *proto.ModelLoad `json:"model_load,omitempty"`
	// InferenceTimeSeconds is the time in which workers worked on the run. Of the TotalTimeSeconds
	// from its beginning to its end, IdleTimeSeconds were spent without work (it
	// was paused, or there was no worker, or no model server), and LostTimeSeconds with
	// no collector and no result, after an interruption.
	InferenceTimeSeconds float64  `json:"inference_time_seconds"`
	TotalTimeSeconds     float64  `json:"total_time_seconds"`
	IdleTimeSeconds      *float64 `json:"idle_time_seconds"`
	LostTimeSeconds      *float64 `json:"lost_time_seconds"`

	PromptTokens *int64 `json:"prompt_tokens"`
	// CachedPromptTokens are the prompt tokens that came from the prefix caches of
	// model servers, as far as answers report them; null if none does.
	CachedPromptTokens *int64 `json:"cached_prompt_tokens"`
	CompletionTokens   *int64 `json:"completion_tokens"`
	// ReasoningTokens are the completion tokens of the models' reasoning, as far as answers report
	// them; 0 if none does.
	ReasoningTokens          int64    `json:"reasoning_tokens,omitempty"`
	TotalTokens              *int64   `json:"total_tokens"`
	ThroughputTokensPerSec   *float64 `json:"throughput_tokens_per_sec"` // prompt and completion
	ThroughputRequestsPerSec *float64 `json:"throughput_requests_per_sec"`
	InputTokensPerSec        *float64 `json:"input_tokens_per_sec"`
	OutputTokensPerSec       *float64 `json:"output_tokens_per_sec"`
	// The best interval of the series, and the most requests seen at model servers at
	// once.
	PeakOutputTokensPerSec *float64 `json:"peak_output_tokens_per_sec"`
	PeakRequestsPerSec     *float64 `json:"peak_requests_per_sec"`
	PeakConcurrentRequests *int64   `json:"peak_concurrent_requests"`
	// MeanConcurrentRequests is the mean number of requests at model servers while the
	// run was worked on: the sum of their latencies over that time (Little's law).
	MeanConcurrentRequests *float64 `json:"mean_concurrent_requests"`

	// Of the answered requests. LatencySeconds is from the start of the first attempt to the end of
	// the last one, and LastAttemptSeconds the duration of the last attempt; null where metadata of
	// an older version has one figure for both, which is LatencySeconds.
	LatencySeconds             *Distribution `json:"latency_seconds"`
	LastAttemptSeconds         *Distribution `json:"last_attempt_seconds,omitempty"`
	PromptTokensPerRequest     *Distribution `json:"prompt_tokens_per_request"`
	CompletionTokensPerRequest *Distribution `json:"completion_tokens_per_request"`
	// Histograms of the same; null: unknown.
	LatencyHistogram          *Histogram `json:"latency_histogram,omitempty"`
	PromptTokensHistogram     *Histogram `json:"prompt_tokens_histogram,omitempty"`
	CompletionTokensHistogram *Histogram `json:"completion_tokens_histogram,omitempty"`
	// TimeToFirstTokenSeconds and TimePerOutputTokenSeconds are from the histograms of the model
	// servers, over all that they ran while their workers worked on the run; null: unknown.
	TimeToFirstTokenSeconds   *ServerDistribution `json:"time_to_first_token_seconds,omitempty"`
	TimePerOutputTokenSeconds *ServerDistribution `json:"time_per_output_token_seconds,omitempty"`
	// Wasted is the work whose results are not in the output; null: unknown.
	Wasted  *Wasted   `json:"wasted,omitempty"`
	Slowest []Outlier `json:"slowest"` // by latency, a few
	Longest []Outlier `json:"longest"` // by completion tokens, a few

	// EnergyJoules is the energy of the workers' cards for the run; null if the energy of any of
	// them is unknown.
	EnergyJoules              *float64 `json:"energy_joules"`
	JoulesPer1000OutputTokens *float64 `json:"joules_per_1000_output_tokens"`

	Attempts int64 `json:"attempts"`
	// Attempts are the requests by the number of the attempt that they ended on, from
	// "1", and attempt failures the attempts that were followed by another by why.
	AttemptsHistogram map[string]int64 `json:"attempts_histogram"`
	AttemptFailures   map[string]int64 `json:"attempt_failures"`
	FinishReasons     map[string]int64 `json:"finish_reasons"`
	// Failures are the failed requests by cause; of each cause there is a custom_id among
	// the examples.
	Failures        map[string]int64  `json:"failures"`
	FailureExamples map[string]string `json:"failure_examples"`
	// FailureDetails has the causes of Failures, the most frequent first, with the message and the
	// custom_id of one failed request each.
	FailureDetails    []FailureDetail `json:"failure_details,omitempty"`
	DuplicatesDropped int64           `json:"duplicates_dropped"`
	// Dropped counts the result messages, or their lines, that did not fit the run; no other
	// count includes them.
	Dropped       int64  `json:"dropped,omitempty"`
	Redeliveries  *int64 `json:"redeliveries"` // shards that came to a worker after another had them
	Interruptions int    `json:"interruptions"`
	// InterruptedAt are the times without a collector, the oldest first; at most 100.
	InterruptedAt []Interruption `json:"interrupted_at,omitempty"`
	// Departures are the workers that left before the end, in order.
	Departures []Departure `json:"departures,omitempty"`
	// Stops are the limits of the run's policy that stopped it until it was started again.
	Stops []proto.ReachedLimit `json:"stops,omitempty"`

	OutputBytesUncompressed int64    `json:"output_bytes_uncompressed"`
	OutputBytes             int64    `json:"output_bytes"`
	CompressionRatio        *float64 `json:"compression_ratio"`
}

// Distribution says how a quantity is spread over the requests. Quantiles are within 1%.
type Distribution struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// ServerDistribution is a distribution that model servers measured themselves, in the buckets
// that they count by: a quantile is interpolated in its bucket.
type ServerDistribution struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	// Source names the servers' metrics, such as "vllm:time_to_first_token_seconds"; several are
	// joined by ", ".
	Source string `json:"source"`
}

// Wasted is the work of model servers whose results are not in the output.
type Wasted struct {
	// DiscardedAttempts were followed by another attempt, and DiscardedSeconds is their time.
	DiscardedAttempts int64   `json:"discarded_attempts"`
	DiscardedSeconds  float64 `json:"discarded_seconds"`
	// DiscardedTokens are the tokens that they generated, as far as answers report them.
	DiscardedTokens int64 `json:"discarded_tokens"`
	// RepeatedRequests were sent again because a worker died before their results were stored. It is a lower
	// bound: what the worker had sent in its last second is not counted, since it notes that once a second.
	RepeatedRequests int64 `json:"repeated_requests"`
	// DuplicateTokens are the generated tokens of answers that came twice and were dropped.
	DuplicateTokens int64 `json:"duplicate_tokens"`
	// CutOffAnswers are in the output, but their model stopped at the limit of tokens.
	CutOffAnswers int64 `json:"cut_off_answers"`
	// TokenShare is the part of all generated tokens, 0 to 1, that is not in the output, and
	// TimeShare the part of the time of all attempts that was discarded; null: unknown.
	TokenShare *float64 `json:"token_share"`
	TimeShare  *float64 `json:"time_share"`
}

// FailureDetail is a cause of failed requests.
type FailureDetail struct {
	Cause string `json:"cause"` // a key of Failures
	Count int64  `json:"count"`
	// Message is the message of one of them, as the server or promptmill worded it, on one line
	// and at most 1 KiB; empty: none.
	Message  string `json:"message"`
	CustomID string `json:"custom_id"` // of the same request
}

// Interruption is a time without a collector.
type Interruption struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Outlier is a request that took longer, or whose answer is longer, than others.
type Outlier struct {
	CustomID         string  `json:"custom_id"`
	LatencySeconds   float64 `json:"latency_seconds"`
	CompletionTokens *int64  `json:"completion_tokens"` // null: the answer does not report its usage
}

// Worker is a worker that took part in the run, over all its worker
// sessions. A field that does not change with time has the value of the latest report.
type Worker struct {
	ID   string `json:"id,omitempty"` // of its latest process; empty: unknown
	Name string `json:"name"`         // several may have one
	// Label is the name with a part of the id, where others of the run have the name too.
	Label    string   `json:"label,omitempty"`
	Host     *string  `json:"host"`
	Version  *string  `json:"version"`
	Platform *string  `json:"platform"` // flavour and version of its model server
	Models   []string `json:"models"`
	Requests *int64   `json:"requests"` // in the output, by this worker
	GPUs     []GPU    `json:"gpus"`
	// EnergyJoules is the energy of its cards for the run. It is as good as the last
	// announcement, and null where the announcements cover less than 95% of the requests.
	EnergyJoules         *float64 `json:"energy_joules"`
	ModelLoadTimeSeconds *float64 `json:"model_load_time_seconds"`
	// ModelLoad has the parts of ModelLoadTimeSeconds; null: unknown.
	ModelLoad   *proto.ModelLoad   `json:"model_load,omitempty"`
	MemoryBytes proto.ServerMemory `json:"memory_bytes"`
	// Slots are the slots of its model server; null: it does not report them.
	Slots *Slots `json:"slots,omitempty"`
	// Engines are the copies of the model that its model server has, as with vLLM's data parallelism; 0: unknown.
	Engines int `json:"engines,omitempty"`
	// SeveralServers reports that its URL led to more than one server, as behind a load balancer.
	// The memory, the slots, the engines and the load time that one of them reported are left out.
	SeveralServers bool            `json:"several_servers,omitempty"`
	Sessions       []WorkerSession `json:"sessions"` // one for each time that it was started
}

// DisplayName is the worker's name for people.
func (w Worker) DisplayName() string {
	if w.Label != "" {
		return w.Label
	}
	return w.Name
}

// Slots are the requests that a model server runs at once, while others wait, and how many
// were taken while the run was collected.
type Slots struct {
	Count int `json:"count"` // as reported last
	// Readings are the announcements of the worker with requests in flight, between which
	// requests of the run ended. FullReadings are the readings with at least Count in flight.
	Readings     int64 `json:"readings"`
	FullReadings int64 `json:"full_readings"`
}

// GPU is a card of a worker, as it was while the run was collected, whatever it worked
// on.
type GPU struct {
	Index              int    `json:"index"`
	Name               string `json:"name"`
	UUID               string `json:"uuid,omitempty"` // the same at all workers that see the card; empty: unknown
	MemoryBytes        *int64 `json:"memory_bytes"`
	MemoryUsedBytesMax *int64 `json:"memory_used_bytes_max"`
	// PowerWattsMean is of PowerReadings readings, while the worker had requests in flight.
	PowerWattsMean *float64 `json:"power_watts_mean"`
	PowerReadings  int64    `json:"power_readings"`
	EnergyJoules   *float64 `json:"energy_joules"`
}

// WorkerSession is a worker from one of its starts on.
type WorkerSession struct {
	ID    string    `json:"id,omitempty"` // of the process; empty: unknown
	Since time.Time `json:"since"`
	// FirstSeen and LastSeen are the times at which the bus got the first and the last
	// announcement that was read.
	FirstSeen    time.Time `json:"first_seen,omitzero"`
	LastSeen     time.Time `json:"last_seen,omitzero"`
	Version      *string   `json:"version"`
	Platform     *string   `json:"platform"`
	Requests     *int64    `json:"requests"`     // of the run, as it reported
	Redeliveries *int64    `json:"redeliveries"` // shards of the run that came to it after another had them
	// Rerun counts the requests of the run that it sent again, since their worker died before their
	// results were stored, and the others are of the attempts whose answers it threw away, as it reported.
	Rerun             int64    `json:"rerun,omitempty"`
	DiscardedAttempts int64    `json:"discarded_attempts,omitempty"`
	DiscardedTokens   int64    `json:"discarded_tokens,omitempty"`
	DiscardedSeconds  float64  `json:"discarded_seconds,omitempty"`
	EnergyJoules      *float64 `json:"energy_joules"`
}

// Versions are the versions of the software that made the output.
type Versions struct {
	Promptmill string `json:"promptmill"`
	Go         string `json:"go"`
}
