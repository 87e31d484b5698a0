package prompt

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// appendMessages appends the messages of the current row and the end of their list.
func (r *Renderer) appendMessages(dst []byte) ([]byte, error) {
	var list []byte
	hasSystem := false
	if r.messages >= 0 {
		var err error
		if list, hasSystem, err = r.readMessages(); err != nil {
			return dst, err
		}
	}

	var err error
	from := len(dst)

	if r.system != nil && !hasSystem {
		dst = append(dst, `{"role":"system","content":`...)
		if dst, err = r.appendQuoted(dst, r.system); err != nil {
			return dst, err
		}
		dst = append(dst, '}')
	}

	if list != nil {
		if len(dst) > from {
			dst = append(dst, ',')
		}
		dst = append(dst, list...)
	}

	if r.prompt != nil || len(r.images) > 0 {
		if len(dst) > from {
			dst = append(dst, ',')
		}
		if dst, err = r.appendUserMessage(dst); err != nil {
			return dst, err
		}
	}

	return append(dst, ']'), nil
}

// appendUserMessage appends the message with the prompt and the images.
func (r *Renderer) appendUserMessage(dst []byte) ([]byte, error) {
	dst = append(dst, `{"role":"user","content":`...)
	if len(r.images) == 0 {
		dst, err := r.appendQuoted(dst, r.prompt)
		return append(dst, '}'), err
	}

	var err error
	dst = append(dst, '[')
	if r.prompt != nil {
		dst = append(dst, `{"type":"text","text":`...)
		if dst, err = r.appendQuoted(dst, r.prompt); err != nil {
			return dst, err
		}
		dst = append(dst, '}')
	}

	for i, column := range r.images {
		if i > 0 || r.prompt != nil {
			dst = append(dst, ',')
		}

		dst = append(dst, `{"type":"image_url","image_url":{"url":`...)
		if dst, err = r.appendImage(dst, column); err != nil {
			return dst, err
		}

		dst = append(dst, "}}"...)
	}

	return append(dst, "]}"...), nil
}

// readMessages returns the messages in the column of the current row, without the brackets of
// their list, and whether one of them is a system message.
func (r *Renderer) readMessages() (list []byte, hasSystem bool, err error) {
	r.flag = messagesFlag
	column := r.names[r.messages]
	v := r.value(r.messages)
	if v.IsEmpty() {
		return nil, false, newEmptyError(column)
	}

	if v.Kind != table.KindJSON && v.Kind != table.KindText {
		return nil, false, &CellError{Column: column, Reason: "it has no list of messages"}
	}

	text := jsontext.Value(bytes.Clone(bytes.TrimSpace(v.Text)))
	if text[0] != '[' {
		return nil, false, &CellError{Column: column, Reason: "it has no list of messages"}
	}

	if err := text.Compact(); err != nil {
		return nil, false, &CellError{Column: column, Reason: "its list of messages is not JSON"}
	}

	count := 0
	r.scan.Reset(text)

	for r.scan.EnterArray(); r.scan.NextElement(); {
		count++
		if r.scan.Kind() != '{' {
			return nil, false, &CellError{Column: column, Reason: fmt.Sprintf("message %d is not an object", count)}
		}

		role, hasContent := "", false
		for r.scan.Enter(); r.scan.Next(); {
			switch string(r.scan.Name()) {
			case "role":
				role = string(jsonscan.Text(r.scan.Value()))
			case "content", "tool_calls":
				hasContent = hasContent || r.scan.Kind() != 'n'
			}
		}

		switch {
		case role == "":
			return nil, false, &CellError{Column: column, Reason: fmt.Sprintf("message %d has no role", count)}
		case !hasContent:
			return nil, false, &CellError{Column: column, Reason: fmt.Sprintf("message %d has no content", count)}
		case role == "system" || role == "developer":
			hasSystem = true
		}
	}

	if r.scan.End() != nil {
		return nil, false, &CellError{Column: column, Reason: "its list of messages is not JSON"}
	}

	if count == 0 {
		return nil, false, &CellError{
			Column: column,
			Empty:  true,
			Reason: "its list of messages is empty",
		}
	}

	return text[1 : len(text)-1], hasSystem, nil
}
