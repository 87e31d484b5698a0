package httpserver

import (
	"errors"
	"io"
	"math"
	"net/http"
	"time"
)

// movedBytes is the most bytes that move before a time limit is renewed: the slowest line that moves
// them within the usual 2 minutes has 9 kB/s.
const movedBytes = 1 << 20

// answer is an answer whose bytes must leave steadily: a time limit is renewed while they move. A
// limit of the whole request would break large uploads and downloads over slow lines, and none would
// keep the connections of clients that are gone.
type answer struct {
	http.ResponseWriter

	control *http.ResponseController
	stall   time.Duration

	// body is the body of the request; nil if it has none.
	body *requestBody

	// status is the status that was sent; 0 until then.
	status int
	// bytes is the number of bytes of the body.
	bytes int64
}

// newAnswer returns the answer of a request, and replaces the request's body by one whose bytes must
// arrive steadily. r must be a copy of net/http's request: of the body there, net/http sees whether the client
// waits for a word before it sends it (Expect: 100-continue), and would wait for the body of a refused
// request otherwise.
func newAnswer(w http.ResponseWriter, r *http.Request, stall time.Duration) *answer {
	a := &answer{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
	if r.Body != nil && r.Body != http.NoBody {
		a.body = &requestBody{ReadCloser: r.Body, control: a.control, stall: stall}
		r.Body = a.body
	}

	return a
}

// received returns the number of bytes of the request's body that were read.
func (a *answer) received() int64 {
	if a.body == nil {
		return 0
	}
	return a.body.bytes
}

// renewDeadline gives the next bytes their time. Before the first ones, and after the last, net/http also
// reads a part of the body that the handler has left: half of the time is for that, so that a refusal
// still goes out.
func (a *answer) renewDeadline() {
	now := time.Now()
	a.control.SetWriteDeadline(now.Add(a.stall)) // fails only for a connection that is closed
	if a.body != nil && !a.body.ended {
		a.control.SetReadDeadline(now.Add(a.stall / 2))
	}
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush implements http.Flusher, which handlers ask for without http.ResponseController.
func (a *answer) Flush() {
	a.begin()
	a.renewDeadline()
	a.control.Flush() // the next write reports a connection that is gone
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}

	a.renewDeadline()
	a.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (a *answer) Write(p []byte) (written int, err error) {
	a.begin()
	for {
		a.renewDeadline()
		n, err := a.ResponseWriter.Write(p[:min(len(p), movedBytes)])
		written += n
		a.bytes += int64(n)
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

// ReadFrom implements io.ReaderFrom: net/http sends files without copying them. It does so for a part
// of a file only if no second limit is around that of the part.
func (a *answer) ReadFrom(from io.Reader) (read int64, err error) {
	part, ok := from.(*io.LimitedReader)
	if !ok {
		part = &io.LimitedReader{R: from, N: math.MaxInt64}
	}

	a.begin()
	for part.N > 0 {
		a.renewDeadline()
		n, err := io.CopyN(a.ResponseWriter, part.R, min(part.N, movedBytes))
		part.N -= n
		read += n
		a.bytes += n
		switch {
		case errors.Is(err, io.EOF):
			return read, nil
		case err != nil:
			return read, err
		}
	}

	return read, nil
}

// begin notes the status of an answer without one.
func (a *answer) begin() {
	if a.status == 0 {
		a.status = http.StatusOK
	}
}

// requestBody is a body whose bytes must arrive steadily.
type requestBody struct {
	io.ReadCloser

	control *http.ResponseController
	stall   time.Duration
	// ended reports that the last byte was read.
	ended bool
	// bytes is the number of bytes that were read.
	bytes int64
}

// Read implements io.Reader. The limit holds for this read alone: after the last one net/http waits
// for the end of the connection, and cancels the request when a limit ends that wait.
func (b *requestBody) Read(p []byte) (int, error) {
	b.control.SetReadDeadline(time.Now().Add(b.stall))
	n, err := b.ReadCloser.Read(p)
	b.control.SetReadDeadline(time.Time{})
	b.ended = b.ended || errors.Is(err, io.EOF)
	b.bytes += int64(n)

	return n, err
}
