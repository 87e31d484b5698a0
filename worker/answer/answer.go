// Package answer looks into the body of a model's answer, and of a request: whether an
// answer is whole, why the model stopped, what it wrote, and whether that matches a
// JSON Schema. It decodes no more than it is asked for.
package answer

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Content is what an answer's body says about the answer.
type Content struct {
	// Finish is why the first choice ended: stop, length, content_filter, tool_calls, or
	// what else the server says; "" if it does not say. Of the Responses API it is
	// [proto.FinishOfResponse].
	Finish string
	// Text is what the model wrote in its first choice: the content of the message or
	// the text of a completion, or all output texts of a response. It is nil if there
	// is none, and may be a part of the body.
	Text []byte
	// PromptTokens and CompletionTokens are from the usage; 0 if there is none.
	PromptTokens, CompletionTokens int64
	// Problem is why the body is no answer of the endpoint; "" if it is one.
	Problem string
	// GaveUp says that the problem is a request which the server took and did not finish.
	GaveUp bool
}

var errTooDeep = errors.New("JSON is nested too deep")

// Read looks into the body of an answer of an endpoint to a request, of which it must have
// all parts; a request that is nil is not compared, see [Counted]. It fails if the body is not one
// whole JSON object, or array where the endpoint may answer with one. Members that are
// not as they should be count as not there; of a member that is there twice, the last
// counts. What it takes, [proto.ParseLine] reads in a line.
func Read(endpoint string, request, body []byte) (Content, error) {
	s := scanners.Get().(*jsonscan.Scanner)
	defer func() {
		s.Reset(nil) // keep no body
		scanners.Put(s)
	}()

	if jsonscan.TooDeep(body) {
		return Content{}, errTooDeep
	}

	s.Reset(body)
	if s.Kind() == '[' && isListed(endpoint) { // so SGLang, llama.cpp and TEI rank
		f := found{bare: readItems(s, endpoint)}
		if err := s.End(); err != nil {
			return Content{}, err
		}
		return f.judge(s, endpoint, request, Content{}), nil
	}

	var f found
	var c Content
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "choices":
			f.choices, f.first = readChoices(s)
		case "data":
			f.data = readItems(s, endpoint)
		case "results":
			f.results = readItems(s, endpoint)
		case "scores":
			f.scores = readItems(s, endpoint)
		case "output":
			f.output, f.written = readOutput(s)
		case "output_text":
			f.outputText = text(s)
		case "usage":
			if s.Kind() == '{' {
				u := proto.ScanUsage(s)
				c.PromptTokens, c.CompletionTokens = u.Prompt, u.Completion
			}
		case "status":
			f.status = string(text(s))
		case "incomplete_details":
			f.reason = member(s, "reason")
		case "error":
			f.isError = readError(s) || f.isError
		case "object":
			object := text(s)
			f.isError = string(object) == "error" || f.isError
			f.isChunk = bytes.HasSuffix(object, []byte(".chunk"))
		}
	}

	if err := s.End(); err != nil {
		return Content{}, err
	}

	return f.judge(s, endpoint, request, c), nil
}

var scanners = sync.Pool{New: func() any { return new(jsonscan.Scanner) }}

// isListed reports whether an endpoint may answer with an array of items.
func isListed(endpoint string) bool {
	return endpoint == "/v1/rerank" || endpoint == "/v1/score" || endpoint == "/v1/embeddings"
}

// found are the members of an answer that can hold what was asked for.
type found struct {
	choices, data, results, scores, bare, output list

	first          choice
	written        []byte // the texts of a response
	outputText     []byte
	status, reason string // of a response
	isError        bool
	isChunk        bool // of a stream
}

// list is what is known of an array.
type list struct {
	n      int
	lacks  string // what an element of it lacks; "": nothing
	silent bool   // nothing was written in one of its elements
	gaveUp string // why the server did not finish one of its elements

	indexes []int // that its elements have, of which each stands for a part of the request
	flat    bool  // it has numbers, not lists of them or objects
}

// judge says whether what was found is an answer of the endpoint. The members are those
// that vLLM, SGLang, llama.cpp, TEI, Ollama, LiteLLM and Cohere send. Servers mix chat and
// completions, and so does this.
func (f *found) judge(s *jsonscan.Scanner, endpoint string, request []byte, c Content) Content {
	c.Finish = cmp.Or(f.first.finish, proto.FinishOfResponse(f.status, f.reason))
	if c.Text = f.first.text; f.choices.n == 0 {
		c.Text = f.written
	}

	var l list
	var name string
	switch endpoint {
	case "/v1/embeddings":
		l, name = pick(f.data, f.bare), "embedding"
		if l.flat {
			l.n = 1
		}
	case "/v1/rerank", "/v1/score":
		l, name = pick(f.results, f.data, f.scores, f.bare), "score"
	case "/v1/responses":
		l, name = f.output, "output"
		if l.n == 0 && f.outputText != nil {
			c.Text, l = f.outputText, list{n: 1}
		}
		if l.n == 0 && c.Finish != "" {
			l = list{n: 1, silent: true} // one that ended before it wrote anything has no output
		}

		l.silent = l.silent && !isCut(c.Finish)
		switch {
		case isFailure(c.Finish):
			l.gaveUp = c.Finish
		case isFailure(f.reason):
			l.gaveUp = f.reason
		case f.status == "queued" || f.status == "in_progress":
			l.lacks = "the response is " + f.status
		}
	default:
		l, name = f.choices, "choice"
	}

	if l.gaveUp == "" && isFailure(f.status) {
		l.gaveUp = f.status
	}

	switch {
	case f.isError:
		c.Problem = "the answer is an error"
	case l.gaveUp != "":
		c.Problem, c.GaveUp = "the server gave the request up ("+l.gaveUp+")", true
	case l.n == 0:
		c.Problem = "the answer has no " + name
	case l.lacks != "":
		c.Problem = l.lacks
	case f.isChunk:
		c.Problem = "the answer is a part of a stream"
	case l.silent && c.CompletionTokens == 0:
		// A model may end at once: then tokens were counted, but there is no text. An answer
		// that a gateway made of nothing has neither.
		c.Problem = "the answer has no content"
	default:
		c.Problem = countOf(s, endpoint, request).compare(l, name)
	}

	return c
}

// pick is the first list that is there.
func pick(lists ...list) list {
	for _, l := range lists {
		if l.n > 0 {
			return l
		}
	}
	return list{}
}

// isFailure reports whether a finish reason says that the server, not the model, ended the
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

// isCut reports whether a finish reason says that something kept the model from writing
// (more). An answer may be empty then.
func isCut(finish string) bool { return finish == "length" || finish == "content_filter" }

// choice is what is read of one choice.
type choice struct {
	finish  string
	text    []byte
	has     bool // it has a message or a text
	silent  bool // nothing is in it
	isError bool
}

// readChoices reads the first of an array of choices, and looks at all.
func readChoices(s *jsonscan.Scanner) (l list, first choice) {
	if s.Kind() != '[' {
		s.Value()
		return l, first
	}

	for s.EnterArray(); s.NextElement(); l.n++ {
		var c choice
		if s.Kind() == '{' {
			c = readChoice(s)
		}
		if l.n == 0 {
			first = c
		}

		switch {
		case c.isError:
			l.gaveUp = "error"
		case isFailure(c.finish):
			l.gaveUp = c.finish
		case !c.has:
			l.lacks = "a choice has neither a message nor a text"
		}

		l.silent = l.silent || c.silent
	}

	return l, first
}

func readChoice(s *jsonscan.Scanner) choice {
	var c choice
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "message":
			if s.Kind() != '{' {
				s.Value()
				continue
			}
			m := readMessage(s)
			c.text, c.has, c.silent = m.text, m.members > 0, !m.says
		case "text":
			if s.Kind() == '"' {
				c.text, c.has, c.silent = text(s), true, false
			}
		case "finish_reason":
			c.finish = proto.ScanFinish(s)
		case "error": // so OpenRouter says that the server behind it failed
			c.isError = readError(s)
		}
	}

	// Filters leave out the message, or all that is in it.
	c.has = c.has || c.finish == "content_filter"
	c.silent = c.silent && !isCut(c.finish)

	return c
}

// message is what is read of a message, and of an item of a response.
type message struct {
	text    []byte
	kind    string // of an item
	members int
	says    bool // there is a text, which may be empty, a call, a thought, a refusal, a sound or a picture
}

func readMessage(s *jsonscan.Scanner) message {
	var m message
	for s.Enter(); s.Next(); m.members++ {
		switch string(s.Name()) {
		case "content":
			var says bool
			m.text, says = readContent(s)
			m.says = m.says || says
		case "refusal", "reasoning", "reasoning_content", "reasoning_details", "tool_calls", "function_call",
			"audio", "images":
			if s.Kind() == 'n' {
				s.Value()
				continue
			}
			m.says = !readEmpty(s) || m.says
		case "type":
			m.kind = string(text(s))
		}
	}

	return m
}

// readContent reads a text, or an array of parts of which the texts are taken: not what
// the model thought (reasoning_text) or refused, though that is said, too.
func readContent(s *jsonscan.Scanner) (all []byte, says bool) {
	if s.Kind() != '[' {
		all = text(s)
		return all, all != nil
	}

	for s.EnterArray(); s.NextElement(); {
		if s.Kind() != '{' {
			continue
		}

		says = true
		var kind, part []byte
		for s.Enter(); s.Next(); {
			switch string(s.Name()) {
			case "type":
				kind = text(s)
			case "text":
				part = text(s)
			}
		}

		if string(kind) == "output_text" || string(kind) == "text" {
			all = join(all, part)
		}
	}

	return all, says
}

// readOutput reads what was written in the items of a response.
func readOutput(s *jsonscan.Scanner) (l list, written []byte) {
	if s.Kind() != '[' {
		s.Value()
		return l, nil
	}

	l.silent = true
	for s.EnterArray(); s.NextElement(); l.n++ {
		if s.Kind() != '{' {
			l.lacks = "an item of the output is no object"
			continue
		}

		m := readMessage(s)
		if m.members == 0 {
			l.lacks = "an item of the output is empty"
		}

		// Calls and thoughts are items of a kind of their own.
		l.silent = l.silent && !m.says && (m.kind == "message" || m.kind == "")
		written = join(written, m.text)
	}

	return l, written
}

// readItems looks at an array of embeddings, scores or rankings.
func readItems(s *jsonscan.Scanner, endpoint string) (l list) {
	if s.Kind() != '[' {
		s.Value()
		return l
	}

	for s.EnterArray(); s.NextElement(); l.n++ {
		l.flat = s.Kind() == '0'
		if !readItem(s, endpoint, &l) {
			l.lacks = "an item of the answer has no embedding and no score"
		}
	}

	return l
}

// readItem reports whether an item of a list has numbers: an object with them, or they
// themselves.
func readItem(s *jsonscan.Scanner, endpoint string, l *list) bool {
	if s.Kind() != '{' {
		return areNumbers(s.Value())
	}

	has := false
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "embedding", "embeddings":
			raw := s.Value()
			has = areNumbers(raw) || endpoint == "/v1/embeddings" && isBase64(jsonscan.Text(raw))
		case "score", "relevance_score":
			has = areNumbers(s.Value())
		case "index":
			if i, err := strconv.Atoi(string(s.Value())); err == nil {
				l.indexes = append(l.indexes, i)
			}
		}
	}

	return has
}

// areNumbers reports whether a JSON value is a number or an array of them, however deep.
// What was NaN is null with servers in C++ and JavaScript, and no number.
func areNumbers(raw []byte) bool {
	switch {
	case len(raw) == 0:
		return false
	case raw[0] == '[':
		// An embedding is long, and each of these searches reads many bytes at a time. JSON
		// with none of null, true, false, texts and objects has nothing but numbers.
		for _, c := range []byte(`ntf"{`) {
			if bytes.IndexByte(raw, c) >= 0 {
				return false
			}
		}
		return bytes.ContainsAny(raw, "0123456789")
	}

	return raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9'
}

// isBase64 reports whether a text can be numbers in base64 (RFC 4648, 4 and 5): at least one
// of four bytes, which words such as NaN and None are not.
func isBase64(text []byte) bool {
	if len(text) < 8 || len(text)%4 != 0 {
		return false
	}

	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("=")), []byte("="))
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/', c == '-', c == '_':
		default:
			return false
		}
	}

	return true
}

// readError reads a member that has an error, and reports whether it says that something
// failed. Gateways also put there that nothing did: a code of 200, 0 or success.
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

// member reads a text out of an object, "" if it is not there.
func member(s *jsonscan.Scanner, name string) string {
	if s.Kind() != '{' {
		return ""
	}

	var found []byte
	for s.Enter(); s.Next(); {
		if string(s.Name()) == name {
			found = text(s)
		}
	}

	return string(found)
}

// text reads a string, nil if it is something else.
func text(s *jsonscan.Scanner) []byte { return jsonscan.Text(s.Value()) }

// join appends a text to another without writing into the body, of which both may be parts.
func join(a, b []byte) []byte {
	if a == nil {
		return b
	}
	return append(slices.Clip(a), b...)
}
