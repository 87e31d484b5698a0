package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// message is a part of a frame, as JSON and as an event.
type message struct {
	data  []byte
	event []byte
	// body is data without its time. Messages with the same one say the same.
	body []byte
}

// messageMaker makes the messages of one name, with numbers that never repeat in a process.
type messageMaker struct {
	event string
	last  uint64
	begun int64 // of the process, so that ids differ between two of them
}

// newMessageMaker returns a maker of messages for an event.
func newMessageMaker(event string) *messageMaker {
	return &messageMaker{event: event, begun: time.Now().Unix()}
}

// make returns a message with a value, whose first member is "at", the time. It returns the message before if that
// says the same.
func (m *messageMaker) make(at time.Time, v any, before *message) *message {
	const unset = `{"at":"0001-01-01T00:00:00Z"`

	body, err := json.Marshal(v)
	if err != nil || !bytes.HasPrefix(body, []byte(unset)) {
		panic(fmt.Sprintf("page: an event without its time: %v, %.40s", err, body))
	}

	body = body[len(unset):]
	if before != nil && bytes.Equal(before.body, body) {
		return before
	}

	m.last++
	data := append(fmt.Appendf(nil, `{"at":%q`, at.UTC().Format(time.RFC3339Nano)), body...)

	return &message{
		data:  data,
		event: fmt.Appendf(nil, "id: %d-%s-%d\nevent: %s\ndata: %s\n\n", m.begun, m.event, m.last, m.event, data),
		body:  body,
	}
}
