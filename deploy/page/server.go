package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/proto/bus"
)

// Config configures the page.
type Config struct {
	// Listen is the address with its limits, certificate and access log; Starting is set here. Required.
	Listen httpserver.Config
	// Advertise is the host of this machine for other machines. Defaults to its addresses.
	Advertise string
	// Keys are the keys of the viewers. Required.
	Keys *apikey.File
	// State is the state folder, which has the secret of the sessions. Required.
	State string
	// Dir is the folder of the outputs, whose disk is shown. Required, as an absolute path.
	Dir string
	// OwnBus reports that the bus is of this process.
	OwnBus bool
	// Owner returns the id of the key that has made a run, and an empty text for any other run. Defaults to no
	// owners: a key that sees its own runs alone sees none.
	Owner func(run string) string
	// Version is the version of the program.
	Version string
	// Log gets warnings and errors. The zero value discards them.
	Log zerolog.Logger
	// Started is called when the page can be used, with its URL. Defaults to nothing.
	Started func(url string)
}

// validate returns an error that names the field of a value that cannot be used.
func (c Config) validate() error {
	switch {
	case c.Keys == nil:
		return errors.New("page: Config.Keys is required")
	case c.State == "":
		return errors.New("page: Config.State is required")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("page: Config.Dir is %q, must be an absolute path", c.Dir)
	}

	return nil
}

// Server is a page that listens.
type Server struct {
	cfg    Config
	http   *httpserver.Server
	access *access
	assets map[string]*asset
}

// Open listens for viewers, who see that promptmill starts until [Server.Serve] is called. Errors of the address are
// for people.
func Open(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}

	if cfg.Owner == nil {
		cfg.Owner = func(string) string { return "" }
	}

	access, err := newAccess(cfg.Keys, cfg.State, cfg.Log)
	if err != nil {
		return nil, err
	}

	assets, err := loadAssets()
	if err != nil {
		return nil, err
	}

	cfg.Listen.Starting = http.HandlerFunc(serveStarting)
	server, err := httpserver.Listen(cfg.Listen)
	if err != nil {
		return nil, err
	}

	return &Server{cfg, server, access, assets}, nil
}

// URL returns the URL of the page.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.Listen.TLS != nil {
		scheme = "https"
	}

	where := localbus.Bus{Listen: s.http.Addr(), Advertise: s.cfg.Advertise}

	return scheme + "://" + where.JoinAddresses()[0] + "/"
}

// Close stops listening, at once.
func (s *Server) Close() { s.http.Close() }

// Serve shows a bus until ctx ends. It is for pipeline.ServeConfig.
func (s *Server) Serve(ctx context.Context, link *busconn.Connection) error {
	return s.run(ctx, link, true)
}

// ServeRun shows a run, and the others on its bus, until ctx ends. It is for pipeline.Config.
func (s *Server) ServeRun(ctx context.Context, run pipeline.LiveRun) error {
	return s.run(ctx, run.Bus, false)
}

// run shows a bus. retries reports that ended runs can be retried.
func (s *Server) run(ctx context.Context, link *busconn.Connection, retries bool) error {
	host := pipeline.HostName()
	views := newViewMaker(newObserver(link, s.cfg.OwnBus, s.cfg.Dir), describer{
		host:    host,
		retries: retries,
		owner:   s.cfg.Owner,
	})
	defer views.files.close()

	h := &head{
		access:   s.access,
		assets:   s.assets,
		hub:      newHub(views),
		runs:     bus.New(link.JS).Runs,
		owner:    s.cfg.Owner,
		retries:  retries,
		searches: newSearches(),
		host:     host,
		version:  s.cfg.Version,
		log:      s.cfg.Log,
		serving:  ctx,
	}

	group, answering := errgroup.WithContext(ctx)
	group.Go(func() error { return h.hub.run(answering) })
	group.Go(func() error { return s.http.Run(answering, h.routes()) })

	if s.cfg.Started != nil {
		s.cfg.Started(s.URL())
	}

	return group.Wait()
}
