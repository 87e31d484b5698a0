package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/batchapi"
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/metrics"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/scale"
	"github.com/promptmill/promptmill/proto/bus"
)

// Config configures the batch API.
type Config struct {
	// Listen is the address with its limits, certificate and access log; Observe is set here. Required.
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
	// Ended is called for each batch that has ended, see [batch.Config]. Defaults to nothing.
	Ended func(context.Context, batch.Batch) error
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
	cfg     Config
	http    *httpserver.Server
	traffic *traffic
	// keysLog gets the faults of the keys, one a minute.
	keysLog zerolog.Logger
	// batches are those of Serve; nil: it does not run.
	batches atomic.Pointer[batch.Service]
}

// Open listens for clients, who are asked to wait until [Server.Serve] is called. Errors of the address
// are for people.
func Open(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}

	s := &Server{
		cfg:     cfg,
		traffic: newTraffic(),
		keysLog: cfg.Log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute}),
	}
	cfg.Listen.Observe = s.traffic.observe

	var err error
	if s.http, err = httpserver.Listen(cfg.Listen); err != nil {
		return nil, err
	}

	return s, nil
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

// metricsPath is the path of the metrics.
const metricsPath = "/metrics"

// records returns the folder of the batches.
func (s *Server) records() string { return filepath.Join(s.folder(), "batches") }

// Collects reports whether a run is a batch of this server. It is for pipeline.ServeConfig.
func (s *Server) Collects(run string) bool { return batch.IsIn(s.records())(run) }

// Owner returns the id of the key that has made the batch of a run. It is empty for a batch that was made while no key
// was needed, and for any other run.
func (s *Server) Owner(run string) string {
	batches := s.batches.Load()
	if batches == nil {
		return ""
	}

	b, err := batches.Get(batch.IDPrefix + run)
	if err != nil {
		return ""
	}

	return b.Owner
}

// ServeRun serves a run as the only batch until ctx ends. It is for pipeline.Config.
func (s *Server) ServeRun(ctx context.Context, run pipeline.LiveRun) error {
	single, err := batch.OpenSingle(ctx, batch.SingleConfig{
		Runs:   bus.New(run.Bus.JS).Runs,
		Run:    run.Run,
		Inputs: run.Inputs,
		Output: run.Output,
		Format: s.cfg.Format,
		Log:    s.cfg.Log,
	})
	if err != nil {
		return err
	}

	handler, err := s.newHandler(run.Bus, batchapi.Config{Run: single})
	if err != nil {
		return err
	}

	return s.run(ctx, handler, single.Run, checkBus(run.Bus))
}

// Serve serves the batch API on a bus until ctx ends. It is for pipeline.ServeConfig.
func (s *Server) Serve(ctx context.Context, link *busconn.Connection) (err error) {
	files, err := filestore.Open(s.folder(), s.cfg.Log, s.cfg.State)
	if errors.Is(err, filestore.ErrLocked) {
		return exit.WithHint(err, "stop the other promptmill serve --api, or choose another folder with --dir")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.Close()) }()

	batches, err := batch.Open(ctx, batch.Config{
		Bus:     link,
		Dir:     s.cfg.Dir,
		Records: s.records(),
		Files:   files,
		State:   s.cfg.State,
		Format:  s.cfg.Format,
		Log:     s.cfg.Log,
		Ended:   s.cfg.Ended,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, batches.Close()) }()

	s.batches.Store(batches)
	defer s.batches.Store(nil)

	handler, err := s.newHandler(link, batchapi.Config{Files: files, Batches: batchapi.Runs(batches)},
		inventory{s.cfg.Dir, files, batches})
	if err != nil {
		return err
	}

	return s.run(ctx, handler, batches.Run, checkBus(link), checkKeys(s.cfg.Keys), checkDisk(s.folder()))
}

// newHandler returns the handler of all requests to what cfg has. It adds metrics to those of the
// server.
func (s *Server) newHandler(
	link *busconn.Connection, cfg batchapi.Config, more ...prometheus.Collector,
) (http.Handler, error) {
	cfg.Keys = s.cfg.Keys
	cfg.Models = listWorkers(link)
	cfg.Version = s.cfg.Version
	cfg.Log = s.cfg.Log

	api, err := batchapi.New(cfg)
	if err != nil {
		return nil, err
	}

	s.traffic.addRoutes(api.Routes()...)
	s.traffic.addRoutes(otherRoute, "GET /healthz", "GET /readyz", "GET "+metricsPath, "GET "+scale.Path)

	mux := http.NewServeMux()
	mux.Handle("GET "+scale.Path, s.guard(metrics.ScaleHandler(s.cfg.Metrics)))
	mux.Handle("GET "+metricsPath, s.guard(metrics.Handler(s.cfg.Metrics, append(s.traffic.collectors(), more...)...)))
	mux.Handle("/", api)

	return s.refuseForeign(mux), nil
}

// run answers requests, and works for the batches, until ctx ends. That work stops after the last answer.
func (s *Server) run(
	ctx context.Context, handler http.Handler, work func(context.Context) error, checks ...httpserver.Check,
) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	group, answering := errgroup.WithContext(ctx)
	group.Go(func() error { return work(working) })
	group.Go(func() error {
		defer stop()
		return s.http.Run(answering, handler, checks...)
	})

	if s.cfg.Started != nil {
		s.cfg.Started(s.URL())
	}

	return group.Wait()
}

// guard lets requests with a key that sees everything through, or all while none is needed.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpserver.SetRoute(r.Context(), r.Pattern)

		key, known, err := s.cfg.Keys.Authenticate(apikey.SecretOf(r))
		switch {
		case err != nil:
			s.keysLog.Error().Err(err).Msg("failed to read the API keys; all requests are refused")
			w.Header().Set("Retry-After", "5")
			http.Error(w, "the server cannot read its API keys; its log has the reason", http.StatusServiceUnavailable)
		case !known:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "this page needs an API key, in the header Authorization: Bearer KEY", http.StatusUnauthorized)
		case key.OwnOnly:
			httpserver.SetKeyID(r.Context(), key.ID)
			http.Error(w, "this page is for the operator: this API key sees only what it made itself", http.StatusForbidden)
		default:
			httpserver.SetKeyID(r.Context(), key.ID)
			next.ServeHTTP(w, r)
		}
	})
}
