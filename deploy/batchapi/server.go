package batchapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/proto"
)

// Config describes what a handler serves.
type Config struct {
	// Files has the files and uploads. Required without Run.
	Files *filestore.Store
	// Batches has the batches: [Runs]. Required without Run.
	Batches Batches
	// Run is a run to serve as the only batch, in place of Files and Batches. Clients can look at it, read its
	// answers and cancel it; all that would create or delete something is refused. Defaults to none.
	Run *batch.Single
	// Keys knows the API keys. Nil: each request is accepted, with any key or none.
	Keys Keys
	// Models returns the announcements of the workers. Required.
	Models func(context.Context) ([]proto.WorkerInfo, error)
	// Version is the version of the program, for /openapi.json. Defaults to 0.
	Version string
	// Log gets faults of the server. The zero value discards them.
	Log zerolog.Logger
}

// Keys knows the API keys. [apikey.File] is one.
type Keys interface {
	// Authenticate returns the key with a secret, which may be empty, and whether there is one. While no
	// key is needed, it returns the zero Key for any secret.
	Authenticate(secret string) (apikey.Key, bool, error)
}

// existingFiles has the files that are there, but for the outputs of batches.
type existingFiles interface {
	// Get returns filestore.ErrNotFound if there is no such file.
	Get(id string) (filestore.File, error)
	List() []filestore.File
	// Open returns filestore.ErrNotFound if there is no such file.
	Open(id string) (*os.File, filestore.File, error)
}

// Batches has the batches. [Runs] has those of a batch.Service.
type Batches interface {
	existingBatches

	Create(context.Context, batch.Request) (b batch.Batch, existing bool, err error)
	// DeleteFile deletes an input file, unless a batch needs it that has not ended.
	DeleteFile(fileID string) error
	// Uses reports whether a batch that has not ended needs a file.
	Uses(fileID string) bool
	DeleteOutput(fileID string) error
}

// existingBatches has the batches that are there.
type existingBatches interface {
	// Get returns batch.ErrNotFound if there is no such batch.
	Get(id string) (batch.Batch, error)
	// List returns all batches, newest first.
	List() []batch.Batch
	Cancel(ctx context.Context, id string) (batch.Batch, error)
	// OutputFiles returns the files of answers and failed requests of all batches.
	OutputFiles() []filestore.File
	// OutputFile returns one of these, or filestore.ErrNotFound.
	OutputFile(fileID string) (filestore.File, error)
	// OutputTime returns the time of creation of a file that is, or once was, one of these.
	OutputTime(fileID string) (time.Time, bool)
	// OpenOutput opens one of these. It returns filestore.ErrNotFound if there is no such file.
	OpenOutput(fileID string) (Output, batch.Batch, error)
}

// Handler answers the requests to a batch API.
type Handler interface {
	http.Handler
	// Routes returns the patterns of all routes, as [httpserver.SetRoute] notes them.
	Routes() []string
}

// New returns the handler of the batch API. It serves /v1 and /openapi.json, and answers all other
// paths with 404.
func New(cfg Config) (Handler, error) {
	switch {
	case cfg.Run != nil && (cfg.Files != nil || cfg.Batches != nil):
		return nil, errors.New("batchapi: Config.Run excludes Config.Files and Config.Batches")
	case cfg.Run == nil && cfg.Files == nil:
		return nil, errors.New("batchapi: Config.Files is required")
	case cfg.Run == nil && cfg.Batches == nil:
		return nil, errors.New("batchapi: Config.Batches is required")
	case cfg.Models == nil:
		return nil, errors.New("batchapi: Config.Models is required")
	}

	s := &server{
		Config:  cfg,
		files:   cfg.Files,
		batches: cfg.Batches,
		router:  router{mux: http.NewServeMux()},
		large:   make(chan struct{}, maxLarge),
		keysLog: cfg.Log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute}),
	}
	if cfg.Run != nil {
		s.files, s.batches = cfg.Run.InputFiles(), singleRun{cfg.Run}
	}

	s.describeAPI()
	s.addFiles()
	s.addUploads()
	s.addBatches()
	s.addModels()
	s.addOpenAPI()

	return s, nil
}

// server is the handler of the batch API.
type server struct {
	Config

	// files and batches are those of Config, or of Config.Run.
	files   existingFiles
	batches existingBatches

	router router
	api    huma.API
	// large has room for the creates whose requests take much memory.
	large chan struct{}
	// keysLog gets the faults of Keys. Each request has the same one, so it takes one line a minute.
	keysLog zerolog.Logger

	// commits is locked while a file is compared with its twins and stored. Of two equal ones that
	// arrive at once, the second finds the first.
	commits sync.Mutex
}

// Routes implements [Handler].
func (s *server) Routes() []string {
	var routes []string
	for _, pattern := range s.router.patterns {
		routes = append(routes, muxPattern(pattern))
	}
	return routes
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{request: r, body: &requestBody{ReadCloser: r.Body}, writer: &answerWriter{ResponseWriter: w}}
	defer s.recoverPanic(x)

	handler, pattern := s.router.mux.Handler(r)
	if pattern == "" {
		s.refuseRoute(handler, r).write(x.writer)
		return
	}

	httpserver.SetRoute(r.Context(), pattern)

	if s.Keys != nil && r.URL.Path != openAPIPath {
		key, refused := s.authenticate(r)
		if refused != nil {
			refused.write(x.writer)
			return
		}
		x.key = key
		httpserver.SetKeyID(r.Context(), key.ID)
	}

	x.request = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)) // net/http needs the body of r
	x.request.Body = x.body
	s.router.mux.ServeHTTP(x.writer, x.request)
}

// authenticate returns the key of a request, or the error 401, or 403 for a key that may not change anything.
func (s *server) authenticate(r *http.Request) (apikey.Key, *failure) {
	secret := apikey.SecretOf(r)

	key, known, err := s.Keys.Authenticate(secret)
	switch {
	case known && key.ReadOnly && r.Method != http.MethodGet && r.Method != http.MethodHead:
		return apikey.Key{}, newFailure(http.StatusForbidden, "", "read_only_key",
			"The API key %s may look at files and batches, and change none: use a key that was made without --read-only.",
			cmp.Or(key.Name, key.ID))
	case err != nil:
		s.keysLog.Error().Err(err).Msg("failed to read the API keys; all requests are refused")
		return apikey.Key{}, newFailure(http.StatusServiceUnavailable, "", "",
			"The server failed to read its API keys. Its log has the reason.").with("Retry-After", "5")
	case !known && secret == "":
		return apikey.Key{}, newFailure(http.StatusUnauthorized, "", "invalid_api_key",
			"This server needs an API key in the header Authorization: Bearer KEY: "+
				"promptmill key create makes one on the server.").with("WWW-Authenticate", "Bearer")
	case !known:
		return apikey.Key{}, newFailure(http.StatusUnauthorized, "", "invalid_api_key",
			"The API key is wrong or was revoked: promptmill key create makes another one on the server.").
			with("WWW-Authenticate", "Bearer")
	}

	return key, nil
}

// recoverPanic logs the panic of a handler and answers 500, without a stack.
func (s *server) recoverPanic(x *exchange) {
	v := recover()
	if v == nil {
		return
	}

	// net/http cuts the connection. huma panics when a client has gone.
	if err, ok := v.(error); x.writer.failed || ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}

	s.logError(x.request).Str("error", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Msg("the handler of a request panicked")

	if x.writer.started {
		panic(http.ErrAbortHandler)
	}

	newFailure(http.StatusInternalServerError, "", "",
		"The server failed to handle the request. Its log has the reason.").write(x.writer)
}

// refuseRoute returns the error for a path or a method that has no handler. handler is net/http's
// answer to it.
func (s *server) refuseRoute(handler http.Handler, r *http.Request) *failure {
	probe := &headerRecorder{header: http.Header{}}
	handler.ServeHTTP(probe, r)

	if probe.status == http.StatusMethodNotAllowed {
		allowed := probe.header.Get("Allow")
		return newFailure(http.StatusMethodNotAllowed, "", "",
			"%s is no method of %s, which has %s.", r.Method, r.URL.Path, allowed).with("Allow", allowed)
	}

	below := r.Clone(r.Context())
	below.URL.Path, below.URL.RawPath = "/v1"+r.URL.Path, ""
	if _, pattern := s.router.mux.Handler(below); pattern != "" {
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		return newFailure(http.StatusNotFound, "", "unknown_url",
			"There is no %s %s: set base_url to %s://%s/v1.", r.Method, r.URL.Path, scheme, r.Host)
	}

	return newFailure(http.StatusNotFound, "", "unknown_url",
		"There is no %s %s: this server has files, uploads, batches and models under /v1, "+
			"and describes them in /openapi.json.", r.Method, r.URL.Path)
}

// headerRecorder takes the status and the header of an answer.
type headerRecorder struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (r *headerRecorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *headerRecorder) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *headerRecorder) Write(p []byte) (int, error) { return len(p), nil }

// router is net/http's router with a list of its routes.
type router struct {
	mux      *http.ServeMux
	patterns []string
}

// HandleFunc implements humago.Mux.
func (r *router) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	r.patterns = append(r.patterns, pattern)
	r.mux.HandleFunc(muxPattern(pattern), handler)
}

// muxPattern returns the pattern of a route for net/http. The id of a model may have slashes, which OpenAPI cannot
// express.
func muxPattern(pattern string) string { return strings.Replace(pattern, "{model}", "{model...}", 1) }

// ServeHTTP implements humago.Mux.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }
