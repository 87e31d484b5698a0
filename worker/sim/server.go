package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// Server is a simulated model server. It is an http.Handler.
type Server struct {
	cfg     Config
	engine  *Engine
	gate    Gate
	pool    *modelPool // nil: it has all its models loaded
	loaded  loadTimer
	counts  answerCounts
	respond responder
	mux     *http.ServeMux

	// mu guards random, from which the faults and the spread of the times are drawn.
	mu     sync.Mutex
	random *rand.Rand

	dying sync.Once
	died  chan struct{} // closed when it has
}

// answerCounts counts the requests that were answered.
type answerCounts struct{ succeeded, promptTokens, tokens atomic.Int64 }

// loadTimer is the time at which the model is loaded.
type loadTimer struct{ at time.Time }

// isLoading reports whether the model is not loaded yet.
func (t loadTimer) isLoading() bool { return time.Now().Before(t.at) }

// New returns a server.
func New(cfg Config) *Server {
	cfg.setDefaults()

	now := time.Now()
	s := &Server{
		cfg:    cfg,
		loaded: loadTimer{at: now.Add(cfg.Load)},
		mux:    http.NewServeMux(),
		died:   make(chan struct{}),
		random: rand.New(rand.NewPCG(cfg.Seed, 1+cfg.FaultSeed)),
		engine: NewEngine(EngineConfig{
			Slots: cfg.Slots,
			Knee:  cfg.Knee,
			KV:    cfg.KV,
			Queue: cfg.Queue,
			TTFT:  cfg.TTFT,
			TPOT:  cfg.TPOT,
		}),
	}

	s.respond = responder{cfg: &s.cfg}
	s.gate.Limit(cfg.Rate, RateBurst, 0)
	s.engine.sched.cache = newPromptCache(cfg.Flavour, cfg.Prefix, s.engine.sched.cfg.Slots)

	if cfg.swaps() {
		s.pool = newModelPool(cfg.MaxLoaded, cfg.SwapTime, cfg.Flavour == LlamaCPP)
	}

	s.registerEndpoints()

	pages := &statusPages{
		cfg:     &s.cfg,
		engine:  s.engine,
		pool:    s.pool,
		loaded:  s.loaded,
		counts:  &s.counts,
		respond: s.respond,
		mux:     s.mux,
		started: now,
	}

	pages.register()

	return s
}

// registerEndpoints registers the endpoints that a server of the flavour has.
func (s *Server) registerEndpoints() {
	for _, path := range proto.Endpoints {
		switch {
		case s.cfg.Flavour == Ollama && (path == "/v1/rerank" || path == "/v1/score"):
		case s.cfg.Flavour == LlamaCPP && path == "/v1/score":
		case s.cfg.Flavour == LlamaCPP && !s.cfg.Pooling && path == "/v1/embeddings":
			s.registerRefusal(path, "embeddings", "--embeddings")
		case s.cfg.Flavour == LlamaCPP && !s.cfg.Pooling && path == "/v1/rerank":
			s.registerRefusal(path, "reranking", "--reranking")
		default:
			s.mux.HandleFunc("POST "+path, s.handleRequest)
		}
	}
}

// registerRefusal registers an endpoint that llama.cpp has only with a flag.
func (s *Server) registerRefusal(path, feature, flag string) {
	s.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, _ *http.Request) {
		s.respond.refuseFeature(w, feature, flag)
	})
}

// Swaps returns how many models were loaded, the first ones and their replacements.
func (s *Server) Swaps() int64 {
	if s.pool == nil {
		return 0
	}
	return s.pool.swaps.Load()
}

// Gate returns the proxy in front of the server, to change which requests pass.
func (s *Server) Gate() *Gate { return &s.gate }

// Succeeded returns the number of requests answered.
func (s *Server) Succeeded() int64 { return s.counts.succeeded.Load() }

// Engine returns the simulated GPU, to read its load and to change its speed.
func (s *Server) Engine() *Engine { return s.engine }

// Hang makes the server hang as a GPU does, or ends that: it takes requests and answers all
// questions about itself, but generates no token. Clients that leave free their slots.
func (s *Server) Hang(on bool) { s.engine.setHung(on) }

// Kill ends the server as a crash does: every connection with a request is reset, also from now
// on. Only New starts another.
func (s *Server) Kill() {
	s.dying.Do(func() {
		close(s.died)
		s.engine.kill()
	})
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.died:
		resetConnection()
	default:
	}

	if s.cfg.Flavour == LlamaCPP {
		w.Header().Set("Server", "llama.cpp")
	}

	if s.cfg.Flavour != Ollama && s.loaded.isLoading() {
		if s.cfg.Flavour != LlamaCPP {
			resetConnection() // it would not even listen
		}
		s.respond.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "Loading model")
		return
	}

	s.mux.ServeHTTP(w, r)
}

// resetConnection ends the connection without an answer.
func resetConnection() { panic(http.ErrAbortHandler) }

// handleRequest answers a request to the model, and reports what it did.
func (s *Server) handleRequest(w http.ResponseWriter, r *http.Request) {
	x := Exchange{RequestID: r.Header.Get("X-Request-Id"), Path: r.URL.Path, Start: time.Now()}
	if s.cfg.OnExchange == nil {
		s.answerRequest(w, r, &x)
		return
	}

	answer := &statusWriter{ResponseWriter: w}
	defer func() { // also of a connection that is reset
		x.End, x.Status = time.Now(), answer.status
		x.Aborted = x.Status == 0 && r.Context().Err() != nil
		s.cfg.OnExchange(x)
	}()

	s.answerRequest(answer, r, &x)

	if answer.status == 0 && r.Context().Err() == nil {
		answer.status = http.StatusOK // the server sends it for a handler that has written nothing
	}
}

// answerRequest answers a request to the model: with a refusal, with a fault, or after the
// engine has run it.
func (s *Server) answerRequest(w http.ResponseWriter, r *http.Request, x *Exchange) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	if !s.gate.Enter() {
		http.Error(w, "429 Too Many Requests", http.StatusTooManyRequests)
		return
	}

	defer s.gate.Leave()

	req, err := parseRequest(body)
	if err != nil {
		s.respond.refuseBody(w, err)
		return
	}

	x.Model = req.model
	if s.cfg.Poison != "" && bytes.Contains(req.prompt, []byte(s.cfg.Poison)) {
		s.Kill()
		if s.cfg.OnDeath != nil {
			s.cfg.OnDeath()
		}
		resetConnection()
	}

	if !s.cfg.servesModel(req.model) {
		s.respond.refuseModel(w, req.model)
		return
	}

	fault, factor := s.drawFault()
	if fault != "" && fault != "truncated" && !s.engine.isHung() {
		x.Fault = fault
		s.injectFault(fault, w, r, req)
		return
	}

	p := s.cfg.planAnswer(req)
	x.Answer = p.answerStart()
	if !s.cfg.fitContext(&p, req) {
		s.respond.refuseLength(w, p.promptTokens, req.maxTokens)
		return
	}

	if s.cfg.Flavour == Ollama && !s.awaitLoaded(r.Context()) {
		return // the client has gone
	}

	x.GeneratedTokens, err = s.runPlan(r.Context(), &p, req, factor)
	if err != nil {
		s.answerError(w, r, err)
		return
	}

	finish := "stop"
	if p.cut {
		finish = "length"
	}

	answer, err := s.encodeAnswer(p, r.URL.Path, req, finish)
	if err != nil {
		s.respond.refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}

	if fault == "truncated" {
		x.Fault = fault
		writeTruncated(w, answer)
	}

	x.PromptTokens, x.CompletionTokens = p.promptTokens, p.completionTokens
	s.counts.succeeded.Add(1)
	s.counts.promptTokens.Add(int64(p.promptTokens))
	s.counts.tokens.Add(int64(p.completionTokens))
	w.Header().Set("Content-Type", s.cfg.Flavour.jsonType())
	w.Write(answer)
}

// drawFault draws a request's fault, and the factor of its times.
func (s *Server) drawFault() (fault string, factor float64) {
	if len(s.cfg.Faults) == 0 && s.cfg.Spread == 0 {
		return "", 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Faults.pick(s.random), 1 + s.cfg.Spread*(2*s.random.Float64()-1)
}

// awaitLoaded waits until the model is loaded, as a request does with Ollama. It returns false
// when the client leaves first.
func (s *Server) awaitLoaded(ctx context.Context) bool {
	if !s.loaded.isLoading() {
		return true
	}

	timer := time.NewTimer(time.Until(s.loaded.at))
	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-s.died:
		return true // the engine returns errDead
	case <-ctx.Done():
		return false
	}
}

// runPlan runs a request on the engine, with its model loaded, and returns how many tokens were
// generated for it. The error is the engine's, the pool's, or the cause of ctx.
func (s *Server) runPlan(
	ctx context.Context, p *plan, req request, factor float64,
) (generated int, err error) {
	if s.pool != nil {
		m, err := s.pool.acquire(ctx, s.cfg.fullName(req.model))
		if errors.Is(err, errEvicted) {
			return 0, errNoConnection
		}
		if err != nil {
			return 0, err
		}

		defer s.pool.release(m)

		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)

		go func() {
			select {
			case <-m.gone:
				cancel(errEvicted)
			case <-ctx.Done():
			}
		}()
	}

	j := &job{
		prompt:     p.promptTokens,
		completion: p.completionTokens,
		factor:     factor,
		text:       req.prompt,
	}

	err = s.engine.runJob(ctx, j)
	p.cachedTokens = j.cached

	return j.generated, err
}

// answerError answers a request that has failed.
func (s *Server) answerError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, ErrBusy):
		s.respond.refuseBusy(w)
	case errors.Is(err, errDead):
		resetConnection()
	case errors.Is(err, errNoConnection):
		s.respond.refuseEvicted(w, "Could not establish connection")
	case errors.Is(err, errEvicted):
		s.respond.refuseEvicted(w, "Failed to read connection")
	case r.Context().Err() == nil:
		s.respond.refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
	}
	// Otherwise the client has gone.
}
