package openai

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Answer is the content of an answer's body.
type Answer struct {
	// Model is the name that the answer has for its model, without quotes; nil if it has none.
	Model []byte
	// Finish is the reason why the first choice ended: stop, length, content_filter, tool_calls, or
	// another word of the server; "" if it has none. For the Responses API it is
	// [FinishOfResponse].
	Finish string
	// Usage counts the tokens of the answer.
	Usage Usage

	// The fields below are set by [ReadAnswer] alone.

	// Text is the text of the first choice: the content of the message or the text of
	// a completion, or all output texts of a response. It is nil if there is none, and may be a
	// part of the body.
	Text []byte
	// Problem is the reason why the body is no answer of the endpoint; "" if it is one.
	Problem string
	// GaveUp reports that the problem is a request which the server took and did not finish.
	GaveUp bool
}

// FinishOfResponse translates the status of an answer of the responses API into the words of chat
// completions: completed is stop, cancelled is abort, incomplete is its reason (max_output_tokens
// is length), any other status is itself.
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

// ScanAnswer reads the body of an answer, an object, which comes next: its model, usage and
// finish reason. Errors are the scanner's.
func ScanAnswer(s *jsonscan.Scanner) Answer {
	var f findings
	for s.Enter(); s.Next(); {
		f.readSummary(s)
	}

	return f.summarize()
}

var errTooDeep = errors.New("JSON is nested too deep")

// ReadAnswer reads the body of an answer of an endpoint to a request, of which it must have all
// parts. A request that is nil is not compared, see [NeedsRequest]. It fails if the body is not
// one whole JSON object, or array where the endpoint may answer with one. Members of a wrong
// form count as missing; of a member that is there twice, the last counts. proto.ParseLine can read
// each accepted body in an output line.
func ReadAnswer(endpoint string, request, body []byte) (Answer, error) {
	if jsonscan.TooDeep(body) {
		return Answer{}, errTooDeep
	}

	r := readers.Get().(*reader)
	defer func() {
		r.scan.Reset(nil) // keep no body
		r.content = content{}
		readers.Put(r)
	}()

	s, f := &r.scan, findings{content: &r.content}
	s.Reset(body)

	if s.Kind() == '[' && mayBeArray(endpoint) { // so SGLang, llama.cpp and TEI rank
		f.content.bare = readItems(s, endpoint)
	} else {
		for s.Enter(); s.Next(); {
			if !f.readSummary(s) {
				f.content.readMember(s, endpoint)
			}
		}
	}

	if err := s.End(); err != nil {
		return Answer{}, err
	}

	return f.checkAnswer(s, endpoint, request), nil
}

// reader is the memory that reading an answer takes.
type reader struct {
	scan    jsonscan.Scanner
	content content
}

var readers = sync.Pool{New: func() any { return new(reader) }}

// mayBeArray reports whether an endpoint may answer with an array of items.
func mayBeArray(endpoint string) bool {
	return endpoint == "/v1/rerank" || endpoint == "/v1/score" || endpoint == "/v1/embeddings"
}

// findings are the members of an answer: its summary and, unless it is nil, its content.
type findings struct {
	model []byte
	usage Usage
	first choice
	// status and reason are members of a response.
	status, reason string

	content *content
}

// content are the members of an answer that can hold the requested output.
type content struct {
	choices, data, results, scores, bare, output itemList

	// written has the texts of a response.
	written    []byte
	outputText []byte
	isError    bool
	// isChunk reports that the answer is a chunk of a stream.
	isChunk bool
}

// itemList summarizes an array.
type itemList struct {
	n int
	// lacks names the part that an element lacks; "": none lacks one.
	lacks string
	// silent reports that one of the elements has no output.
	silent bool
	// gaveUp is the reason why the server did not finish one of the elements.
	gaveUp string

	// indexes are the indexes of the elements. Each element stands for a part of the request.
	indexes []int
	// flat reports that the elements are numbers, not lists of numbers or objects.
	flat bool
}

// readSummary reads the current member if it belongs to the summary of an answer.
func (f *findings) readSummary(s *jsonscan.Scanner) bool {
	switch string(s.Name()) {
	case "model":
		f.model = readText(s)
	case "usage":
		if s.Kind() == '{' {
			f.usage = scanUsage(s)
		}
	case "choices":
		f.readChoices(s)
	case "status":
		f.status = internWord(readText(s))
	case "incomplete_details":
		f.reason = readMember(s, "reason")
	default:
		return false
	}

	return true
}

// readMember reads the current member if the answer's content may be in it.
func (c *content) readMember(s *jsonscan.Scanner, endpoint string) {
	switch string(s.Name()) {
	case "data":
		c.data = readItems(s, endpoint)
	case "results":
		c.results = readItems(s, endpoint)
	case "scores":
		c.scores = readItems(s, endpoint)
	case "output":
		c.output, c.written = readOutput(s)
	case "output_text":
		c.outputText = readText(s)
	case "error":
		c.isError = readError(s) || c.isError
	case "object":
		object := readText(s)
		c.isError = string(object) == "error" || c.isError
		c.isChunk = bytes.HasSuffix(object, []byte(".chunk"))
	}
}

// summarize returns the findings without the content.
func (f *findings) summarize() Answer {
	return Answer{
		Model:  f.model,
		Finish: cmp.Or(f.first.finish, FinishOfResponse(f.status, f.reason)),
		Usage:  f.usage,
	}
}

// checkAnswer returns the answer, and whether it is one of the endpoint. It reads the members
// that vLLM, SGLang, llama.cpp, TEI, Ollama, LiteLLM and Cohere send. Servers mix chat and
// completions, and so does this.
func (f *findings) checkAnswer(s *jsonscan.Scanner, endpoint string, request []byte) Answer {
	a, c := f.summarize(), f.content
	if a.Text = f.first.text; c.choices.n == 0 {
		a.Text = c.written
	}

	var l itemList
	var name string
	switch endpoint {
	case "/v1/embeddings":
		l, name = pickList(c.data, c.bare), "embedding"
		if l.flat {
			l.n = 1
		}
	case "/v1/rerank", "/v1/score":
		l, name = pickList(c.results, c.data, c.scores, c.bare), "score"
	case "/v1/responses":
		l, name = c.output, "output"
		if l.n == 0 && c.outputText != nil {
			a.Text, l = c.outputText, itemList{n: 1}
		}
		if l.n == 0 && a.Finish != "" {
			l = itemList{n: 1, silent: true} // one that ended before it wrote anything has no output
		}

		l.silent = l.silent && !isCut(a.Finish)

		switch {
		case isFailure(a.Finish):
			l.gaveUp = a.Finish
		case isFailure(f.reason):
			l.gaveUp = f.reason
		case f.status == "queued" || f.status == "in_progress":
			l.lacks = "the response is " + f.status
		}
	default:
		l, name = c.choices, "choice"
	}

	if l.gaveUp == "" && isFailure(f.status) {
		l.gaveUp = f.status
	}

	switch {
	case c.isError:
		a.Problem = "the answer is an error"
	case l.gaveUp != "":
		a.Problem, a.GaveUp = "the server gave the request up ("+l.gaveUp+")", true
	case l.n == 0:
		a.Problem = "the answer has no " + name
	case l.lacks != "":
		a.Problem = l.lacks
	case c.isChunk:
		a.Problem = "the answer is a part of a stream"
	case l.silent && a.Usage.Completion == 0:
		// A model may end at once: then tokens were counted, but there is no text. An answer
		// that a gateway made of nothing has neither.
		a.Problem = "the answer has no content"
	default:
		a.Problem = countParts(s, endpoint, request).findMismatch(l, name)
	}

	return a
}

// pickList returns the first list that is there.
func pickList(lists ...itemList) itemList {
	for _, l := range lists {
		if l.n > 0 {
			return l
		}
	}

	return itemList{}
}

// isFailure reports whether a finish reason means that the server, not the model, ended the
// answer. vLLM: abort, error. SGLang: abort. Mistral, LMDeploy, OpenRouter: error.
// TensorRT-LLM: cancelled, timeout. DeepSeek: insufficient_system_resource. Zhipu:
// network_error. The Responses API: server_error. A content filter is an answer.
func isFailure(finish string) bool {
	switch finish {
	case "", "stop", "length": // nearly all
		return false
	}

	finish = strings.ToLower(finish)
	switch finish {
	case "abort", "aborted", "cancelled", "canceled", "error", "failed", "timeout", "insufficient_system_resource":
		return true
	}

	return strings.HasSuffix(finish, "_error")
}

// isCut reports whether a finish reason means that something kept the model from writing
// (more). An answer may be empty then.
func isCut(finish string) bool { return finish == "length" || finish == "content_filter" }

// readError reads a member that has an error, and reports whether something failed. Gateways also
// use the member for success: with a code of 200, 0 or success.
func readError(s *jsonscan.Scanner) bool {
	if s.Kind() != '{' {
		return !readEmpty(s)
	}

	isError, good := false, false
	for s.Enter(); s.Next(); {
		if string(s.Name()) != "code" || s.Kind() == '{' || s.Kind() == '[' {
			isError = !readEmpty(s) || isError
			continue
		}

		code := s.Value()
		switch strings.ToLower(strings.Trim(string(code), `"`)) {
		case "0", "200", "ok", "success":
			good = true
		case "", "null", "false":
		default:
			isError = true
		}
	}

	return isError && !good
}

// readEmpty reads a value and reports whether there is nothing in it: null, false, 0, "",
// [], {}, or an array or object of only these.
func readEmpty(s *jsonscan.Scanner) bool {
	empty := true
	switch s.Kind() {
	case '{':
		for s.Enter(); s.Next(); {
			empty = readEmpty(s) && empty
		}
		return empty
	case '[':
		for s.EnterArray(); s.NextElement(); {
			empty = readEmpty(s) && empty
		}
		return empty
	}

	switch string(s.Value()) {
	case "null", "false", "0", `""`:
		return true
	}

	return false
}

// readMember reads a text out of an object, "" if it is not there.
func readMember(s *jsonscan.Scanner, name string) string {
	if s.Kind() != '{' {
		return ""
	}

	var found []byte
	for s.Enter(); s.Next(); {
		if string(s.Name()) == name {
			found = readText(s)
		}
	}

	return internWord(found)
}

// readText reads a string, nil if it is something else.
func readText(s *jsonscan.Scanner) []byte { return jsonscan.Text(s.Value()) }

// internWord returns a word as a string. Those that most answers have cost no memory.
func internWord(word []byte) string {
	switch string(word) {
	case "stop":
		return "stop"
	case "length":
		return "length"
	case "tool_calls":
		return "tool_calls"
	case "function_call":
		return "function_call"
	case "content_filter":
		return "content_filter"
	case "abort":
		return "abort"
	case "completed":
		return "completed"
	case "incomplete":
		return "incomplete"
	case "max_output_tokens":
		return "max_output_tokens"
	}

	return string(word)
}

// joinTexts appends a text to another without writing into the body, of which both may be parts.
func joinTexts(a, b []byte) []byte {
	if a == nil {
		return b
	}

	return append(slices.Clip(a), b...)
}
