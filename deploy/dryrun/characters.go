package dryrun

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// isPrompt reports whether the member of a body has its prompt, or a part of it. The names are
// from the endpoints of OpenAI and vLLM.
func isPrompt(name []byte) bool {
	switch string(name) {
	case "messages", "prompt", "input", "instructions", "query", "documents", "text_1", "text_2":
		return true
	}
	return false
}

// isText reports whether the member of a message, or of a part of one, has a text.
func isText(name []byte) bool { return string(name) == "content" || string(name) == "text" }

// counter counts the characters of texts in JSON. It can be used again.
type counter struct {
	buf        bytes.Buffer
	json       jsontext.Decoder
	characters int
}

// count returns the number of characters of the prompt in a body: of the texts of its messages, prompt or
// input. Images and tokens do not count.
func (c *counter) count(body []byte) int {
	c.buf = *bytes.NewBuffer(body) // which is read in place
	c.json.Reset(&c.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	c.characters = 0
	c.countMembers(isPrompt) // an error ends the count, and the parser lets no such body pass

	return c.characters
}

// countMembers counts the members of the next value, which is an object, whose names are wanted.
func (c *counter) countMembers(isWanted func(name []byte) bool) error {
	if _, err := c.json.ReadToken(); err != nil {
		return err
	}

	for c.json.PeekKind() == '"' {
		name, err := c.json.ReadValue()
		if err != nil {
			return err
		}

		if isWanted(jsonscan.Text(name)) {
			err = c.countTexts()
		} else {
			err = c.json.SkipValue()
		}
		if err != nil {
			return err
		}
	}

	_, err := c.json.ReadToken() // its end

	return err
}

// countTexts counts the next value: a text, or a list of texts, of messages or of their parts.
func (c *counter) countTexts() error {
	switch c.json.PeekKind() {
	case '"':
		text, err := c.json.ReadValue()
		if err == nil {
			c.characters += utf8.RuneCount(jsonscan.Text(text))
		}
		return err

	case '{':
		return c.countMembers(isText)

	case '[':
		c.json.ReadToken() // its beginning, which was seen
		for c.json.PeekKind() != ']' {
			if err := c.countTexts(); err != nil {
				return err
			}
		}

		_, err := c.json.ReadToken() // its end

		return err
	}

	return c.json.SkipValue()
}
