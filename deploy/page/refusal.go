package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/program"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// refusal is the answer to a request that is refused.
type refusal struct {
	status int
	Error
}

// refuse returns a refusal.
func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status, Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// refuseUnknown returns the refusal of a run that is not on the bus, or that the key does not see.
func refuseUnknown(run string) *refusal {
	return refuse(http.StatusNotFound, "no_run", "There is no run %s on this bus: it never was, or was deleted.", run)
}

// refuseChange returns the refusal of a change that has failed.
func refuseChange(run string, err error) *refusal {
	status, code := http.StatusServiceUnavailable, "unavailable"

	_, limited := errors.AsType[*proto.LimitError](err)
	switch {
	case errors.Is(err, proto.ErrNoRun):
		return refuseUnknown(run)
	case limited, errors.Is(err, bus.ErrWrongState):
		status, code = http.StatusConflict, "wrong_state"
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders):
		err = fmt.Errorf("the bus does not answer: %w", err)
	}

	return &refusal{status, Error{Code: code, Message: describeError(err)}}
}

// describeError returns an error and its way out as one or two sentences.
func describeError(err error) string {
	text := capitalize(err.Error()) + "."
	if hint := exit.Hint(err); hint != "" {
		text += " " + capitalize(program.TypedCommands(hint)) + "."
	}

	return text
}

// capitalize returns a sentence with a capital at its beginning, unless that is a command.
func capitalize(sentence string) string {
	if sentence == "" || sentence[0] < 'a' || sentence[0] > 'z' || isCommand(sentence) {
		return sentence
	}

	return string(sentence[0]-'a'+'A') + sentence[1:]
}

// isCommand reports whether a sentence begins with the name of this program.
func isCommand(sentence string) bool {
	const name = "promptmill "
	return len(sentence) >= len(name) && sentence[:len(name)] == name
}

// write writes the refusal.
func (f *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	switch f.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "2")
	}

	writeJSON(w, f.status, f.Error)
}

// writeJSON writes an answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // its types have no values that JSON lacks
}
