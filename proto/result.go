package proto

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Codes of errors in result lines that promptmill itself gives. Batch errors of the
// OpenAI API keep their own names.
const (
	CodeInvalidRequest  = "invalid_request"  // the input line was refused and --skip-invalid given
	CodeConnection      = "connection_error" // no HTTP answer
	CodeTimeout         = "timeout"          // no complete answer within the time allowed
	CodeInvalidResponse = "invalid_response" // an answer that is not what the API promises
	CodeCancelled       = "batch_cancelled"  // not executed before the run was cancelled; OpenAI's word
	CodeExpired         = "batch_expired"    // not executed in time; OpenAI's word
)

// ResultError is the error of a request that got no HTTP answer.
type ResultError struct {
	Code    string
	Message string
}

// Result is what became of a request: an HTTP answer or an error.
type Result struct {
	Run      string
	Seq      uint32
	CustomID []byte // a JSON string with its quotes
	// Status and Body are the HTTP answer. Body is a JSON value on one line.
	Status    int
	RequestID string // the server's name for the answer; made up when empty
	Body      []byte
	// Err is set when there was no HTTP answer, and then Status is 0.
	Err *ResultError

	Worker   string
	Attempts int
	Queued   time.Duration // from the shard's arrival at the worker to the first attempt
	Latency  time.Duration // of the last attempt
}

// AppendResult appends the output line of a result, with its line feed: OpenAI's
// batch output format, and ours under the one key "promptmill", which comes last.
func AppendResult(dst []byte, r Result) []byte {
	dst = append(dst, `{"id":"batch_req_`...)
	dst = append(dst, r.Run...)
	dst = append(dst, '_')
	dst = strconv.AppendUint(dst, uint64(r.Seq), 10)
	dst = append(dst, `","custom_id":`...)
	dst = append(dst, r.CustomID...)
	if r.Err != nil {
		dst = append(dst, `,"response":null,"error":{"code":`...)
		dst = append(dst, Quote(r.Err.Code)...)
		dst = append(dst, `,"message":`...)
		dst = append(dst, Quote(r.Err.Message)...)
		dst = append(dst, '}')
	} else {
		dst = append(dst, `,"response":{"status_code":`...)
		dst = strconv.AppendInt(dst, int64(r.Status), 10)
		dst = append(dst, `,"request_id":`...)
		if r.RequestID != "" {
			dst = append(dst, Quote(r.RequestID)...)
		} else {
			dst = append(dst, `"req_`...)
			dst = append(dst, r.Run...)
			dst = append(dst, '_')
			dst = strconv.AppendUint(dst, uint64(r.Seq), 10)
			dst = append(dst, '"')
		}
		dst = append(dst, `,"body":`...)
		dst = append(dst, r.Body...)
		dst = append(dst, `},"error":null`...)
	}
	dst = append(dst, extrasKey...)
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, uint64(r.Seq), 10)
	dst = append(dst, `,"worker":`...)
	dst = append(dst, Quote(r.Worker)...)
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendInt(dst, int64(r.Attempts), 10)
	dst = append(dst, `,"queued_ms":`...)
	dst = strconv.AppendInt(dst, r.Queued.Milliseconds(), 10)
	dst = append(dst, `,"latency_ms":`...)
	dst = strconv.AppendInt(dst, r.Latency.Milliseconds(), 10)
	return append(dst, "}}\n"...)
}

const extrasKey = `,"promptmill":`

// Line is what the collector and readers need to know of an output line.
type Line struct {
	CustomID []byte // a JSON string with its quotes
	// OK says that the model answered: a status of 2xx and no error.
	OK               bool
	Seq              int64 // the request's number, from our extras; -1 if they are not there
	Attempts         int64
	PromptTokens     int64 // from the answer's usage; 0 if it has none
	CompletionTokens int64
}

// ParseLine reads an output line, with or without its line feed and with or
// without promptmill's extras, and checks that it is one.
func ParseLine(s *Scanner, line []byte) (Line, error) {
	l := Line{Seq: -1}
	var status int64
	var sawResponse, sawError, failed bool
	s.Reset(line)
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "custom_id":
			l.CustomID = s.Value()
		case "error":
			sawError = true
			failed = string(s.Value()) != "null"
		case "response":
			sawResponse = true
			if s.Kind() != '{' {
				continue
			}
			for s.Enter(); s.Next(); {
				switch {
				case string(s.Name()) == "status_code":
					status = parseInt(s.Value())
				case string(s.Name()) == "body" && s.Kind() == '{':
					l.PromptTokens, l.CompletionTokens = scanUsage(s)
				}
			}
		case "promptmill":
			if s.Kind() != '{' {
				continue
			}
			for s.Enter(); s.Next(); {
				switch string(s.Name()) {
				case "seq":
					l.Seq = parseInt(s.Value())
				case "attempts":
					l.Attempts = parseInt(s.Value())
				}
			}
		}
	}
	if err := s.End(); err != nil {
		return Line{}, fmt.Errorf("output line: %w: %w", ErrFormat, err)
	}
	if len(l.CustomID) == 0 || l.CustomID[0] != '"' || !sawResponse || !sawError {
		return Line{}, fmt.Errorf("output line: %w: custom_id, response or error is missing", ErrFormat)
	}
	l.OK = !failed && status >= 200 && status < 300
	return l, nil
}

// scanUsage reads the token counts from the answer's body that comes next. Chat and
// completions name them prompt_tokens and completion_tokens, the responses API
// input_tokens and output_tokens.
func scanUsage(s *Scanner) (prompt, completion int64) {
	for s.Enter(); s.Next(); {
		if string(s.Name()) != "usage" || s.Kind() != '{' {
			continue
		}
		for s.Enter(); s.Next(); {
			switch string(s.Name()) {
			case "prompt_tokens", "input_tokens":
				prompt = parseInt(s.Value())
			case "completion_tokens", "output_tokens":
				completion = parseInt(s.Value())
			}
		}
	}
	return prompt, completion
}

func parseInt(raw []byte) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0 // not a count: the line is kept, its tokens are not
	}
	return n
}

// StripExtras returns an output line without promptmill's own key, for readers that
// take OpenAI's format to the letter.
func StripExtras(line []byte) []byte {
	i := bytes.LastIndex(line, []byte(extrasKey)) // last: the key could also occur in a body
	if i < 0 || !isTail(line[i+len(extrasKey):]) {
		return line
	}
	return append(slices.Clip(line[:i]), "}\n"...)
}

// isTail reports whether text is an object without others in it, and then the brace
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

// EncodeResults makes the message of some output lines of a shard. seqs are the
// lines' request numbers, ascending, and lines the output lines in the same order,
// each with its line feed.
func EncodeResults(run, shard string, seqs []uint32, lines []byte) *nats.Msg {
	msg := nats.NewMsg(ResultsSubject(run, shard))
	msg.Header.Set(HeaderVersion, Version)
	msg.Header.Set(HeaderShard, shard)
	msg.Header.Set(HeaderSeqs, FormatSeqs(seqs))
	msg.Data = lines
	return msg
}

// ResultSeqs reads the request numbers of a result message's header.
func ResultSeqs(h nats.Header) ([]uint32, error) {
	_, seqs, err := batchHeader(h, MaxShardSize)
	return seqs, err
}

// SplitLines cuts a payload of count output lines into its lines, each with its line
// feed.
func SplitLines(payload []byte, count int) ([][]byte, error) {
	if bytes.Count(payload, []byte{'\n'}) != count || !bytes.HasSuffix(payload, []byte{'\n'}) {
		return nil, fmt.Errorf("%w: payload does not have %d lines", ErrFormat, count)
	}
	return slices.Collect(bytes.Lines(payload)), nil
}

// OneLine makes a JSON value fit for a line of JSONL: it cuts white space at the
// ends and replaces line breaks by spaces, in place. In valid JSON a raw line break
// can only be white space between tokens, so no value changes.
func OneLine(body []byte) []byte {
	body = bytes.Trim(body, " \t\r\n")
	for i := bytes.IndexAny(body, "\r\n"); i >= 0; {
		body[i] = ' '
		j := bytes.IndexAny(body[i:], "\r\n")
		if j < 0 {
			break
		}
		i += j
	}
	return body
}
