package batchapi

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"strconv"

	"github.com/promptmill/promptmill/deploy/apikey"
)

// exchange is a request and its answer. Handlers find it in their context.
type exchange struct {
	request *http.Request
	// body is the body of request.
	body   *requestBody
	writer *answerWriter
	// key is the API key of the client. The zero value: no keys are needed.
	key apikey.Key
}

// requestBody is a body that knows whether it has been read from.
type requestBody struct {
	io.ReadCloser

	begun bool
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.begun = true
	return b.ReadCloser.Read(p)
}

// exchangeKey is the key of an exchange in a context.
type exchangeKey struct{}

// exchangeOf returns the exchange of a handler's context.
func exchangeOf(ctx context.Context) *exchange {
	return ctx.Value(exchangeKey{}).(*exchange)
}

// sees reports whether the client sees the objects of an owner.
func (x *exchange) sees(owner string) bool { return !x.key.OwnOnly || owner == x.key.ID }

// retried reports whether the client has sent the request before, as its SDK says.
func (x *exchange) retried() bool {
	attempts, err := strconv.Atoi(x.request.Header.Get("X-Stainless-Retry-Count"))
	return err == nil && attempts > 0
}

// idempotencyKey returns the client's name for this request and its repetitions, empty for none.
func (x *exchange) idempotencyKey() string { return x.request.Header.Get("Idempotency-Key") }

// answerWriter is a writer that knows whether the answer has begun.
type answerWriter struct {
	http.ResponseWriter

	// status is the status of the answer, which is sent with the first byte of the body. 0: 200.
	status  int
	started bool
	// written counts the bytes of the body.
	written int64
	// failed reports that the client has gone, or takes no more bytes.
	failed bool
}

// begin sends the header, unless it is sent.
func (w *answerWriter) begin() {
	if !w.started {
		w.WriteHeader(cmp.Or(w.status, http.StatusOK))
	}
}

// WriteHeader implements http.ResponseWriter. huma sends a second header when a client has gone.
func (w *answerWriter) WriteHeader(status int) {
	if w.started {
		return
	}

	w.started = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *answerWriter) Write(p []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	w.failed = w.failed || err != nil

	return n, err
}

// ReadFrom implements io.ReaderFrom, so that the kernel copies files.
func (w *answerWriter) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	n, err := io.Copy(w.ResponseWriter, r)
	w.written += n

	return n, err
}

// Unwrap is for http.ResponseController.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
