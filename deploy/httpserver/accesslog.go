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
