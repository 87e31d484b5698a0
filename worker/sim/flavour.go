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
	TensorRT Flavour = "tensorrt-llm"
	LMStudio Flavour = "lmstudio"
	Plain    Flavour = "plain"
)

// Flavours are all of them.
var Flavours = []Flavour{VLLM, SGLang, LlamaCPP, Ollama, TensorRT, LMStudio, Plain}

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

// Swaps tells whether such a server may have fewer models loaded than it lists.
func (f Flavour) Swaps() bool { return f == LlamaCPP || f == Ollama || f == LMStudio }

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
			card["meta"] = object{
				"n_ctx":       s.context(),
				"n_ctx_train": 1 << 20,
				"n_params":    parameters,
				"size":        weightBytes,
			}
			if s.shelf != nil {
				card["status"] = object{"value": s.shelf.state(name), "args": []string{}}
			}
		case Ollama:
			card["owned_by"] = "library"
		case TensorRT:
			card["owned_by"] = "tensorrt_llm"
		case LMStudio:
			card["owned_by"] = "organization_owner"
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
			"version":              version,
			"model_path":           s.model(),
			"served_model_name":    s.model(),
			"context_length":       s.context(),
			"max_running_requests": cfg.Slots,
			"max_total_num_tokens": cfg.KV,
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
	s.mux.HandleFunc("GET /props", func(w http.ResponseWriter, r *http.Request) {
		if s.shelf != nil && !r.URL.Query().Has("model") {
			s.writeJSON(w, http.StatusOK, object{
				"role":                        "router",
				"max_instances":               s.cfg.Hold,
				"models_autoload":             true,
				"model_path":                  "none",
				"build_info":                  version,
				"default_generation_settings": object{"n_ctx": 0},
			})

			return
		}

		if !s.routed(w, r) {
			return
		}

		s.writeJSON(w, http.StatusOK, object{
			"total_slots":                 s.engine.config().Slots,
			"model_path":                  s.model(),
			"build_info":                  version,
			"default_generation_settings": object{"n_ctx": s.context()},
		})
	})

	s.mux.HandleFunc("GET /slots", func(w http.ResponseWriter, r *http.Request) {
		if !s.routed(w, r) {
			return
		}

		slots, load := make([]object, s.engine.config().Slots), s.engine.Load()
		if load.Running >= len(slots) && r.FormValue("fail_on_no_slot") != "" {
			s.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
			return
		}

		for i := range slots {
			slots[i] = object{
				"id":            i,
				"n_ctx":         s.context(),
				"speculative":   false,
				"is_processing": i < load.Running,
			}
		}

		s.writeJSON(w, http.StatusOK, slots)
	})

	s.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !s.routed(w, r) {
			return
		}

		if !s.cfg.Metrics {
			s.refuse(w, http.StatusNotImplemented, "not_supported_error", notStarted("metrics endpoint", "--metrics"))
			return
		}

		s.metricsLlamaCPP(w)
	})
}

// routed reports whether a question to a router can be answered by the server of a model, and
// refuses it otherwise. Unless it says autoload=false, it has the model loaded, and perhaps
// another unloaded (tools/server/server-models.cpp, proxy_get).
func (s *Server) routed(w http.ResponseWriter, r *http.Request) bool {
	if s.shelf == nil {
		return true
	}

	model := r.FormValue("model")
	switch {
	case model == "":
		s.refuse(w, http.StatusBadRequest, "invalid_request_error", "model name is missing from the request")
		return false
	case !s.serves(model):
		s.refuseModel(w, model)
		return false
	case r.FormValue("autoload") == "false" && s.shelf.state(model) == "unloaded":
		s.refuse(w, http.StatusBadRequest, "invalid_request_error", "model is not loaded")
		return false
	}

	m, err := s.shelf.take(r.Context(), model)
	if err != nil {
		s.refuseEvicted(w, "Could not establish connection")
		return false
	}

	s.shelf.leave(m)

	return true
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
		for _, name := range s.loadedModels() {
			size := weightBytes + s.engine.config().KV*tokenBytes
			models = append(models, object{
				"name":           name,
				"model":          name,
				"size":           size,
				"size_vram":      size,
				"context_length": s.context(),
				"expires_at":     time.Now().Add(5 * time.Minute),
			})
		}

		return object{"models": models}
	})
}

// loadedModels are those that Ollama has loaded: the first, unless it loads one for another.
func (s *Server) loadedModels() (names []string) {
	switch {
	case s.loading() || len(s.cfg.Models) == 0:
		return nil
	case s.shelf == nil:
		return s.cfg.Models[:1]
	}

	for _, name := range s.cfg.Models {
		if s.shelf.state(name) == "loaded" {
			names = append(names, name)
		}
	}

	return names
}

// routesTensorRT: trtllm-serve tells each iteration once at /metrics, which is always too late
// here.
func (s *Server) routesTensorRT() {
	s.mux.HandleFunc("GET /health", ok)
	s.tell("/version", func() any { return object{"version": version} })
	s.tell("/metrics", func() any { return []object{} })
	s.mux.HandleFunc("GET /prometheus/metrics", s.metricsTensorRT)
}

// routesLMStudio: what it does not know gets an error with a good status.
func (s *Server) routesLMStudio() {
	s.tell("/api/v0/models", func() any {
		data := []object{}
		for _, name := range s.cfg.Models {
			card := object{
				"id":                 name,
				"object":             "model",
				"type":               "llm",
				"state":              "not-loaded",
				"max_context_length": 1 << 20,
			}
			if s.shelf == nil || s.shelf.state(name) == "loaded" {
				card["state"], card["loaded_context_length"] = "loaded", s.context()
			}

			data = append(data, card)
		}

		return object{"object": "list", "data": data}
	})

	s.tell("/api/v1/models", func() any {
		models := []object{}
		for _, name := range s.cfg.Models {
			instances := []object{}
			if s.shelf == nil || s.shelf.state(name) == "loaded" {
				instances = append(instances, object{
					"id":     name,
					"config": object{"context_length": s.context(), "parallel": s.engine.config().Slots},
				})
			}

			models = append(models, object{"type": "llm", "key": name, "loaded_instances": instances})
		}

		return object{"models": models}
	})

	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.writeJSON(w, http.StatusOK, object{"error": fmt.Sprintf("Unexpected endpoint or method. (%s %s)",
			r.Method, r.URL.Path)})
	})
}

func ok(http.ResponseWriter, *http.Request) {}
