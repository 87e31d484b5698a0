package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	openai "github.com/sashabaranov/go-openai"

	"github.com/promptmill/promptmill/proto"
)

// Config is how a simulated server behaves.
type Config struct {
	Models []string      // that it serves. None means any.
	Slots  int           // requests answered at once; others wait. Defaults to 256.
	TTFT   time.Duration // mean time to the first token
	TPOT   time.Duration // mean time for each further token
	Spread float64       // of both times: 0.2 means 20% more or less at most
	Tokens int           // mean completion length in tokens. Defaults to 100.
	Seed   uint64
	Faults Faults
}

// Server is a simulated model server. It is an http.Handler.
type Server struct {
	cfg   Config
	slots chan struct{}
	mux   *http.ServeMux

	mu     sync.Mutex
	random *rand.Rand

	running, waiting                atomic.Int64
	succeeded, promptTokens, tokens atomic.Int64
}

// New returns a server.
func New(cfg Config) *Server {
	if cfg.Slots <= 0 {
		cfg.Slots = 256
	}
	if cfg.Tokens <= 0 {
		cfg.Tokens = 100
	}
	s := &Server{
		cfg: cfg, slots: make(chan struct{}, cfg.Slots), mux: http.NewServeMux(),
		random: rand.New(rand.NewPCG(cfg.Seed, 1)),
	}
	for _, path := range proto.Endpoints {
		s.mux.HandleFunc("POST "+path, s.generate)
	}
	s.mux.HandleFunc("GET /v1/models", s.models)
	s.mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	s.mux.HandleFunc("GET /metrics", s.metrics)
	s.mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"version":"promptmill-sim"}`) })
	return s
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	req, err := parseRequest(body)
	if err != nil {
		writeError(w, http.StatusBadRequest, "BadRequestError", err.Error())
		return
	}
	if len(s.cfg.Models) > 0 && !slices.Contains(s.cfg.Models, req.model) {
		writeError(w, http.StatusNotFound, "NotFoundError", fmt.Sprintf("The model `%s` does not exist.", req.model))
		return
	}
	fault, factor := s.draw()
	if fault != "" && fault != "truncated" {
		commit(fault, w, r)
		return
	}
	p := s.cfg.plan(req)
	if !s.work(r.Context(), p, factor) {
		return // the client has gone
	}
	finish := "stop"
	if p.completionTokens == req.maxTokens {
		finish = "length"
	}
	answer, err := p.answer(r.URL.Path, req, finish)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}
	if fault == "truncated" {
		truncate(w, answer)
	}
	s.succeeded.Add(1)
	s.promptTokens.Add(int64(p.promptTokens))
	s.tokens.Add(int64(p.completionTokens))
	w.Header().Set("Content-Type", "application/json")
	w.Write(answer)
}

// draw picks a request's fault, and the factor of its times.
func (s *Server) draw() (fault string, factor float64) {
	if len(s.cfg.Faults) == 0 && s.cfg.Spread == 0 {
		return "", 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Faults.draw(s.random), 1 + s.cfg.Spread*(2*s.random.Float64()-1)
}

// work takes a slot for as long as the answer takes. It returns false when the
// client goes away first, which frees the slot, as vLLM does.
func (s *Server) work(ctx context.Context, p plan, factor float64) bool {
	s.waiting.Add(1)
	select {
	case s.slots <- struct{}{}:
		s.waiting.Add(-1)
	case <-ctx.Done():
		s.waiting.Add(-1)
		return false
	}
	s.running.Add(1)
	defer func() {
		s.running.Add(-1)
		<-s.slots
	}()
	busy := time.Duration(factor * float64(s.cfg.TTFT+time.Duration(p.completionTokens-1)*s.cfg.TPOT))
	if busy <= 0 {
		return true
	}
	timer := time.NewTimer(busy)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	names := s.cfg.Models // none: it takes any, and so has no list
	list := map[string]any{"object": "list"}
	data := make([]openai.Model, len(names))
	for i, name := range names {
		data[i] = openai.Model{ID: name, Object: "model", OwnedBy: "promptmill"}
	}
	list["data"] = data
	writeJSON(w, http.StatusOK, list)
}

// metrics answers with the few metrics that a client steers by, under vLLM's names.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	model := "sim"
	if len(s.cfg.Models) > 0 {
		model = s.cfg.Models[0]
	}
	label := `{engine="0",model_name=` + strconv.Quote(model) + `}`
	running := s.running.Load()
	for _, m := range []struct {
		name, kind string
		value      float64
	}{
		{"vllm:num_requests_running", "gauge", float64(running)},
		{"vllm:num_requests_waiting", "gauge", float64(s.waiting.Load())},
		{"vllm:kv_cache_usage_perc", "gauge", float64(running) / float64(s.cfg.Slots)},
		{"vllm:num_preemptions_total", "counter", 0},
		{"vllm:prompt_tokens_total", "counter", float64(s.promptTokens.Load())},
		{"vllm:generation_tokens_total", "counter", float64(s.tokens.Load())},
		{"vllm:request_success_total", "counter", float64(s.succeeded.Load())},
	} {
		fmt.Fprintf(w, "# TYPE %s %s\n%s%s %g\n", m.name, m.kind, m.name, label, m.value)
	}
}

// Succeeded is the number of requests answered.
func (s *Server) Succeeded() int64 { return s.succeeded.Load() }

// writeError answers in the form of vLLM's errors.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": status}})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}
