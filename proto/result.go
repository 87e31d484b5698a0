package proto

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Codes of promptmill's own errors in output lines. Batch errors of the
// OpenAI API keep their own names.
const (
	CodeInvalidRequest  = "invalid_request"  // the input line was refused and --skip-invalid given
	CodeConnection      = "connection_error" // no HTTP answer
	CodeTimeout         = "timeout"          // no complete answer within the time allowed
	CodeInvalidResponse = "invalid_response" // an answer that breaks the API
	CodeCancelled       = "batch_cancelled"  // not executed before the run was cancelled; OpenAI's word
	CodeExpired         = "batch_expired"    // not executed in time; OpenAI's word
	CodePoison          = "poison"           // killed the model server or the worker each time it was tried
	CodeSchemaMismatch  = "schema_mismatch"  // the answer, which is kept, does not match the schema
	CodeAborted         = "aborted"          // the model server gave up the request
	CodeTooLarge        = "answer_too_large" // larger than [bus.MaxAnswer]
	CodeCutOff          = "cut_off"          // by a proxy in front of the model server, after the same time each time
)

// IsNotSent reports whether a code is of requests that never went to a model server.
func IsNotSent(code string) bool {
	return code == CodeCancelled || code == CodeExpired || code == CodeInvalidRequest
}

// ResultError is the error of a request that got no HTTP answer, or an answer that does not count.
type ResultError struct {
	Code    string
	Message string
}

// Result is the outcome of a request: an HTTP answer, an error, or an answer that does not count
// and the error that says why.
type Result struct {
	Run   string
	Index uint32
	// CustomID is a JSON string with its quotes.
	CustomID []byte
	// RequestHash is the [Request.Hash] of the request that was run.
	RequestHash uint64
	// Status and Body are the HTTP answer. Body is a JSON value on one line.
	Status int
	Body   []byte
	// RequestID is the server's name for the answer. If it is empty, the output line gets a name
	// that promptmill makes up.
	RequestID string
	// Err is set when there was no HTTP answer, and then Status is 0, or when the answer
	// does not count and is kept nevertheless.
	Err *ResultError

	Worker   string
	Attempts int
	// Reasons has a reason for each failed attempt before the last one, in their order: a status
	// such as "503", or one of the codes. A reason has no commas.
	Reasons []string
	// Queued is the time from the shard's arrival at the worker to the first attempt.
	Queued time.Duration
	// Latency is the duration of the attempt that the result is from, usually the last one; 0: it
	// is from none.
	Latency time.Duration
	// Total is the time from the start of the first attempt that reached the model server to the end
	// of the last one, with the waits between them: for a retry, for a place at the server, for a
	// server that was away. 0: the same as Latency. Like Discarded it has what this worker did: a
	// worker that gets the request from another one knows nothing of that one's attempts.
	Total time.Duration
	// Discarded is the cost of the attempts whose answers were thrown away: all but the one that
	// the result is from.
	Discarded Discarded
}

// Discarded is the cost of attempts whose answers were thrown away.
type Discarded struct {
	// Time is the time that they took at the model server.
	Time time.Duration
	// Tokens counts the tokens that they generated, as far as their answers report them. Those of
	// an attempt without an answer (a timeout, a lost connection) are unknown, and not counted.
	Tokens int64
}

// AppendResult appends the output line of a result, with its line feed: OpenAI's
// batch output format, and ours under the one key "promptmill", which comes last.
func AppendResult(dst []byte, r Result) []byte {
	dst = append(dst, `{"id":"batch_req_`...)
	dst = append(dst, r.Run...)
	dst = append(dst, '_')
	dst = strconv.AppendUint(dst, uint64(r.Index), 10)
	dst = append(dst, `","custom_id":`...)
	dst = append(dst, r.CustomID...)
	if r.Err != nil && r.Status == 0 {
		dst = append(dst, `,"response":null`...)
	} else {
		dst = append(dst, `,"response":{"status_code":`...)
		dst = strconv.AppendInt(dst, int64(r.Status), 10)
		dst = append(dst, `,"request_id":`...)
		if r.RequestID != "" {
			dst = append(dst, jsonscan.Quote(r.RequestID)...)
		} else {
			dst = append(dst, `"req_`...)
			dst = append(dst, r.Run...)
			dst = append(dst, '_')
			dst = strconv.AppendUint(dst, uint64(r.Index), 10)
			dst = append(dst, '"')
		}

		dst = append(dst, `,"body":`...)
		dst = append(dst, r.Body...)
		dst = append(dst, '}')
	}

	if r.Err != nil {
		dst = append(dst, `,"error":{"code":`...)
		dst = append(dst, jsonscan.Quote(r.Err.Code)...)
		dst = append(dst, `,"message":`...)
		dst = append(dst, jsonscan.Quote(r.Err.Message)...)
		dst = append(dst, '}')
	} else {
		dst = append(dst, `,"error":null`...)
	}

	dst = append(dst, extrasKey...)
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendUint(dst, uint64(r.Index), 10)
	dst = append(dst, `,"worker":`...)
	dst = append(dst, jsonscan.Quote(r.Worker)...)
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendInt(dst, int64(r.Attempts), 10)
	dst = append(dst, `,"queued_ms":`...)
	dst = strconv.AppendInt(dst, r.Queued.Milliseconds(), 10)
	dst = append(dst, `,"latency_ms":`...)
	dst = strconv.AppendInt(dst, r.Latency.Milliseconds(), 10)
	if r.Total > r.Latency || r.Attempts > 1 { // without it, the time of several attempts is unknown
		dst = append(dst, `,"total_ms":`...)
		dst = strconv.AppendInt(dst, max(r.Total, r.Latency).Milliseconds(), 10)
	}

	if r.Discarded != (Discarded{}) {
		dst = append(dst, `,"discarded_ms":`...)
		dst = strconv.AppendInt(dst, r.Discarded.Time.Milliseconds(), 10)
		dst = append(dst, `,"discarded_tokens":`...)
		dst = strconv.AppendInt(dst, r.Discarded.Tokens, 10)
	}

	dst = append(dst, `,"request_hash":"`...)
	dst = appendHash(dst, r.RequestHash)
	dst = append(dst, '"')
	if len(r.Reasons) > 0 {
		// In one string: see StripExtras.
		dst = append(dst, `,"retried":`...)
		dst = append(dst, jsonscan.Quote(strings.Join(r.Reasons, ","))...)
	}

	return append(dst, "}}\n"...)
}

const extrasKey = `,"promptmill":`

// StripExtras returns an output line without promptmill's own key, for readers that
// take OpenAI's format to the letter.
func StripExtras(line []byte) []byte {
	n := PlainSize(line)
	if n == len(line) {
		return line
	}
	return append(slices.Clip(line[:n-len(lineEnd)]), lineEnd...)
}

// AppendPlain appends an output line without promptmill's own key to dst. The line may lie in
// the memory behind dst, which is overwritten.
func AppendPlain(dst, line []byte) []byte {
	n := PlainSize(line)
	if n == len(line) {
		return append(dst, line...)
	}
	return append(append(dst, line[:n-len(lineEnd)]...), lineEnd...)
}

// PlainSize returns the size in bytes of an output line without promptmill's own key.
func PlainSize(line []byte) int {
	head := line
	for !bytes.HasSuffix(head, []byte(extrasKey)) { // the last one: the key could also occur in a body
		if head = head[:max(0, len(head)-1)]; len(head) == 0 {
			return len(line)
		}
		head = head[:bytes.LastIndexByte(head, extrasKey[len(extrasKey)-1])+1]
	}

	if !isTail(line[len(head):]) {
		return len(line)
	}

	return len(head) - len(extrasKey) + len(lineEnd)
}

const lineEnd = "}\n"

// isTail reports whether text is an object without objects in it, followed by the brace
// and the line feed that end a line.
func isTail(text []byte) bool {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case text[i] == '}' && !quoted:
			return string(text[i:]) == "}}\n"
		}
	}

	return false
}

// MaxBatch is the most output lines in a result message.
const MaxBatch = 16

// EncodeResults makes the message of some output lines of a shard. indexes are the indexes of their
// requests, ascending, and lines the output lines in the same order, each with its line feed.
func EncodeResults(run, shard string, indexes []uint32, lines []byte) *nats.Msg {
	msg := nats.NewMsg(ResultsSubject(run, shard))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, shard)
	msg.Header.Set(HeaderIndexes, FormatIndexes(indexes))
	msg.Data = lines
	return msg
}

// SplitLines splits a payload of count output lines into its lines, each with its line feed.
func SplitLines(payload []byte, count int) ([][]byte, error) {
	if bytes.Count(payload, []byte{'\n'}) != count || !bytes.HasSuffix(payload, []byte{'\n'}) {
		return nil, fmt.Errorf("%w: want %d lines, each with its line feed", ErrFormat, count)
	}
	return slices.Collect(bytes.Lines(payload)), nil
}

// OneLine makes a JSON value fit for a line of JSONL: it cuts white space at the
// ends and replaces line breaks by spaces, in place. In valid JSON a raw line break
// can only be white space between tokens, so no value changes.
func OneLine(body []byte) []byte {
	body = bytes.Trim(body, " \t\r\n")
	for _, c := range []byte("\r\n") { // one at a time: bytes.IndexAny takes ten times as long
		for rest := body; ; {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}

	return body
}
