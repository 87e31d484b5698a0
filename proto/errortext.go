package proto

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
)

// maxErrorText is the longest text that [ErrorText] returns, in bytes.
const maxErrorText = 200

// ErrorText returns the message of an error that a model server sent, for people: from JSON of a
// known form, or else the title of a page or the first line. It is one line without control
// characters. Known are OpenAI's {"error": {"message": ...}} (also vLLM, SGLang, llama.cpp),
// {"error": "..."} (Ollama), FastAPI's {"detail": ...}, and {"message": "..."}.
func ErrorText(body []byte) string { return shortText(errorText(body)) }

// maxErrorMessage is the longest text that [ErrorMessage] returns, in bytes.
const maxErrorMessage = 1 << 10

// ErrorMessage is [ErrorText] for a record: all lines of the message, joined to one of at most 1 KiB.
func ErrorMessage(body []byte) string {
	text := strings.Join(strings.Fields(Printable(errorText(body))), " ")
	if len(text) > maxErrorMessage {
		text = strings.ToValidUTF8(text[:maxErrorMessage-len("...")], "") + "..."
	}
	return text
}

// errorText returns the message of an error as it came.
func errorText(body []byte) string {
	text := strings.TrimSpace(findMessage(bytes.TrimSpace(body), 0))
	if strings.HasPrefix(text, "<") {
		if title := pageTitle.FindStringSubmatch(text); title != nil {
			text = strings.Join(strings.Fields(title[1]), " ")
		}
	}
	return text
}

var pageTitle = regexp.MustCompile(`(?is)<title[^>]*>\s*([^<]*[^<\s])`)

// findMessage looks for the message in an error object, which may be in another.
func findMessage(body []byte, depth int) string {
	var members map[string]json.RawMessage
	var list []json.RawMessage
	var text string
	switch {
	case depth > 3 || len(body) == 0:
	case json.Unmarshal(body, &text) == nil:
		return text
	case json.Unmarshal(body, &members) == nil:
		for _, name := range []string{"error", "detail", "message", "msg"} {
			if inner, ok := members[name]; ok {
				if text := findMessage(inner, depth+1); text != "" {
					return text
				}
			}
		}
	case json.Unmarshal(body, &list) == nil && len(list) > 0:
		return findMessage(list[0], depth+1)
	}

	return string(body)
}

// shortText returns the first line of a text, cut to a length that can be read at a glance.
func shortText(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.TrimSpace(Printable(text))
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	return text
}

// Printable returns a text without the characters that could move a terminal's cursor or change
// how the text looks: each control character, and each that changes the direction of writing,
// becomes a space.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, text)
}
