package proto

import (
	"bytes"
	"fmt"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"github.com/promptmill/promptmill/proto/openai"
	"strconv"
)

// Line is an output line, as far as the collector and readers need it. Its slices are parts of the
// line, unless they had escapes.
type Line struct {
	// CustomID is a JSON string with its quotes.
	CustomID []byte
	// ID and RequestID are the names of the line and of its answer, JSON values; nil if they
	// are not there.
	ID, RequestID []byte
	// OK reports that the model answered: the status is 2xx and there is no error.
	OK bool
	// Status is the status of the HTTP answer; 0 if there was none.
	Status int
	// PromptTokens and CompletionTokens are the counts of the answer's usage; 0 if it has none.
	PromptTokens     int64
	CompletionTokens int64
	// CachedTokens counts the tokens of the prompt that came from the server's prefix cache; 0 if
	// the answer does not report it.
	CachedTokens int64
	// ReasoningTokens counts the tokens of the completion that are the model's reasoning; 0 if the
	// answer does not report it.
	ReasoningTokens int64
	// Finish is the reason why the answer ended: the finish_reason of its first choice or, in the
	// responses API, [openai.FinishOfResponse]. Empty if the answer has none.
	Finish string
	// Model is the name that the answer has for its model; nil if it has none.
	Model []byte
	// ErrorCode is the reason why the request failed: the error's code, "http_400" for a refusal
	// of the server, and "unknown" where the line has none. Empty if the request did not fail.
	ErrorCode string

	// The fields below are from promptmill's extras.

	// Index is the request index; -1 if the line has no extras.
	Index    int64
	Worker   []byte
	Attempts int64
	// Retried has the [Result.Reasons], separated by commas.
	Retried []byte
	// LatencyMS is the latency of the last attempt in milliseconds; -1: unknown.
	LatencyMS int64
	// TotalMS is the time from the start of the first attempt to the end of the last one, in
	// milliseconds; -1: unknown.
	TotalMS int64
	// DiscardedMS is the time, in milliseconds, of the attempts whose answers were thrown away, and
	// DiscardedTokens counts the tokens that they generated; 0: none, or unknown.
	DiscardedMS, DiscardedTokens int64
	// RequestHash is the [Request.Hash] of the request that the line answers. It is there
	// if Hashed is true.
	RequestHash uint64
	Hashed      bool
}

// ParseLine reads an output line, with or without its line feed and with or
// without promptmill's extras, and checks that it is one.
func ParseLine(s *jsonscan.Scanner, line []byte) (Line, error) {
	l, _, err := scanLine(s, line)
	return l, err
}

// ParseLineBody is [ParseLine], and also returns the body of the HTTP answer and the error, JSON values
// that are nil if they are not there.
func ParseLineBody(s *jsonscan.Scanner, line []byte) (l Line, body, failure []byte, err error) {
	l, head, err := scanLine(s, line)
	return l, head.body, head.failure, err
}

// lineHead has the parts of a line that few readers need.
type lineHead struct {
	// failed reports that the line has an error.
	failed bool
	// body is the body of the HTTP answer and failure the error, JSON values; nil if they are not there.
	body, failure []byte
}

func scanLine(s *jsonscan.Scanner, line []byte) (l Line, head lineHead, err error) {
	l = Line{Index: -1, LatencyMS: -1, TotalMS: -1}
	var sawResponse, sawError, failed bool
	s.Reset(line)

	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "id":
			l.ID = s.Value()
		case "custom_id":
			l.CustomID = s.Value()
		case "error":
			sawError, failed, l.ErrorCode = true, true, ""
			if s.Kind() != '{' {
				head.failure = s.Value()
				failed = string(head.failure) != "null"
				continue
			}

			start := s.Enter()
			for s.Next() {
				if string(s.Name()) == "code" {
					l.ErrorCode = internErrorCode(jsonscan.Word(s.Value()))
				}
			}
			head.failure = line[start:s.Offset()]
		case "response":
			sawResponse = true
			if s.Kind() != '{' {
				continue
			}

			for s.Enter(); s.Next(); {
				switch {
				case string(s.Name()) == "status_code":
					l.Status = int(jsonscan.Count(s.Value()))
				case string(s.Name()) == "request_id":
					l.RequestID = s.Value()
				case string(s.Name()) == "body":
					if s.Kind() != '{' {
						head.body = s.Value()
						continue
					}

					start := s.Offset()
					a := openai.ScanAnswer(s)
					head.body = bytes.TrimLeft(line[start:s.Offset()], ": \t\r\n")
					l.Model, l.Finish = a.Model, a.Finish
					l.PromptTokens, l.CompletionTokens = a.Usage.Prompt, a.Usage.Completion
					l.CachedTokens, l.ReasoningTokens = a.Usage.Cached, a.Usage.Reasoning
				}
			}
		case "promptmill":
			if s.Kind() == '{' {
				scanExtras(s, &l)
			}
		}
	}

	if err := s.End(); err != nil {
		return Line{}, head, fmt.Errorf("output line: %w: %w", ErrFormat, err)
	}

	if len(l.CustomID) == 0 || l.CustomID[0] != '"' || !sawResponse || !sawError {
		return Line{}, head, fmt.Errorf("output line: %w: custom_id, response or error is missing", ErrFormat)
	}

	head.failed = failed
	l.OK = !failed && l.Status >= 200 && l.Status < 300
	if !l.OK && l.ErrorCode == "" {
		l.ErrorCode = "unknown"
		if !failed && l.Status > 0 {
			l.ErrorCode = "http_" + strconv.Itoa(l.Status)
		}
	}

	return l, head, nil
}

// scanExtras reads promptmill's own object, which comes next.
func scanExtras(s *jsonscan.Scanner, l *Line) {
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "index":
			l.Index = jsonscan.Count(s.Value())
		case "worker":
			l.Worker = jsonscan.Text(s.Value())
		case "attempts":
			l.Attempts = jsonscan.Count(s.Value())
		case "retried":
			l.Retried = jsonscan.Text(s.Value())
		case "latency_ms":
			l.LatencyMS = jsonscan.Count(s.Value())
		case "total_ms":
			l.TotalMS = jsonscan.Count(s.Value())
		case "discarded_ms":
			l.DiscardedMS = jsonscan.Count(s.Value())
		case "discarded_tokens":
			l.DiscardedTokens = jsonscan.Count(s.Value())
		case "request_hash":
			l.RequestHash, l.Hashed = parseHash(jsonscan.Text(s.Value()))
		}
	}

	if l.TotalMS >= 0 || l.Attempts <= 1 { // else an older worker made several attempts
		l.TotalMS = max(l.TotalMS, l.LatencyMS)
	}
}

// internErrorCode returns an error's code as a string. Those that most lines have cost no memory.
func internErrorCode(code []byte) string {
	switch string(code) {
	case CodeInvalidRequest:
		return CodeInvalidRequest
	case CodeConnection:
		return CodeConnection
	case CodeTimeout:
		return CodeTimeout
	case CodeInvalidResponse:
		return CodeInvalidResponse
	case CodeCancelled:
		return CodeCancelled
	case CodeExpired:
		return CodeExpired
	case CodePoison:
		return CodePoison
	case CodeSchemaMismatch:
		return CodeSchemaMismatch
	case CodeAborted:
		return CodeAborted
	case CodeTooLarge:
		return CodeTooLarge
	case CodeCutOff:
		return CodeCutOff
	}

	return string(code)
}

// OtherRequest returns the name that promptmill made up for the answer in a line, if the name
// belongs to the answer of another request of the same run: the response was taken from another
// line. It is empty otherwise, and where the model server named its answer.
func (l Line) OtherRequest() string {
	id, ok := bytes.CutPrefix(l.ID, []byte(`"batch_req_`))
	answer, made := bytes.CutPrefix(l.RequestID, []byte(`"req_`))
	if !ok || !made || bytes.Equal(id, answer) {
		return ""
	}

	run := id[:bytes.LastIndexByte(id, '_')+1]
	if len(run) == 0 || !bytes.HasPrefix(answer, run) {
		return ""
	}

	return string(l.RequestID)
}
