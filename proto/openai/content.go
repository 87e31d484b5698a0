package openai

import (
	"bytes"
	"strconv"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// choice is one choice, as far as it is read.
type choice struct {
	finish string

	text []byte
	// has reports that the choice has a message or a text.
	has bool
	// silent reports that nothing is in it.
	silent  bool
	isError bool
}

// readChoices reads an array of choices: the first choice, and the faults of the others. Without
// the content it reads the reason why the first has ended.
func (f *findings) readChoices(s *jsonscan.Scanner) {
	f.first = choice{}
	var l itemList

	if s.Kind() != '[' {
		s.Value()
	} else {
		for s.EnterArray(); s.NextElement(); l.n++ {
			var c choice
			if s.Kind() == '{' && (l.n == 0 || f.content != nil) {
				c = readChoice(s, f.content != nil)
			}
			if l.n == 0 {
				f.first = c
			}

			l.addChoice(c)
		}
	}

	if f.content != nil {
		f.content.choices = l
	}
}

// addChoice adds the faults of a choice.
func (l *itemList) addChoice(c choice) {
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

// readChoice reads a choice, with its content or only why it has ended.
func readChoice(s *jsonscan.Scanner, withContent bool) choice {
	var c choice
	for s.Enter(); s.Next(); {
		if string(s.Name()) == "finish_reason" {
			c.finish = readFinish(s)
			continue
		}

		if withContent {
			c.readContent(s)
		}
	}

	// Filters leave out the message, or all that is in it.
	c.has = c.has || c.finish == "content_filter"
	c.silent = c.silent && !isCut(c.finish)

	return c
}

// readFinish reads a finish_reason. SGLang's own form is an object.
func readFinish(s *jsonscan.Scanner) string {
	if s.Kind() == '{' {
		return readMember(s, "type")
	}

	return internWord(jsonscan.Word(s.Value()))
}

// readContent reads the current member of a choice if its content is in it.
func (c *choice) readContent(s *jsonscan.Scanner) {
	switch string(s.Name()) {
	case "message":
		if s.Kind() != '{' {
			s.Value()
			return
		}
		m := readMessage(s)
		c.text, c.has, c.silent = m.text, m.members > 0, !m.says
	case "text":
		if s.Kind() == '"' {
			c.text, c.has, c.silent = readText(s), true, false
		}
	case "error": // OpenRouter's reason when the server behind it failed
		c.isError = readError(s)
	}
}

// message is a message, or an item of a response, as far as it is read.
type message struct {
	text []byte
	// kind is the type of an item.
	kind    string
	members int
	// says reports that there is a text, which may be empty, a call, a thought, a refusal, a sound
	// or a picture.
	says bool
}

// readMessage reads the message that comes next.
func readMessage(s *jsonscan.Scanner) message {
	var m message
	for s.Enter(); s.Next(); m.members++ {
		switch string(s.Name()) {
		case "content":
			var says bool
			m.text, says = readParts(s)
			m.says = m.says || says
		case "refusal", "reasoning", "reasoning_content", "reasoning_details", "tool_calls", "function_call",
			"audio", "images":
			if s.Kind() == 'n' {
				s.Value()
				continue
			}
			m.says = !readEmpty(s) || m.says
		case "type":
			m.kind = string(readText(s))
		}
	}

	return m
}

// readParts reads a text, or the texts of an array of parts. It leaves out thoughts of the model
// (reasoning_text) and refusals, but they count for says.
func readParts(s *jsonscan.Scanner) (all []byte, says bool) {
	if s.Kind() != '[' {
		all = readText(s)
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
				kind = readText(s)
			case "text":
				part = readText(s)
			}
		}

		if string(kind) == "output_text" || string(kind) == "text" {
			all = joinTexts(all, part)
		}
	}

	return all, says
}

// readOutput reads the items of a response and the text in them.
func readOutput(s *jsonscan.Scanner) (l itemList, written []byte) {
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
		written = joinTexts(written, m.text)
	}

	return l, written
}

// readItems reads an array of embeddings, scores or rankings.
func readItems(s *jsonscan.Scanner, endpoint string) (l itemList) {
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
func readItem(s *jsonscan.Scanner, endpoint string, l *itemList) bool {
	if s.Kind() != '{' {
		return isNumbers(s.Value())
	}

	has := false
	for s.Enter(); s.Next(); {
		switch string(s.Name()) {
		case "embedding", "embeddings":
			raw := s.Value()
			has = isNumbers(raw) || endpoint == "/v1/embeddings" && isBase64(jsonscan.Text(raw))
		case "score", "relevance_score":
			has = isNumbers(s.Value())
		case "index":
			if i, err := strconv.Atoi(string(s.Value())); err == nil {
				l.indexes = append(l.indexes, i)
			}
		}
	}

	return has
}

// isNumbers reports whether a JSON value is a number or an array of them, however deep.
// NaN is null with servers in C++ and JavaScript, and no number.
func isNumbers(raw []byte) bool {
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
