package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/metrics"
)

// Config configures the batch API.
type Config struct {
	// Listen is the address with its limits, certificate and access log. Required.
	Listen httpserver.Config
	// Advertise is the host of this machine for other machines. Defaults to its addresses.
	Advertise string
	// Keys are the keys of the clients. Required.
	Keys *apikey.File
	// Dir is the folder of the outputs; the files of the batch API are in its folder api. Required, as
	// an absolute path.
	Dir string
	// State is the state folder. Required.
	State string
	// Format is the format of the outputs.
	Format output.Format
	// Version is the version of the program.
	Version string
	// Metrics exports the parts of this process besides the batch API. Defaults to none.
	Metrics *metrics.Exporter
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Started is called when clients can use the batch API, with its base URL. Defaults to nothing.
	Started func(url string)
}

// validate returns an error that names the field of a value that cannot be used.
func (c Config) validate() error {
	switch {
	case c.Keys == nil:
		return errors.New("apiserver: Config.Keys is required")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("apiserver: Config.Dir is %q, must be an absolute path", c.Dir)
	case c.State == "":
		return errors.New("apiserver: Config.State is required")
	}

	return nil
}

// Server is a batch API that listens.
type Server struct {
	cfg  Config
	http *httpserver.Server
}

// Open listens for clients, who are asked to wait until [Server.Serve] is called. Errors of the address
// are for people.
func Open(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}

	server, err := httpserver.Listen(cfg.Listen)
	if err != nil {
		return nil, err
	}

	return &Server{cfg: cfg, http: server}, nil
}

// URL returns the base URL of the batch API for clients.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.Listen.TLS != nil {
		scheme = "https"
	}

	where := localbus.Bus{Listen: s.http.Addr(), Advertise: s.cfg.Advertise}

	return scheme + "://" + where.JoinAddresses()[0] + "/v1"
}

// Close stops listening, at once.
func (s *Server) Close() { s.http.Close() }

// folder returns the folder of the batch API's own files.
func (s *Server) folder() string { return filepath.Join(s.cfg.Dir, "api") }

// Serve serves the batch API on a bus until ctx ends. It is for pipeline.ServeConfig.
func (s *Server) Serve(ctx context.Context, link *busconn.Connection) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.guard(metrics.Handler(s.cfg.Metrics)))
	mux.Handle("/", http.NotFoundHandler())

	if s.cfg.Started != nil {
		s.cfg.Started(s.URL())
	}

	return s.http.Run(ctx, mux, checkBus(link), checkDisk(s.folder()))
}

// guard lets requests with a key through, or all while none is needed.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, known, err := s.cfg.Keys.Authenticate(apikey.SecretOf(r))
		switch {
		case err != nil:
			s.cfg.Log.Error().Err(err).Msg("failed to read the API keys; all requests are refused")
			http.Error(w, "the server cannot read its API keys; its log has the reason", http.StatusServiceUnavailable)
		case !known:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "this page needs an API key, in the header Authorization: Bearer KEY", http.StatusUnauthorized)
		default:
			httpserver.SetKeyID(r.Context(), key.ID)
			next.ServeHTTP(w, r)
		}
	})
}
