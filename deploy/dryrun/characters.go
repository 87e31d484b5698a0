package dryrun

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// isPrompt reports whether the member of a body has its prompt, or a part of it. The names are
// from the endpoints of OpenAI and vLLM.
func isPrompt(name string) bool {
	switch name {
	case "messages", "prompt", "input", "instructions", "query", "documents", "text_1", "text_2":
		return true
	}
	return false
}

// CountCharacters returns the number of characters of the prompt in a body: of the texts of its
// messages, prompt or input. Images and tokens do not count.
func CountCharacters(body []byte) int {
	c := counter{jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true)), 0}
	c.countMembers(isPrompt) // an error ends the count, and the parser lets no such body pass

	return c.characters
}

// counter counts the characters of texts in JSON.
type counter struct {
	json       *jsontext.Decoder
	characters int
}

// countMembers counts the members of the next value, which is an object, whose names are wanted.
func (c *counter) countMembers(isWanted func(name string) bool) error {
	if _, err := c.json.ReadToken(); err != nil {
		return err
	}

	for c.json.PeekKind() == '"' {
		name, err := c.json.ReadToken()
		if err != nil {
			return err
		}

		if isWanted(name.String()) {
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
		text, err := c.json.ReadToken()
		if err == nil {
			c.characters += utf8.RuneCountInString(text.String())
		}
		return err

	case '{':
		return c.countMembers(func(name string) bool { return name == "content" || name == "text" })

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
