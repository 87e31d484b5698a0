package httpserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// RequestIDHeader is the header of answers with the id of the request, which the access log has too.
// OpenAI's SDKs print it.
const RequestIDHeader = "X-Request-Id"

// AccessLog writes a line of JSON for each request. It has no query strings and no headers: these
// may have secrets.
type AccessLog struct {
	// mu guards the field below.
	mu sync.Mutex
	w  io.Writer
}

// NewAccessLog returns a log that writes each line with one Write.
func NewAccessLog(w io.Writer) *AccessLog { return &AccessLog{w: w} }

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
	l.w.Write(append(data, '\n')) // a full disk must not stop the server
}

// exchange is a request with its answer.
type exchange struct {
	id  string
	key string
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
		a, finish := newAnswer(w, r, s.cfg.StallTimeout)
		defer func() {
			finish()
			if s.cfg.AccessLog == nil {
				return
			}

			a.begin()
			remote, _, _ := net.SplitHostPort(r.RemoteAddr) // the connection's; headers can be forged
			s.cfg.AccessLog.write(accessLine{
				Time:    begun.UTC(),
				Method:  r.Method,
				Path:    r.URL.Path,
				Status:  a.status,
				Bytes:   a.bytes,
				Seconds: time.Since(begun).Seconds(),
				Key:     e.key,
				Remote:  remote,
				Request: e.id,
			})
		}()

		next.ServeHTTP(a, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e)))
	})
}
