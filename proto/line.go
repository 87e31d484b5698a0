package proto

import (
	"bytes"
	"cmp"
	"fmt"
	"github.com/promptmill/promptmill/proto/jsonscan"
	"math"
	"strconv"
)

// Line is what the collector and readers need to know of an output line. Its slices
// are parts of the line, unless they had escapes.
type Line struct {
	CustomID []byte // a JSON string with its quotes
	// ID and RequestID are the names of the line and of its answer, JSON values; nil if they
	// are not there.
	ID, RequestID []byte
	// OK says that the model answered: a status of 2xx and no error.
	OK               bool
	Status           int   // of the HTTP answer; 0: there was none
	PromptTokens     int64 // from the answer's usage; 0 if it has none
	CompletionTokens int64
	CachedTokens     int64 // those of the prompt that the server had read before; 0 if it does not say
	// Finish is why the answer ended: the finish_reason of its first choice or, in the
	// responses API, [FinishOfResponse]. Empty if it does not say.
	Finish string
	// Model is the name that the answer has for its model; nil if it has none.
	Model []byte
	// ErrorCode is why the request failed: the error's code, "http_400" for a refusal
	// of the server, and "unknown" where the line does not say. Empty if it did not fail.
	ErrorCode string

	// The rest is from our extras.
	Index     int64 // the request's number; -1 if they are not there
	Worker    []byte
	Attempts  int64
	Retried   []byte // [Result.Reasons], with commas between
	LatencyMS int64  // of the last attempt; -1: unknown
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

// lineHead is what of an output line is only checked.
type lineHead struct {
	failed bool // it has an error
}

func scanLine(s *jsonscan.Scanner, line []byte) (l Line, head lineHead, err error) {
	l = Line{Index: -1, LatencyMS: -1}
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
				failed = string(s.Value()) != "null"
				continue
			}

			for s.Enter(); s.Next(); {
				if string(s.Name()) == "code" {
					l.ErrorCode = word(s.Value())
				}
			}
		case "response":
			sawResponse = true
			if s.Kind() != '{' {
				continue
			}

			for s.Enter(); s.Next(); {
				switch {
				case string(s.Name()) == "status_code":
					l.Status = int(parseInt(s.Value()))
				case string(s.Name()) == "request_id":
					l.RequestID = s.Value()
				case string(s.Name()) == "body" && s.Kind() == '{':
					scanAnswer(s, &l)
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

// scanAnswer reads the answer's body that comes next. Chat and completions have
// choices, the responses API has a status.
func scanAnswer(s *jsonscan.Scanner, l *Line) {
	var choice, cut, status string
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "usage":
			if s.Kind() == '{' {
				u := ScanUsage(s)
				l.PromptTokens, l.CompletionTokens, l.CachedTokens = u.Prompt, u.Completion, u.Cached
			}
		case "model":
			l.Model = jsonscan.Text(s.Value())
		case "choices":
			if s.Kind() == '[' {
				choice = scanChoices(s)
			}
		case "incomplete_details":
			if s.Kind() == '{' {
				cut = scanMember(s, "reason")
			}
		case "status":
			if s.Kind() == '"' {
				status = word(s.Value())
			}
		}
	}

	l.Finish = cmp.Or(choice, FinishOfResponse(status, cut))
}

// FinishOfResponse says in the words of chat completions how an answer of the
// responses API ended: completed is stop, cancelled is abort, incomplete is its reason
// (max_output_tokens is length), any other status is itself.
func FinishOfResponse(status, reason string) string {
	switch {
	case status == "completed":
		return "stop"
	case status == "cancelled": // so does vLLM when a request is aborted
		return "abort"
	case reason == "max_output_tokens":
		return "length"
	}

	return cmp.Or(reason, status)
}

// scanChoices reads why the first choice of the list that comes next has ended.
func scanChoices(s *jsonscan.Scanner) (finish string) {
	first := true
	for s.EnterArray(); s.NextElement(); first = false {
		if !first || s.Kind() != '{' {
			continue
		}

		for s.Enter(); s.Next(); {
			if string(s.Name()) == "finish_reason" {
				finish = ScanFinish(s)
			}
		}
	}

	return finish
}

// ScanFinish reads the finish_reason that comes next. SGLang's own form is an object.
func ScanFinish(s *jsonscan.Scanner) string {
	if s.Kind() == '{' {
		return scanMember(s, "type")
	}
	return word(s.Value())
}

// scanMember reads one member of the object that comes next.
func scanMember(s *jsonscan.Scanner, name string) (value string) {
	for s.Enter(); s.Next(); {
		if string(s.Name()) == name {
			value = word(s.Value())
		}
	}
	return value
}

// Usage is what an answer says that it took, in tokens. What it does not say is 0.
type Usage struct {
	Prompt, Completion int64
	// Cached are those of the prompt that came from the server's prefix cache. vLLM tells
	// with --enable-prompt-tokens-details, and only if there are any; SGLang with
	// --enable-cache-report.
	Cached int64
}

// ScanUsage reads the token counts from an answer's usage, the object that comes next.
// Chat and completions name them prompt_tokens and completion_tokens, the responses API
// input_tokens and output_tokens.
func ScanUsage(s *jsonscan.Scanner) (u Usage) {
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "prompt_tokens", "input_tokens":
			u.Prompt = parseTokens(s.Value())
		case "completion_tokens", "output_tokens":
			u.Completion = parseTokens(s.Value())
		case "prompt_tokens_details", "input_tokens_details":
			if s.Kind() != '{' {
				continue
			}

			for s.Enter(); s.Next(); {
				if string(s.Name()) == "cached_tokens" {
					u.Cached = parseTokens(s.Value())
				}
			}
		}
	}

	return u
}

// scanExtras reads promptmill's own object, which comes next.
func scanExtras(s *jsonscan.Scanner, l *Line) {
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "index":
			l.Index = parseInt(s.Value())
		case "worker":
			l.Worker = jsonscan.Text(s.Value())
		case "attempts":
			l.Attempts = parseInt(s.Value())
		case "retried":
			l.Retried = jsonscan.Text(s.Value())
		case "latency_ms":
			l.LatencyMS = parseInt(s.Value())
		case "request_hash":
			l.RequestHash, l.Hashed = parseHash(jsonscan.Text(s.Value()))
		}
	}
}

// parseInt reads a count. Writers in JavaScript and Lua have 12.0 or 1.2e1 for 12.
func parseInt(raw []byte) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || f != math.Trunc(f) || f < 0 || f > maxExact {
			return 0 // not a count: the line is kept, its tokens are not
		}
		n = int64(f)
	}

	return max(0, n)
}

// mostTokens is far more than any answer takes, and so little that the sums of whole runs
// stay in an int64.
const mostTokens = 1e9

// parseTokens reads a count of tokens. More than mostTokens is none.
func parseTokens(raw []byte) int64 {
	if n := parseInt(raw); n <= mostTokens {
		return n
	}
	return 0
}

// maxExact is where a float64 stops being exact.
const maxExact = 1 << 53

// words are those that most lines have. They cost no memory.
var words = map[string]string{}

func init() {
	for _, w := range []string{
		"stop", "length", "tool_calls", "function_call", "content_filter", "abort",
		"completed", "incomplete", "max_output_tokens",
		CodeInvalidRequest, CodeConnection, CodeTimeout, CodeInvalidResponse, CodeCancelled, CodeExpired,
		CodePoison, CodeSchemaMismatch, CodeAborted, CodeTooLarge, CodeCutOff,
	} {
		words[w] = w
	}
}

// word is the text of a JSON value that should be a short string. Numbers and the like
// stand for themselves; null, objects and arrays are empty.
func word(raw []byte) string {
	if len(raw) == 0 || raw[0] == 'n' || raw[0] == '{' || raw[0] == '[' {
		return ""
	}

	if raw[0] == '"' {
		raw = jsonscan.Text(raw)
	}

	if w, ok := words[string(raw)]; ok {
		return w
	}

	return string(raw)
}

// OtherRequest is the name that promptmill has made up for the answer in a line, if that is the
// name of another request's answer of the same run: the response was taken from another line. It
// is empty otherwise, and where the model server has named its answer.
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
