package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// The limits of all servers.
const (
	// maxHeaderBytes is the most bytes of a request's header. Metadata and prompts are in bodies.
	maxHeaderBytes = 64 << 10
	// headerTimeout is the longest time for a request's header.
	headerTimeout = 10 * time.Second
	// idleTimeout is the longest time between two requests of a connection. It is longer than that of
	// the usual proxies (nginx closes its connections to a server after 60 s), so that the proxy, which
	// knows whether it has just sent a request, closes them.
	idleTimeout = 3 * time.Minute
	// retryAfter is the number of seconds after which a client asks a server again that is starting or
	// stopping.
	retryAfter = "2"
)

// Config configures a server.
type Config struct {
	// Address is the HOST:PORT to listen at. Port 0 is any. Required.
	Address string
	// Flag is the name of the flag that has the address, for errors. Defaults to --listen.
	Flag string
	// TLS has the certificate. Defaults to none: connections are in clear.
	TLS *tls.Config
	// AccessLog gets a line for each request. Defaults to none.
	AccessLog *AccessLog
	// Observe is called after each request. Defaults to nothing.
	Observe func(Exchange)
	// Starting answers requests until [Server.Run] has brought the handler. Defaults to 503 with Retry-After, in
	// the form of OpenAI's errors.
	Starting http.Handler
	// StallTimeout is the longest time in which no byte of a body moves. Defaults to 2 min.
	StallTimeout time.Duration
	// StopTimeout is the longest time for which a stop waits for answers. Defaults to 30 s.
	StopTimeout time.Duration
	// MaxConnections is the most connections at once. Others take the places of idle ones, or wait. Defaults
	// to half of the files that the process may open, at most 10,000.
	MaxConnections int
	// Log gets warnings. The zero value discards them.
	Log zerolog.Logger
}

// Server is an HTTP server that listens.
type Server struct {
	cfg      Config
	listener *limitedListener
	http     *http.Server
	serving  sync.WaitGroup
	failed   chan error
	stopping atomic.Bool
	work     atomic.Pointer[work]
}

// work is a handler with the checks whether it can work.
type work struct {
	handler http.Handler
	checks  []Check

	// mu guards the fields below. It is held while the checks run.
	mu sync.Mutex
	// reasons are the results of the checks at checkedAt.
	reasons   []string
	checkedAt time.Time
}

// Listen starts a server. Its errors are for people, with a hint and an exit code.
func Listen(cfg Config) (*Server, error) {
	if cfg.Flag == "" {
		cfg.Flag = "--listen"
	}
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = 2 * time.Minute
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 30 * time.Second
	}
	if cfg.Starting == nil {
		cfg.Starting = http.HandlerFunc(refuseStarting)
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = defaultConnections()
	}

	listener, err := listen(cfg.Flag, cfg.Address)
	if err != nil {
		return nil, err
	}

	s := &Server{
		cfg:      cfg,
		listener: limitConnections(listener, cfg.MaxConnections, cfg.Log),
		failed:   make(chan error, 1),
	}
	s.http = &http.Server{
		Handler:           s.wrapAll(),
		TLSConfig:         cfg.TLS,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         s.listener.countState,
		ErrorLog:          log.New(serverLog{cfg.Log}, "", 0),
		// A client that is gone without a word is found within the time of a stalled one.
		HTTP2: &http.HTTP2Config{SendPingTimeout: cfg.StallTimeout, PingTimeout: 15 * time.Second},
	}

	s.serving.Go(func() {
		err := s.serve()
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serve HTTP at %s: %w", s.Addr(), err)
		}
	})

	return s, nil
}

// serve answers until the server is closed.
func (s *Server) serve() error {
	if s.cfg.TLS != nil {
		return s.http.ServeTLS(s.listener, "", "") // the certificate is in TLSConfig
	}
	return s.http.Serve(s.listener)
}

// Addr returns the IP:PORT at which the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Port returns the port at which the server listens.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Run answers with a handler until ctx ends, and then stops: /readyz says so, new connections are
// refused, and Run waits until the answers that have begun are out, at most Config.StopTimeout. An
// error means that the server could listen no more.
func (s *Server) Run(ctx context.Context, handler http.Handler, checks ...Check) error {
	s.work.Store(&work{handler: handler, checks: checks})

	select {
	case <-ctx.Done():
	case err := <-s.failed:
		return err
	}

	s.stopping.Store(true)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopTimeout)
	defer cancel()

	if err := s.http.Shutdown(limit); err != nil {
		s.cfg.Log.Warn().Msgf("stopped HTTP requests that were not done within %s", s.cfg.StopTimeout)
	}

	s.Close()

	return nil
}

// Close ends the server at once, and waits for it.
func (s *Server) Close() {
	s.http.Close()
	s.serving.Wait()
}

// wrapAll returns the handler of all requests.
func (s *Server) wrapAll() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReadiness)
	for _, path := range []string{"/healthz", "/readyz"} {
		mux.HandleFunc(path, refuseMethod)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		now := s.work.Load()
		if now == nil {
			s.cfg.Starting.ServeHTTP(w, r)
			return
		}
		now.handler.ServeHTTP(w, r)
	})

	return s.answerAll(mux)
}

// refuseStarting answers that the server does not work yet, in the form of OpenAI's errors.
func refuseStarting(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", retryAfter)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintf(w, `{"error":{"message":"The server is starting: try again in %s seconds.",`+
		`"type":"server_error","param":null,"code":null}}`+"\n", retryAfter)
}

// serverLog gets the lines of net/http.
type serverLog struct{ log zerolog.Logger }

// Write implements io.Writer. Faults of clients, such as a handshake that ends early, are of no
// interest to the operator, unless that asks for details.
func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "http: panic") {
		l.log.Error().Msg(text)
	} else {
		l.log.Debug().Msg(text)
	}
	return len(line), nil
}
