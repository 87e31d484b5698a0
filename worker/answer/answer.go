// Package answer looks into the body of a model's answer, and of a request: whether an
// answer is whole, why the model stopped, what it wrote, and whether that matches a
// JSON Schema. It decodes no more than it is asked for.
package answer

import (
	"slices"
	"sync"

	"github.com/promptmill/promptmill/proto"
)

// Content is what an answer's body says about the answer.
type Content struct {
	// Finish is why the first choice ended: stop, length, content_filter, tool_calls,
	// abort, or what else the server says; "" if it does not say. The Responses API
	// tells it by its status: completed is stop, cancelled is abort, incomplete is its
	// reason (max_output_tokens is length), any other status is itself.
	Finish string
	// Choices is the number of choices, or of the items in data (embeddings, scores),
	// output (responses) or results (rankings); -1 if the body has none of these.
	Choices int
	// Text is what the model wrote in its first choice: the content of the message or
	// the text of a completion, or all output texts of a response. It is nil if there
	// is none, and may be a part of the body.
	Text []byte
	// PromptTokens and CompletionTokens are from the usage; 0 if there is none.
	PromptTokens, CompletionTokens int64
	// IsError tells that the body is an error, whatever the HTTP status says.
	IsError bool
}

// Read looks into the body of an answer. It fails if body is not one whole JSON object.
// Members that are not as they should be count as not there; of a member that is there
// twice, the last counts.
func Read(body []byte) (Content, error) {
	s := scanners.Get().(*proto.Scanner)
	defer func() {
		s.Reset(nil) // keep no body
		scanners.Put(s)
	}()
	c := Content{Choices: -1}
	var (
		choices, data, output, results = -1, -1, -1, -1

		first          choice
		written        []byte // by a response
		status, reason string
	)
	s.Reset(body)
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "choices":
			choices, first = readChoices(s)
		case "data":
			data = count(s)
		case "output":
			output, written = readOutput(s)
		case "results":
			results = count(s)
		case "usage":
			if s.Kind() == '{' {
				u := proto.ScanUsage(s)
				c.PromptTokens, c.CompletionTokens = u.Prompt, u.Completion
			}
		case "status":
			status = string(text(s))
		case "incomplete_details":
			reason = member(s, "reason")
		case "error":
			c.IsError = string(s.Value()) != "null" || c.IsError
		case "object":
			c.IsError = string(s.Value()) == `"error"` || c.IsError
		}
	}
	if err := s.End(); err != nil {
		return Content{Choices: -1}, err
	}
	switch {
	case choices >= 0:
		c.Choices, c.Finish, c.Text = choices, first.finish, first.text
	case data >= 0:
		c.Choices = data
	case output >= 0:
		c.Choices, c.Finish, c.Text = output, proto.FinishOfResponse(status, reason), written
	case results >= 0:
		c.Choices = results
	}
	return c, nil
}

var scanners = sync.Pool{New: func() any { return new(proto.Scanner) }}

// choice is what is read of one choice.
type choice struct {
	finish string
	text   []byte
}

// readChoices reads the first of an array of choices and counts all. A null counts as
// no choices: some gateways send it when the server behind them failed.
func readChoices(s *proto.Scanner) (int, choice) {
	var first choice
	if s.Kind() == 'n' {
		return 0, first
	}
	if s.Kind() != '[' {
		return -1, first
	}
	n := 0
	for s.EnterArray(); s.NextElement(); n++ {
		if n == 0 && s.Kind() == '{' {
			first = readChoice(s)
		}
	}
	return n, first
}

func readChoice(s *proto.Scanner) choice {
	var c choice
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "message":
			c.text = readMessage(s)
		case "text":
			c.text = text(s)
		case "finish_reason":
			if s.Kind() == '{' { // as SGLang has it inside
				c.finish = member(s, "type")
			} else {
				c.finish = string(text(s))
			}
		}
	}
	return c
}

// readMessage reads the content of a message, and of an item of a response.
func readMessage(s *proto.Scanner) []byte {
	if s.Kind() != '{' {
		return nil
	}
	var content []byte
	for s.Enter(); s.Next(); {
		if string(s.Name()) == "content" {
			content = readContent(s)
		}
	}
	return content
}

// readContent reads a text, or an array of parts of which the texts are taken: not what
// the model thought (reasoning_text) or refused.
func readContent(s *proto.Scanner) []byte {
	if s.Kind() != '[' {
		return text(s)
	}
	var all []byte
	for s.EnterArray(); s.NextElement(); {
		if s.Kind() != '{' {
			continue
		}
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
	return all
}

// readOutput reads what was written in the items of a response and counts them.
func readOutput(s *proto.Scanner) (int, []byte) {
	if s.Kind() != '[' {
		return -1, nil
	}
	var all []byte
	n := 0
	for s.EnterArray(); s.NextElement(); n++ {
		all = join(all, readMessage(s))
	}
	return n, all
}

// count is the number of elements of an array, -1 of anything else.
func count(s *proto.Scanner) int {
	if s.Kind() != '[' {
		return -1
	}
	n := 0
	for s.EnterArray(); s.NextElement(); {
		n++
	}
	return n
}

// member reads a text out of an object, "" if it is not there.
func member(s *proto.Scanner, name string) string {
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
func text(s *proto.Scanner) []byte {
	text, err := proto.Unquote(s.Value())
	if err != nil {
		return nil
	}
	return text
}

// join appends a text to another without writing into the body, of which both may be parts.
func join(a, b []byte) []byte {
	if a == nil {
		return b
	}
	return append(slices.Clip(a), b...)
}
