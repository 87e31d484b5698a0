package httpserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// RequestIDHeader is the header of answers with the id of the request, which the access log has too.
// OpenAI's SDKs print it.
const RequestIDHeader = "X-Request-Id"

// reopenPause is the pause between two looks whether the file of a log is still at its path.
const reopenPause = time.Second

// AccessLog writes a line of JSON for each request. It has no query strings and no headers: these
// may have secrets.
type AccessLog struct {
	// path is the path of the log's file; empty: it has another writer.
	path string

	// mu guards the fields below.
	mu sync.Mutex
	w  io.Writer
	// file is w, if the log has a path.
	file *os.File
	// lookedAt is the time of the last look at path.
	lookedAt time.Time
}

// OpenAccessLog opens a log that appends to a file. When the file is moved or removed, as logrotate does,
// the log begins another one at the path, within a second.
func OpenAccessLog(path string) (*AccessLog, error) {
	file, err := openLogFile(path)
	if err != nil {
		return nil, err
	}
	return &AccessLog{path: path, w: file, file: file, lookedAt: time.Now()}, nil
}

// openLogFile opens the file of a log.
func openLogFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
}

// NewAccessLog returns a log that writes each line with one Write.
func NewAccessLog(w io.Writer) *AccessLog { return &AccessLog{w: w} }

// Close closes the file of the log.
func (l *AccessLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.file == nil {
		return nil
	}

	return l.file.Close()
}

// reopen opens the path of the log again if another file is there, or none. The old file stays in use
// while that fails. The caller holds mu.
func (l *AccessLog) reopen(now time.Time) {
	if l.path == "" || now.Sub(l.lookedAt) < reopenPause {
		return
	}
	l.lookedAt = now

	there, err := os.Stat(l.path)
	if err == nil {
		if open, err := l.file.Stat(); err == nil && os.SameFile(there, open) {
			return
		}
	}

	file, err := openLogFile(l.path)
	if err != nil {
		return
	}

	l.file.Close()
	l.w, l.file = file, file
}

// accessLine is a line of the log.
type accessLine struct {
	Time    time.Time `json:"time"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Status  int       `json:"status"`
	Bytes   int64     `json:"bytes"`
	Seconds float64   `json:"seconds"`
	Key     string    `json:"key,omitempty"`
	Remote  string    `json:"remote"`
	Request string    `json:"request"`
}

// write writes a line.
func (l *AccessLog) write(line accessLine) {
	data, err := json.Marshal(line)
	if err != nil {
		return // it has only texts and numbers
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.reopen(time.Now())
	l.w.Write(append(data, '\n')) // a full disk must not stop the server
}

// exchange is a request with its answer.
type exchange struct {
	id    string
	key   string
	route string
}

// Exchange describes a request that was answered.
type Exchange struct {
	// Route is the pattern of the handler, see [SetRoute]. Empty: none has noted it.
	Route string
	// Status is the status of the answer.
	Status int
	// Received and Sent are the bytes of the two bodies.
	Received, Sent int64
	// Took is the time from the header of the request to the end of the answer.
	Took time.Duration
}

// exchangeKey is the key of the exchange in the context of a request.
type exchangeKey struct{}

// SetKeyID notes the id of the key with which a request was sent, for the access log. ctx is that of
// the request.
func SetKeyID(ctx context.Context, id string) {
	if e, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		e.key = id
	}
}

// SetRoute notes the pattern of the handler of a request, for [Config.Observe]. ctx is that of the
// request.
func SetRoute(ctx context.Context, pattern string) {
	if e, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		e.route = pattern
	}
}

// RequestID returns the id of the request whose context ctx is. It is empty if no Server has it.
func RequestID(ctx context.Context) string {
	if e, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return e.id
	}
	return ""
}

// answerAll gives each request an id, time limits and a line in the log.
func (s *Server) answerAll(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		e := &exchange{id: "req_" + rand.Text()}
		w.Header().Set(RequestIDHeader, e.id)
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e))
		a := newAnswer(w, r, s.cfg.StallTimeout)
		defer func() {
			a.begin()
			a.renewDeadline()
			took := time.Since(begun)
			if s.cfg.AccessLog != nil {
				remote, _, _ := net.SplitHostPort(r.RemoteAddr) // the connection's; headers can be forged
				s.cfg.AccessLog.write(accessLine{
					Time:    begun.UTC(),
					Method:  r.Method,
					Path:    r.URL.Path,
					Status:  a.status,
					Bytes:   a.bytes,
					Seconds: took.Seconds(),
					Key:     e.key,
					Remote:  remote,
					Request: e.id,
				})
			}

			if s.cfg.Observe != nil {
				s.cfg.Observe(Exchange{
					Route:    e.route,
					Status:   a.status,
					Received: a.received(),
					Sent:     a.bytes,
					Took:     took,
				})
			}
		}()

		next.ServeHTTP(a, r)
	})
}
