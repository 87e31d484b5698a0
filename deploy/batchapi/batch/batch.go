package batch

import (
	"errors"
	"time"

	"github.com/promptmill/promptmill/proto"
)

var (
	// ErrNotFound is returned for a batch that is not there.
	ErrNotFound = errors.New("no such batch")
	// ErrUnavailable is wrapped by the errors of calls that need the bus, which does not answer
	// now. The same call may succeed later.
	ErrUnavailable = errors.New("the bus does not answer")
)

// RequestError is the error of a request that a client has to change. It has the fields of OpenAI's
// errors.
type RequestError struct {
	// Message is a sentence that names the fault and the way to repair it.
	Message string
	// Param is the parameter of the request that is wrong; empty if none is.
	Param string
	// Code is a word for programs, such as invalid_endpoint; empty if there is none.
	Code string
}

// Error implements error.
func (e *RequestError) Error() string { return e.Message }

// Batch describes a batch: a run that was created over HTTP.
type Batch struct {
	// ID is batch_ and the id of the run.
	ID string
	// Run is the id of the run.
	Run string
	// Owner is the id of the API key that made the batch; empty if none was needed.
	Owner string
	// Endpoint is the path of all requests, such as /v1/chat/completions.
	Endpoint string
	// InputFileID is the file of requests.
	InputFileID string
	// CompletionWindow is the window as the client wrote it, such as 24h.
	CompletionWindow string
	// Metadata are the client's pairs; nil if it gave none.
	Metadata map[string]string
	// State is the state of the run. A paused run is in progress.
	State proto.State
	// Models are the models of the requests, sorted; nil until the input is validated.
	Models []string
	// Errors are the lines of the input that were refused, at most [MaxErrors], and then the
	// number of the others; or the reason why the batch failed. Empty unless the batch failed.
	Errors []InputError
	// Problem is the reason why the run cannot be collected now, such as a full disk. Empty: there is none.
	Problem string
	// OutputFileID is the file of answers; empty until the first answers are synced, or with ordered
	// outputs until the batch has ended.
	OutputFileID string
	// ErrorFileID is the file of failed requests; empty while none has failed, and with ordered outputs
	// until the batch has ended.
	ErrorFileID string
	// Total, Completed and Failed count the requests.
	Total, Completed, Failed int
	// Usage has the tokens of the synced answers. Nil until there are answers.
	Usage *Usage

	// The times at which the batch came into its states. Zero: it did not.
	CreatedAt, InProgressAt, FinalizingAt, CompletedAt, FailedAt, ExpiredAt, CancellingAt, CancelledAt time.Time
	// ExpiresAt is the end of the completion window. Zero: the run was retried, and has no end.
	ExpiresAt time.Time
	// Retries counts the times that the failed requests of the ended run were started again. Each time, the
	// batch is in progress again, and has the time of one end alone.
	Retries int
}

// MaxErrors is the most refused lines that a batch lists.
const MaxErrors = 1000

// InputError is a fault of a batch's input.
type InputError struct {
	// Code is a word for programs, such as invalid_json_line.
	Code string
	// Message is a sentence for people.
	Message string
	// Param is the member of the line that is wrong; empty if none is.
	Param string
	// Line is the number of the line, from 1; 0: the fault is of no line.
	Line int
}

// Usage counts the tokens of prompts and of answers, as the model servers do.
type Usage struct {
	Input, Output int64
	// CachedInput and ReasoningOutput are parts of Input and Output, as far as the answers
	// report them. They are 0 until the batch has ended.
	CachedInput, ReasoningOutput int64
}
