package batchapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto/bus"
)

// The types of errors in OpenAI's API.
const (
	typeInvalidRequest = "invalid_request_error"
	typeServerError    = "server_error"
)

// errorResponse is the body of each answer that is an error.
type errorResponse struct {
	Error errorObject `json:"error"`
}

// errorObject describes an error to programs and people.
type errorObject struct {
	// Message is a sentence with the fault and the way to repair it.
	Message string `json:"message"`
	Type    string `json:"type" enum:"invalid_request_error,server_error"`
	// Param is the parameter that is wrong; null if none is.
	Param *string `json:"param"`
	// Code is a word for programs; null if there is none.
	Code *string `json:"code"`
}

// failure is an error that a client gets. huma answers with it when a handler returns it.
type failure struct {
	status   int
	response errorResponse
	header   http.Header
}

// newFailure returns the error of a request that its client has to change. param and code may be
// empty.
func newFailure(status int, param, code, format string, args ...any) *failure {
	f := &failure{status: status, header: http.Header{}}
	f.response.Error = errorObject{Message: fmt.Sprintf(format, args...), Type: typeInvalidRequest}

	if status >= 500 {
		f.response.Error.Type = typeServerError
	}
	if param != "" {
		f.response.Error.Param = &param
	}
	if code != "" {
		f.response.Error.Code = &code
	}

	return f
}

// refuse returns the error 400.
func refuse(param, format string, args ...any) *failure {
	return newFailure(http.StatusBadRequest, param, "", format, args...)
}

// Error implements error.
func (f *failure) Error() string { return f.response.Error.Message }

// GetStatus implements huma.StatusError.
func (f *failure) GetStatus() int { return f.status }

// GetHeaders implements huma.HeadersError.
func (f *failure) GetHeaders() http.Header { return f.header }

// MarshalJSON implements json.Marshaler.
func (f *failure) MarshalJSON() ([]byte, error) { return json.Marshal(f.response) }

// with adds a header.
func (f *failure) with(name, value string) *failure {
	f.header.Set(name, value)
	return f
}

// write answers with the error.
func (f *failure) write(w http.ResponseWriter) {
	for name, values := range f.header {
		w.Header()[name] = values
	}

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	json.NewEncoder(w).Encode(f)
}

// noSuchFile is the error of a file that is not there, or belongs to another key.
func noSuchFile(id string) *failure {
	if kind := kindOfID(id); kind != "" && kind != "a file" {
		return newFailure(http.StatusNotFound, "id", "", "There is no file %s: this is the id of %s.", id, kind)
	}
	return newFailure(http.StatusNotFound, "id", "",
		"There is no file %s: it never existed, has expired or was deleted.", id)
}

// noSuchBatch is the error of a batch that is not there, or belongs to another key.
func noSuchBatch(id string) *failure {
	if kind := kindOfID(id); kind != "" && kind != "a batch" {
		return newFailure(http.StatusNotFound, "id", "", "There is no batch %s: this is the id of %s.", id, kind)
	}
	return newFailure(http.StatusNotFound, "id", "", "There is no batch %s.", id)
}

// batchPrefix begins the ids of batches. The name of the run follows.
const batchPrefix = batch.IDPrefix

// kindOfID names the object that has ids of such a form, empty if none has.
func kindOfID(id string) string {
	for _, kind := range []struct{ prefix, name string }{
		{"file-", "a file"},
		{batchPrefix, "a batch"},
		{"upload_", "an upload"},
		{"part_", "a part of an upload"},
	} {
		if strings.HasPrefix(id, kind.prefix) {
			return kind.name
		}
	}

	return ""
}

// noSuchUpload is the error of an upload that is not there, or belongs to another key.
func noSuchUpload(id string) *failure {
	return newFailure(http.StatusNotFound, "id", "",
		"There is no upload %s: it never existed, or ended long ago.", id)
}

// busAway is the error of a bus that does not answer. The SDKs try again after the seconds of
// Retry-After.
func busAway() *failure {
	return newFailure(http.StatusServiceUnavailable, "", "bus_unavailable",
		"The message bus does not answer now: try again in a few seconds.").with("Retry-After", "5")
}

// stopping is the error of a server whose files are closed already.
func stopping() *failure {
	return newFailure(http.StatusServiceUnavailable, "", "",
		"The server is stopping: try again in a few seconds.").with("Retry-After", "5")
}

// diskFull is the error of a disk without room. Trying again at once is in vain, and would send a
// large body a second time.
func diskFull() *failure {
	return newFailure(http.StatusInsufficientStorage, "", "disk_full",
		"The disk of the server is full, and nothing was stored: delete files that are no longer needed, "+
			"or free space on the server, and send it again.").
		with("X-Should-Retry", "false")
}

// toFailure returns the error for the client, and whether it is a fault of the server, which the
// client does not see in full.
func toFailure(err error) (f *failure, fault bool) {
	if f, ok := errors.AsType[*failure](err); ok {
		return f, false
	}

	if wrong, ok := errors.AsType[*batch.RequestError](err); ok {
		return newFailure(http.StatusBadRequest, wrong.Param, wrong.Code, "%s", wrong.Message), false
	}

	if missing, ok := errors.AsType[*batch.ContentError](err); ok {
		return newFailure(http.StatusNotFound, "id", "", "%s", missing.Message), false
	}

	if wrong, ok := errors.AsType[*filestore.PartsError](err); ok {
		return refuse(wrong.Param, "%s.", strings.ToUpper(wrong.Reason[:1])+wrong.Reason[1:]), false
	}

	switch {
	case errors.Is(err, filestore.ErrUploadEnded):
		return refuse("", "The upload is completed, cancelled or expired: create another one."), false
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return diskFull(), true
	case errors.Is(err, filestore.ErrClosed):
		return stopping(), false
	case isBusAway(err):
		return busAway(), true
	}

	return newFailure(http.StatusInternalServerError, "", "",
		"The server failed to handle the request. Its log has the reason."), true
}

// isBusAway reports whether an error says that the bus does not answer.
func isBusAway(err error) bool {
	return errors.Is(err, batch.ErrUnavailable) || exit.Code(err) == exit.CodeUnreachable || bus.IsNoLeader(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, nats.ErrConnectionClosed) ||
		errors.Is(err, nats.ErrDisconnected) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded)
}
