package openai

import (
	"bytes"
	"cmp"
	"strings"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Output is the output of a model in the body of its answer.
type Output struct {
	// Text is the text of the first choice, or all output texts of a response; nil if there is none.
	Text []byte
	// Calls are the tool calls of an answer without text, as a JSON array; nil if there are none.
	Calls []byte
	// Data is the JSON of the vector of an embedding, of an array of vectors if there are several, or of
	// the scores or the ranking of documents; nil if there is none.
	Data []byte
	// Finish is the reason why the output ended, see [Answer.Finish].
	Finish string
	// Usage counts the tokens of the answer.
	Usage Usage
}

// Answer returns the text of the output or, without one, its tool calls; nil if it has neither. A model may end at
// once: then the text is empty.
func (o Output) Answer() []byte {
	if len(o.Text) == 0 && o.Calls != nil {
		return o.Calls
	}
	return o.Text
}

// ReadOutput reads the output out of the body of an answer of any endpoint. Members of a wrong form
// count as missing. The parts may be parts of the body. Errors are the scanner's.
func ReadOutput(s *jsonscan.Scanner, body []byte) (Output, error) {
	var o Output
	s.Reset(body)

	if s.Kind() == '[' {
		o.Data = readData(s, body)
		return o, s.End()
	}

	var (
		outputText     []byte
		status, reason string
	)
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "usage":
			if s.Kind() == '{' {
				o.Usage = scanUsage(s)
			}
		case "status":
			status = internWord(readText(s))
		case "incomplete_details":
			reason = readMember(s, "reason")
		case "choices":
			o.readChoice(s)
		case "output":
			o.readItems(s, body)
		case "output_text":
			outputText = readText(s)
		case "data", "results", "scores":
			if s.Kind() == '[' {
				o.Data = readData(s, body)
			}
		}
	}

	o.Finish = cmp.Or(o.Finish, FinishOfResponse(status, reason))
	if o.Text == nil {
		o.Text = outputText
	}
	if len(o.Text) > 0 {
		o.Calls = nil
	}

	return o, s.End()
}

// readChoice reads the first choice of an array.
func (o *Output) readChoice(s *jsonscan.Scanner) {
	if s.Kind() != '[' {
		return
	}

	first := true
	for s.EnterArray(); s.NextElement(); first = false {
		if !first || s.Kind() != '{' {
			continue
		}

		for s.Enter(); s.Next(); {
			switch string(s.Name()) {
			case "message":
				o.readMessage(s)
			case "text":
				o.Text = readText(s)
			case "finish_reason":
				o.Finish = readFinish(s)
			}
		}
	}
}

// readMessage reads the message of a chat completion.
func (o *Output) readMessage(s *jsonscan.Scanner) {
	if s.Kind() != '{' {
		return
	}

	var text, refusal []byte
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "content":
			text, _ = readParts(s)
		case "refusal":
			refusal = readText(s)
		case "tool_calls":
			if raw := s.Value(); len(raw) > 2 && raw[0] == '[' && !isEmptyArray(raw) {
				o.Calls = raw
			}
		case "function_call":
			if raw := s.Value(); len(raw) > 0 && raw[0] == '{' {
				o.Calls = joinArray([][]byte{raw})
			}
		}
	}

	o.Text = text
	if len(text) == 0 && refusal != nil {
		o.Text = refusal
	}
}

// readItems reads the items of a response.
func (o *Output) readItems(s *jsonscan.Scanner, body []byte) {
	if s.Kind() != '[' {
		return
	}

	var calls [][]byte
	for s.EnterArray(); s.NextElement(); {
		if s.Kind() != '{' {
			continue
		}

		start := s.Offset()

		m := readMessage(s)
		if m.kind == "message" || m.kind == "" {
			o.Text = joinTexts(o.Text, m.text)
		}
		if strings.HasSuffix(m.kind, "_call") { // function_call, custom_tool_call, mcp_call
			calls = append(calls, sliceValue(s, body, start))
		}
	}

	if len(calls) > 0 {
		o.Calls = joinArray(calls)
	}
}

// readData reads an array of embeddings, scores or rankings: the vectors if it has them, and itself
// otherwise.
func readData(s *jsonscan.Scanner, body []byte) []byte {
	start := s.Offset()

	var vectors [][]byte
	n := 0
	for s.EnterArray(); s.NextElement(); n++ {
		if s.Kind() == '[' { // so TEI embeds
			vectors = append(vectors, s.Value())
			continue
		}
		if s.Kind() != '{' {
			continue
		}

		for s.Enter(); s.Next(); {
			switch string(s.Name()) {
			case "embedding", "embeddings":
				vectors = append(vectors, s.Value())
			}
		}
	}

	switch {
	case len(vectors) == 0 || len(vectors) != n:
		return sliceValue(s, body, start)
	case n == 1:
		return vectors[0]
	}

	return joinArray(vectors)
}

// sliceValue returns the value that the scanner has just read in body. start is the offset at which it
// stood before.
func sliceValue(s *jsonscan.Scanner, body []byte, start int) []byte {
	return bytes.TrimLeft(body[start:s.Offset()], ",: \t\r\n")
}

// isEmptyArray reports whether a JSON array has no elements.
func isEmptyArray(raw []byte) bool { return len(bytes.TrimSpace(raw[1:len(raw)-1])) == 0 }

// joinArray returns the JSON array of some values.
func joinArray(values [][]byte) []byte {
	return append(append([]byte{'['}, bytes.Join(values, []byte{','})...), ']')
}
