package page

import (
	"encoding/json"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

// The names of the events of GET /page/events.
const (
	EventState    = "state"
	EventRun      = "run"
	EventGone     = "gone"
	EventStopping = "stopping"
)

// Session says who looks at the page.
type Session struct {
	// KeyNeeded reports that the page needs a key, and SignedIn that the request has one, or needs none.
	KeyNeeded bool `json:"key_needed"`
	SignedIn  bool `json:"signed_in"`
	// Key is the name of the key, or its id if it has none. Empty: no key is needed, or there is none.
	Key string `json:"key,omitempty"`
	// MayChange reports that the key may pause, resume, cancel and retry runs.
	MayChange bool `json:"may_change"`
	// OwnOnly reports that the key sees its own runs alone, and neither workers nor the bus.
	OwnOnly bool `json:"own_only"`
	// Version is the version of promptmill.
	Version string `json:"version"`
}

// Login is the body of POST /page/login, as JSON or as a form with the field key.
type Login struct {
	// Key is the secret of an API key.
	Key string `json:"key"`
}

// Overview is all that is on the bus.
type Overview struct {
	// At is the time of the overview, by the clock of the head. Ages are counted from it.
	At time.Time `json:"at"`
	// Runs are the runs, those that work first, and then the latest first; never null.
	Runs []Run `json:"runs"`
	// EndedLeftOut counts the ended runs that are left out: the overview has the latest 50.
	EndedLeftOut int `json:"ended_left_out,omitempty"`
	// Workers are the workers, by name; never null.
	Workers []Worker `json:"workers"`
	// Bus is the bus; null for a key that sees its own runs alone.
	Bus *Bus `json:"bus"`
	// Problem is a sentence: why the overview is older than it should be. Empty: it is not.
	Problem string `json:"problem,omitempty"`
}

// Run is a run in an overview.
type Run struct {
	ID        string `json:"id"`
	Label     string `json:"label,omitempty"`
	InputName string `json:"input_name"`
	// Models are the models of its requests, sorted, and Missing those that no ready worker serves.
	Models  []string    `json:"models"`
	Missing []string    `json:"missing_models,omitempty"`
	State   proto.State `json:"state"`
	// StateSince is the time since which it is in this state.
	StateSince time.Time  `json:"state_since"`
	CreatedAt  time.Time  `json:"created_at"`
	EndedAt    *time.Time `json:"ended_at,omitempty"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	Priority   int        `json:"priority"`
	Progress   Progress   `json:"progress"`
	// Failures counts the failed requests in the synced output by cause.
	Failures map[string]int64 `json:"failures,omitempty"`
	// Problem is a sentence: why the run is not done, with the way out. Empty: nothing hinders it.
	Problem string `json:"problem,omitempty"`
	// Collector is the process that collects the run; null: none does now.
	Collector *proto.CollectorInfo `json:"collector"`
	// CollectedElsewhere is the host that has the files of the run; empty: this one has, or none yet. The page
	// then knows of the run what the bus has.
	CollectedElsewhere string `json:"collected_elsewhere,omitempty"`
	// Actions are what can be done with the run in its state: pause, resume, cancel, retry.
	Actions []string `json:"actions"`
}

// Progress counts the requests of a run. Null is unknown.
type Progress struct {
	// Total is the number of requests, Done the answered and failed ones, and Durable the ones of Done in the
	// synced output.
	Total   int `json:"total"`
	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Durable int `json:"durable"`
	// RequestsPerS is the average over the last 30 s.
	RequestsPerS *float64 `json:"requests_per_s"`
	// Remaining is the time in seconds that the rest takes: nine times in ten between low and high.
	Remaining *proto.Interval `json:"remaining_s"`
	// ElapsedS is the time in seconds from the run's creation to its end, or until now.
	ElapsedS float64 `json:"elapsed_s"`
	// PromptTokens and CompletionTokens are of the synced output.
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
}

// Worker is a worker on the bus.
type Worker struct {
	// ID is the id of the process, and Name its name, with a part of the id where several have the name.
	ID      string `json:"id"`
	Name    string `json:"name"`
	Host    string `json:"host"`
	Version string `json:"version"`
	// Server is the URL of its model server, and Platform that server's kind and version.
	Server   string `json:"server"`
	Platform string `json:"platform,omitempty"`
	// Models are the models that the server lists; null: there is no list, and it tries any.
	Models []string `json:"models"`
	// Ready reports that the server answers, and Problem why not, or what else is wrong.
	Ready   bool   `json:"ready"`
	Problem string `json:"problem,omitempty"`
	// Departure is why and when it leaves; null: it stays.
	Departure *Departure `json:"departure"`
	// Engines is the number of engines of a server with data parallelism; 0: unknown.
	Engines int `json:"engines,omitempty"`
	// InFlight are the requests at the server, Limit the most that the worker sends at once, and Waiting the
	// requests in the server's queue; null: unknown.
	InFlight int64  `json:"in_flight"`
	Limit    int    `json:"limit"`
	Waiting  *int64 `json:"waiting"`
	// Done counts the requests since it began, and RequestsPerS is its rate.
	Done           int64   `json:"done"`
	RequestsPerS   float64 `json:"requests_per_s"`
	LatencySeconds float64 `json:"latency_s"`
	// Since is its start, and HeardAt the time of its last announcement: one comes every 3 s, and it is gone
	// without one for 15 s.
	Since   time.Time   `json:"since,omitzero"`
	HeardAt time.Time   `json:"heard_at"`
	GPUs    []proto.GPU `json:"gpus"`
	// Runs are the runs that it has worked for.
	Runs []string `json:"runs,omitempty"`
}

// Departure is the end of a worker that was asked to leave.
type Departure struct {
	// Reason is why, for people, and Deadline the time at which it will be gone, by the clock of its host.
	Reason   string    `json:"reason"`
	Deadline time.Time `json:"deadline"`
}

// Bus is the bus of the head. Null and empty are unknown.
type Bus struct {
	// Name names it, Version is that of its NATS server, and Cluster the name of its cluster; empty: a
	// single server.
	Name    string `json:"name"`
	Version string `json:"version"`
	Cluster string `json:"cluster,omitempty"`
	// Own reports that the head runs the bus itself.
	Own bool `json:"own"`
	// Since is the time since which this process is connected.
	Since time.Time `json:"since"`
	// Connected reports that the bus answers.
	Connected bool `json:"connected"`
	// StoreBytes are the bytes of all streams on the disk, ReservedBytes those that are set aside for them, and
	// LimitBytes the most; null: no limit, or unknown.
	StoreBytes    int64  `json:"store_bytes"`
	ReservedBytes int64  `json:"reserved_bytes"`
	LimitBytes    *int64 `json:"limit_bytes"`
	// DiskFreeBytes and DiskBytes are of the disk of the output; null: unknown.
	DiskFreeBytes *int64 `json:"disk_free_bytes"`
	DiskBytes     *int64 `json:"disk_bytes"`
	// Streams are the streams of the runs that have not ended, the fullest first; never null.
	Streams []Stream `json:"streams"`
	// Warnings are sentences about the bus, each with the way out.
	Warnings []string `json:"warnings"`
}

// Stream is a stream of the bus.
type Stream struct {
	// Name is its name, Run the run that it belongs to, and Kind what it has: work or results.
	Name string `json:"name"`
	Run  string `json:"run"`
	Kind string `json:"kind"`
	// Messages and Bytes are stored now, and LimitBytes are the most; null: no limit.
	Messages   uint64 `json:"messages"`
	Bytes      int64  `json:"bytes"`
	LimitBytes *int64 `json:"limit_bytes"`
}

// The sources of a RunDetail.
const (
	// SourceJournal is a run that works: its journal on this host, as far as it is synced.
	SourceJournal = "journal"
	// SourceMetadata is a run that has ended: its NAME.meta.json on this host.
	SourceMetadata = "metadata"
	// SourceBus is a run without files on this host: Results, Series and LastFailures are unknown.
	SourceBus = "bus"
)

// RunDetail is all that is known of a run.
type RunDetail struct {
	// At is the time of the detail, by the clock of the head.
	At  time.Time `json:"at"`
	Run Run       `json:"run"`
	// Source says where Results, Series and LastFailures are from: journal, metadata or bus. Note is a sentence
	// about what is not known and why; empty: nothing is to be said.
	Source string `json:"source"`
	Note   string `json:"note,omitempty"`
	// InputFiles are the paths of the input, and Output the HOST:PATH of the answers.
	InputFiles []string `json:"input_files"`
	InputBytes int64    `json:"input_bytes"`
	Output     string   `json:"output,omitempty"`
	// MaxTokens and FailIf are the limits that stop the run; 0 and empty: none.
	MaxTokens int64    `json:"max_tokens,omitempty"`
	FailIf    []string `json:"fail_if,omitempty"`
	// Results are the figures so far: histograms, latencies, failures with their messages, wasted work,
	// interruptions; null: unknown. The fields are those of NAME.meta.json.
	Results *metadata.Results `json:"results"`
	// Series are the charts over time; null: unknown. It has at most 500 intervals.
	Series *metadata.Series `json:"series"`
	// Workers are the workers that took part, as NAME.meta.json has them; empty: unknown, or none yet. Those
	// that work now are in [Overview.Workers].
	Workers []metadata.Worker `json:"workers"`
	// LastFailures are the latest failed requests, at most 20, the latest first.
	LastFailures []Failure `json:"last_failures"`
	// Markers are the moments to be marked in charts, the oldest first.
	Markers []Marker `json:"markers"`
	// Commands are what to type on the command line, such as for all failures.
	Commands []Command `json:"commands,omitempty"`
}

// Failure is a failed request.
type Failure struct {
	CustomID string `json:"custom_id"`
	// Cause is the code of the error, and Message its message, at most 2,000 bytes.
	Cause   string `json:"cause"`
	Message string `json:"message"`
	// Status is the HTTP status of the model server; 0: it did not answer.
	Status int `json:"status,omitempty"`
	// Attempts is the number of attempts, and Worker the worker of the last one.
	Attempts int    `json:"attempts,omitempty"`
	Worker   string `json:"worker,omitempty"`
}

// Marker is a moment, or a time, of a run.
type Marker struct {
	// Kind is interruption (no process collected the run) or stop (a limit stopped it).
	Kind string     `json:"kind"`
	From time.Time  `json:"from"`
	To   *time.Time `json:"to,omitempty"`
	// Text is a short sentence for people.
	Text string `json:"text"`
}

// Command is a command for a run.
type Command struct {
	// Does says what it does, and Line is the command.
	Does string `json:"does"`
	Line string `json:"line"`
}

// The states of a FindResult.
const (
	// FindAnswered and FindFailed are requests with a line.
	FindAnswered = "answered"
	FindFailed   = "failed"
	// FindOpen is a request of the input without a line yet.
	FindOpen = "open"
	// FindUnknown is a custom_id that the run does not have.
	FindUnknown = "unknown"
	// FindNone is a custom_id without a line, of which it is not known whether the input has it.
	FindNone = "none"
)

// FindResult is the result of a search for a custom_id, so far.
type FindResult struct {
	CustomID string `json:"custom_id"`
	// Done reports that this is the last one of the search.
	Done bool `json:"done"`
	// State is empty while the search goes on without a match.
	State string `json:"state,omitempty"`
	// Text is a sentence for people: what was found, and how far the search looked.
	Text string `json:"text"`
	// Lines are the output lines of the request, at most 5: there are several only if a custom_id is not unique.
	Lines []FoundLine `json:"lines,omitempty"`
	// LookedBytes of TotalBytes of uncompressed lines were searched. TotalBytes is 0 while it is unknown.
	LookedBytes int64 `json:"looked_bytes"`
	TotalBytes  int64 `json:"total_bytes"`
	// Problem is a sentence: why the search ended early. Empty: it did not.
	Problem string `json:"problem,omitempty"`
}

// FoundLine is an output line.
type FoundLine struct {
	// Failed reports that it is the line of a failed request.
	Failed bool `json:"failed"`
	// Bytes is the length of the line.
	Bytes int64 `json:"bytes"`
	// Line is the line as JSON; null if it is longer than 256 KiB. Text has its beginning then, which is no JSON.
	Line json.RawMessage `json:"line"`
	Text string          `json:"text,omitempty"`
}

// Changed is the answer to an action: the run as it is now.
type Changed struct {
	Run string `json:"run"`
	// State is its state now, and Text a sentence: what has changed.
	State proto.State `json:"state"`
	Text  string      `json:"text"`
}

// Error is a refusal.
type Error struct {
	// Code is a word for programs: bad_request, key_required, unknown_key, not_allowed, other_site, no_run,
	// wrong_state, no_files, too_many, unavailable.
	Code string `json:"code"`
	// Message is a sentence for people, with the way out.
	Message string `json:"message"`
}
