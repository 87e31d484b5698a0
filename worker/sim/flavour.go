package sim

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Flavour is a kind of model server.
type Flavour string

// The flavours. Plain is some server of which only /v1 is known.
const (
	VLLM     Flavour = "vllm"
	SGLang   Flavour = "sglang"
	LlamaCPP Flavour = "llama.cpp"
	Ollama   Flavour = "ollama"
	Plain    Flavour = "plain"
)

// Flavours are all of them.
var Flavours = []Flavour{VLLM, SGLang, LlamaCPP, Ollama, Plain}

// ListensLoading tells whether such a server listens while it loads its model. One that
// does not resets all connections as long, which is as near as a handler gets.
func (f Flavour) ListensLoading() bool { return f == LlamaCPP || f == Ollama }

// jsonType is the content type of its JSON.
func (f Flavour) jsonType() string {
	if f == LlamaCPP {
		return "application/json; charset=utf-8"
	}
	return "application/json"
}

// version is what the simulated servers say theirs is.
const version = "promptmill-sim"

// The simulated model, one of 8 billion parameters at 8 bits.
const (
	parameters  = 8_000_000_000
	weightBytes = 8_500_000_000
	tokenBytes  = 128 << 10 // of the cache
)

type object = map[string]any

// models lists the models, none when any is taken.
func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	data := []object{}
	for _, name := range s.cfg.Models {
		card := object{"id": name, "object": "model", "created": 0}
		switch s.cfg.Flavour {
		case VLLM, SGLang:
			card["owned_by"], card["root"], card["max_model_len"] = string(s.cfg.Flavour), name, s.context()
		case LlamaCPP:
			card["owned_by"] = "llamacpp"
			card["meta"] = object{"n_ctx": s.context(), "n_ctx_train": 1 << 20, "n_params": parameters, "size": weightBytes}
		case Ollama:
			card["owned_by"] = "library"
		default:
			card["owned_by"] = "promptmill"
		}
		data = append(data, card)
	}
	s.writeJSON(w, http.StatusOK, object{"object": "list", "data": data})
}

// model is what the server calls its model where it must.
func (s *Server) model() string {
	if len(s.cfg.Models) > 0 {
		return s.cfg.Models[0]
	}
	return "sim"
}

func (s *Server) routesVLLM() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.writeJSON(w, http.StatusNotFound, object{"detail": "Not Found"})
	})
	s.tell("/version", func() any { return object{"version": version} })
	s.mux.HandleFunc("GET /health", ok)
	s.mux.HandleFunc("GET /metrics", s.metricsVLLM)
}

func (s *Server) routesSGLang() {
	s.mux.HandleFunc("GET /health", ok)
	s.mux.HandleFunc("GET /health_generate", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
		defer cancel()
		if s.engine.Run(ctx, 1, 1) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s.tell("/get_model_info", func() any {
		return object{"model_path": s.model(), "tokenizer_path": s.model(), "is_generation": true}
	})
	info := func() any {
		cfg := s.engine.config()
		return object{
			"version": version, "model_path": s.model(), "served_model_name": s.model(), "context_length": s.context(),
			"max_running_requests": cfg.Slots, "max_total_num_tokens": cfg.KV,
			"internal_states": []object{{"memory_usage": object{
				"weight": float64(weightBytes) / (1 << 30), "kvcache": float64(cfg.KV*tokenBytes) / (1 << 30),
			}}},
		}
	}
	s.tell("/get_server_info", info)
	s.tell("/server_info", info) // its newer name
	s.mux.HandleFunc("GET /metrics", s.metricsSGLang)
}

func (s *Server) routesLlamaCPP() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, http.StatusNotFound, "not_found_error", "File Not Found")
	})
	s.tell("/health", func() any { return object{"status": "ok"} })
	s.tell("/props", func() any {
		return object{
			"total_slots": s.engine.config().Slots, "model_path": s.model(), "build_info": version,
			"default_generation_settings": object{"n_ctx": s.context()},
		}
	})
	s.mux.HandleFunc("GET /slots", func(w http.ResponseWriter, r *http.Request) {
		slots, load := make([]object, s.engine.config().Slots), s.engine.Load()
		if load.Running >= len(slots) && r.FormValue("fail_on_no_slot") != "" {
			s.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
			return
		}
		for i := range slots {
			slots[i] = object{"id": i, "n_ctx": s.context(), "speculative": false, "is_processing": i < load.Running}
		}
		s.writeJSON(w, http.StatusOK, slots)
	})
	s.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !s.cfg.Metrics {
			s.refuse(w, http.StatusNotImplemented, "not_supported_error", notStarted("metrics endpoint", "--metrics"))
			return
		}
		s.metricsLlamaCPP(w)
	})
}

func (s *Server) routesOllama() {
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Ollama is running") })
	s.tell("/api/version", func() any { return object{"version": version} })
	s.tell("/api/tags", func() any {
		models := []object{}
		for _, name := range s.cfg.Models {
			models = append(models, object{"name": name, "model": name, "size": weightBytes})
		}
		return object{"models": models}
	})
	s.tell("/api/ps", func() any {
		models := []object{}
		if !s.loading() && len(s.cfg.Models) > 0 {
			size := weightBytes + s.engine.config().KV*tokenBytes
			models = append(models, object{
				"name": s.model(), "model": s.model(), "size": size, "size_vram": size, "context_length": s.context(),
				"expires_at": time.Now().Add(5 * time.Minute),
			})
		}
		return object{"models": models}
	})
}

func ok(http.ResponseWriter, *http.Request) {}
