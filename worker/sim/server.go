package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// Config is how a simulated server behaves.
type Config struct {
	Flavour Flavour  // what it looks like. Defaults to VLLM.
	Models  []string // that it serves. None means any.
	Slots   int      // requests answered at once; others wait. Defaults to 256.
	Knee    int      // of [EngineConfig]: as many run at full speed. 0: all do.
	// tokens of cache, the longest prompt and answer too. 0: no bound, and a context of a
	// million tokens.
	KV int
	// requests a second that a proxy in front of it lets through, and RateBurst at once; more
	// are refused. 0: any number.
	Rate  float64
	Queue int // requests that may wait; one more is refused. 0: no bound, as always with llama.cpp.
	// tokens of prompts that it keeps, for those that begin in the same way; with llama.cpp, in
	// the host's memory, beside each slot's last; with Ollama, each slot's last alone. 0: none.
	Prefix    int
	TTFT      time.Duration // mean time to the first token, of a prompt of which nothing is cached
	TPOT      time.Duration // mean time for each further token
	Spread    float64       // of both times: 0.2 means 20% more or less at most
	Tokens    int           // mean completion length in tokens. Defaults to 100.
	Load      time.Duration // it loads its model for as long after New
	MaxLoaded int           // models that it can have loaded at once (llama.cpp's router, Ollama, LM Studio). 0: all are.
	SwapTime  time.Duration // that it takes to load another one of these
	Metrics   bool          // llama.cpp only: started with --metrics. The others need nothing for theirs.
	// llama.cpp only: started with --embeddings and --reranking. The others embed and rank with
	// any model.
	Pooling   bool
	Seed      uint64
	Faults    Faults
	FaultSeed uint64 // and Seed decide which requests meet a fault; the answers follow from Seed alone

	// Poison is what a prompt must contain to kill the server, as by [Server.Kill].
	// Empty: nothing does.
	Poison string
	// OnDeath is called when a prompt kills the server. It must not wait for requests to
	// end. Optional.
	OnDeath func()
}

// Server is a simulated model server. It is an http.Handler.
type Server struct {
	cfg     Config
	started time.Time
	ready   time.Time // when the model is loaded
	engine  *Engine
	gate    Gate
	mux     *http.ServeMux
	pool    *modelPool // nil: it has all its models

	mu     sync.Mutex
	random *rand.Rand

	dying sync.Once
	died  chan struct{} // closed when it has

	succeeded, promptTokens, tokens atomic.Int64 // of the requests that were answered
}

// New returns a server.
func New(cfg Config) *Server {
	if cfg.Flavour == "" {
		cfg.Flavour = VLLM
	}
	if cfg.Flavour == LlamaCPP {
		cfg.Queue = 0
	}
	if cfg.Tokens <= 0 {
		cfg.Tokens = 100
	}

	s := &Server{
		cfg:     cfg,
		started: time.Now(),
		ready:   time.Now().Add(cfg.Load),
		mux:     http.NewServeMux(),
		died:    make(chan struct{}),
		random:  rand.New(rand.NewPCG(cfg.Seed, 1+cfg.FaultSeed)),
		engine: NewEngine(EngineConfig{
			Slots: cfg.Slots,
			Knee:  cfg.Knee,
			KV:    cfg.KV,
			Queue: cfg.Queue,
			TTFT:  cfg.TTFT,
			TPOT:  cfg.TPOT,
		}),
	}

	s.gate.Limit(cfg.Rate, RateBurst, 0)
	s.engine.cache = newPromptCache(cfg.Flavour, cfg.Prefix, s.engine.cfg.Slots)

	if cfg.MaxLoaded > 0 {
		s.pool = newModelPool(cfg.MaxLoaded, cfg.SwapTime, cfg.Flavour == LlamaCPP)
	}

	s.registerRoutes()

	return s
}

// Swaps is how many models were loaded, one in the place of another or the first.
func (s *Server) Swaps() int64 {
	if s.pool == nil {
		return 0
	}
	return s.pool.swaps.Load()
}

// RateBurst is how many requests more than Config.Rate the proxy lets through once.
const RateBurst = 5

// Gate is the proxy in front of the server, to change what it lets through.
func (s *Server) Gate() *Gate { return &s.gate }

// Succeeded is the number of requests answered.
func (s *Server) Succeeded() int64 { return s.succeeded.Load() }

// Engine is the simulated GPU, to look at its load and to change its speed.
func (s *Server) Engine() *Engine { return s.engine }

// Hang makes the server hang as a GPU does, or ends that: it takes requests and answers
// all questions about itself, but not one token comes. Clients that leave are let go.
func (s *Server) Hang(on bool) { s.engine.setHung(on) }

// Kill ends the server as a crash does: every connection with a request is reset, from
// now on too. There is no way back but New.
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

	if s.isLoading() && s.cfg.Flavour != Ollama {
		if s.cfg.Flavour != LlamaCPP {
			resetConnection() // it would not even listen
		}
		s.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "Loading model")
		return
	}

	s.mux.ServeHTTP(w, r)
}

func (s *Server) isLoading() bool { return s.cfg.Load > 0 && time.Now().Before(s.ready) }

// resetConnection ends the connection without an answer.
func resetConnection() { panic(http.ErrAbortHandler) }

func (s *Server) handleRequest(w http.ResponseWriter, r *http.Request) {
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
		s.refuseBody(w, err)
		return
	}

	if s.cfg.Poison != "" && bytes.Contains(req.prompt, []byte(s.cfg.Poison)) {
		s.Kill()
		if s.cfg.OnDeath != nil {
			s.cfg.OnDeath()
		}
		resetConnection()
	}

	if !s.servesModel(req.model) {
		s.refuseModel(w, req.model)
		return
	}

	fault, factor := s.drawFault()
	if fault != "" && fault != "truncated" && !s.engine.isHung() {
		s.injectFault(fault, w, r, req)
		return
	}

	p := s.cfg.planAnswer(req)
	if s.exceedsContext(&p, req) {
		s.refuseLength(w, p.promptTokens, req.maxTokens)
		return
	}

	if s.cfg.Flavour == Ollama && !s.awaitLoaded(r.Context()) {
		return // the client has gone
	}

	ctx := r.Context()
	if s.pool != nil {
		m, err := s.pool.acquire(ctx, s.fullName(req.model))
		if errors.Is(err, errEvicted) {
			s.refuseEvicted(w, "Could not establish connection")
			return
		}
		if err != nil {
			return // the client has gone
		}

		defer s.pool.release(m)

		var cut context.CancelCauseFunc
		ctx, cut = context.WithCancelCause(ctx)
		defer cut(nil)

		go func() {
			select {
			case <-m.gone:
				cut(errEvicted)
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
	switch {
	case errors.Is(err, ErrBusy):
		s.refuseBusy(w)
		return
	case errors.Is(err, errDead):
		resetConnection()
	case errors.Is(err, errEvicted):
		s.refuseEvicted(w, "Failed to read connection")
		return
	case err != nil && r.Context().Err() == nil:
		s.refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	case err != nil:
		return // the client has gone
	}

	finish := "stop"
	if p.cut {
		finish = "length"
	}

	answer, err := s.encodeAnswer(p, r.URL.Path, req, finish)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}

	if fault == "truncated" {
		writeTruncated(w, answer)
	}

	s.succeeded.Add(1)
	s.promptTokens.Add(int64(p.promptTokens))
	s.tokens.Add(int64(p.completionTokens))
	w.Header().Set("Content-Type", s.cfg.Flavour.jsonType())
	w.Write(answer)
}

// servesModel tells whether a request may name a model. llama.cpp does not look at the name.
func (s *Server) servesModel(model string) bool {
	names := s.cfg.Models
	return len(names) == 0 || s.cfg.Flavour == LlamaCPP && s.pool == nil || slices.Contains(names, model) ||
		s.cfg.Flavour == Ollama && !strings.Contains(model, ":") && slices.Contains(names, model+":latest")
}

// fullName is what the server calls the model of a request.
func (s *Server) fullName(model string) string {
	if s.cfg.Flavour == Ollama && !slices.Contains(s.cfg.Models, model) {
		return model + ":latest"
	}
	return model
}

// drawFault picks a request's fault, and the factor of its times.
func (s *Server) drawFault() (fault string, factor float64) {
	if len(s.cfg.Faults) == 0 && s.cfg.Spread == 0 {
		return "", 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Faults.pick(s.random), 1 + s.cfg.Spread*(2*s.random.Float64()-1)
}

// exceedsContext tells whether a request does not fit the context. An answer that does not is
// cut, but where the request asks for so many tokens: SGLang refuses it then, vLLM only what
// no prompt leaves room for. Ollama cuts the prompt too.
func (s *Server) exceedsContext(p *plan, req request) bool {
	length := s.contextLength()
	switch s.cfg.Flavour {
	case Ollama:
		p.promptTokens = min(p.promptTokens, length-1)
	case LlamaCPP:
		if p.promptTokens >= length {
			return true
		}
	case VLLM:
		if p.promptTokens >= length || req.maxTokens > length {
			return true
		}
	case SGLang:
		if p.promptTokens+req.maxTokens >= length {
			return true
		}
	default:
		if p.promptTokens+max(1, req.maxTokens) > length {
			return true
		}
	}

	p.limitTokens(length - p.promptTokens)

	return false
}

// contextLength is the number of tokens that a prompt and its answer may have.
func (s *Server) contextLength() int {
	if s.cfg.KV > 0 {
		return max(2, s.cfg.KV)
	}
	return 1 << 20
}

// awaitLoaded waits until the model is loaded, as a request does with Ollama. It returns
// false when the client goes away first.
func (s *Server) awaitLoaded(ctx context.Context) bool {
	if !s.isLoading() {
		return true
	}

	timer := time.NewTimer(time.Until(s.ready))
	defer timer.Stop()

	select {
	case <-timer.C:
		return true
	case <-s.died:
		return true // what follows will tell
	case <-ctx.Done():
		return false
	}
}

// registerRoutes registers what the flavour answers.
func (s *Server) registerRoutes() {
	for _, path := range proto.Endpoints {
		switch {
		case s.cfg.Flavour == Ollama && (path == "/v1/rerank" || path == "/v1/score"):
		case s.cfg.Flavour == LlamaCPP && path == "/v1/score":
		case s.cfg.Flavour == LlamaCPP && !s.cfg.Pooling && path == "/v1/embeddings":
			s.refuseFeature(path, "embeddings", "--embeddings")
		case s.cfg.Flavour == LlamaCPP && !s.cfg.Pooling && path == "/v1/rerank":
			s.refuseFeature(path, "reranking", "--reranking")
		default:
			s.mux.HandleFunc("POST "+path, s.handleRequest)
		}
	}

	s.mux.HandleFunc("GET /v1/models", s.listModels)
	switch s.cfg.Flavour {
	case VLLM:
		s.routeVLLM()
	case SGLang:
		s.routeSGLang()
	case LlamaCPP:
		s.routeLlamaCPP()
	case Ollama:
		s.routeOllama()
	case TensorRT:
		s.routeTensorRT()
	case LMStudio:
		s.routeLMStudio()
	}
}

// handleJSON registers a question that is answered with JSON.
func (s *Server) handleJSON(path string, answer func() any) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		s.writeJSON(w, http.StatusOK, answer())
	})
}

func (s *Server) writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}

	w.Header().Set("Content-Type", s.cfg.Flavour.jsonType())
	if s.cfg.Flavour == LlamaCPP && status >= http.StatusBadRequest {
		w.Header().Set("Connection", "close")
	}

	w.WriteHeader(status)
	w.Write(body)
}
