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

// ListensWhileLoading tells whether such a server listens while it loads its model. One that
// does not resets all connections as long, which is as near as a handler gets.
func (f Flavour) ListensWhileLoading() bool { return f == LlamaCPP || f == Ollama }

// jsonType is the content type of its JSON.
func (f Flavour) jsonType() string {
	if f == LlamaCPP {
		return "application/json; charset=utf-8"
	}
	return "application/json"
}

// SwapsModels tells whether such a server may have fewer models loaded than it lists.
func (f Flavour) SwapsModels() bool { return f == LlamaCPP || f == Ollama || f == LMStudio }

// version is what the simulated servers say theirs is.
const version = "promptmill-sim"

// The simulated model, one of 8 billion parameters at 8 bits.
const (
	parameters  = 8_000_000_000
	weightBytes = 8_500_000_000
	tokenBytes  = 128 << 10 // of the cache
)

type object = map[string]any

// listModels lists the models, none when any is taken.
func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	data := []object{}
	for _, name := range s.cfg.Models {
		card := object{"id": name, "object": "model", "created": 0}
		switch s.cfg.Flavour {
		case VLLM, SGLang:
			card["owned_by"], card["root"], card["max_model_len"] = string(s.cfg.Flavour), name, s.contextLength()
		case LlamaCPP:
			card["owned_by"] = "llamacpp"
			card["meta"] = object{
				"n_ctx":       s.contextLength(),
				"n_ctx_train": 1 << 20,
				"n_params":    parameters,
				"size":        weightBytes,
			}
			if s.pool != nil {
				card["status"] = object{"value": s.pool.modelState(name), "args": []string{}}
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

// modelName is what the server calls its model where it must.
func (s *Server) modelName() string {
	if len(s.cfg.Models) > 0 {
		return s.cfg.Models[0]
	}
	return "sim"
}

func (s *Server) routeVLLM() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.writeJSON(w, http.StatusNotFound, object{"detail": "Not Found"})
	})
	s.handleJSON("/version", func() any { return object{"version": version} })
	s.mux.HandleFunc("GET /health", answerOK)
	s.mux.HandleFunc("GET /metrics", s.writeVLLMMetrics)
}

func (s *Server) routeSGLang() {
	s.mux.HandleFunc("GET /health", answerOK)
	s.mux.HandleFunc("GET /health_generate", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
		defer cancel()
		if s.engine.Run(ctx, 1, 1) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})

	s.handleJSON("/get_model_info", func() any {
		return object{"model_path": s.modelName(), "tokenizer_path": s.modelName(), "is_generation": true}
	})

	info := func() any {
		cfg := s.engine.currentConfig()

		return object{
			"version":              version,
			"model_path":           s.modelName(),
			"served_model_name":    s.modelName(),
			"context_length":       s.contextLength(),
			"max_running_requests": cfg.Slots,
			"max_total_num_tokens": cfg.KV,
			"internal_states": []object{{"memory_usage": object{
				"weight": float64(weightBytes) / (1 << 30), "kvcache": float64(cfg.KV*tokenBytes) / (1 << 30),
			}}},
		}
	}

	s.handleJSON("/get_server_info", info)
	s.handleJSON("/server_info", info) // its newer name
	s.mux.HandleFunc("GET /metrics", s.writeSGLangMetrics)
}

func (s *Server) routeLlamaCPP() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, http.StatusNotFound, "not_found_error", "File Not Found")
	})

	s.handleJSON("/health", func() any { return object{"status": "ok"} })
	s.mux.HandleFunc("GET /props", func(w http.ResponseWriter, r *http.Request) {
		if s.pool != nil && !r.URL.Query().Has("model") {
			s.writeJSON(w, http.StatusOK, object{
				"role":                        "router",
				"max_instances":               s.cfg.MaxLoaded,
				"models_autoload":             true,
				"model_path":                  "none",
				"build_info":                  version,
				"default_generation_settings": object{"n_ctx": 0},
			})

			return
		}

		if !s.routeToModel(w, r) {
			return
		}

		s.writeJSON(w, http.StatusOK, object{
			"total_slots":                 s.engine.currentConfig().Slots,
			"model_path":                  s.modelName(),
			"build_info":                  version,
			"default_generation_settings": object{"n_ctx": s.contextLength()},
		})
	})

	s.mux.HandleFunc("GET /slots", func(w http.ResponseWriter, r *http.Request) {
		if !s.routeToModel(w, r) {
			return
		}

		slots, load := make([]object, s.engine.currentConfig().Slots), s.engine.Load()
		if load.Running >= len(slots) && r.FormValue("fail_on_no_slot") != "" {
			s.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
			return
		}

		for i := range slots {
			slots[i] = object{
				"id":            i,
				"n_ctx":         s.contextLength(),
				"speculative":   false,
				"is_processing": i < load.Running,
			}
		}

		s.writeJSON(w, http.StatusOK, slots)
	})

	s.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !s.routeToModel(w, r) {
			return
		}

		if !s.cfg.Metrics {
			s.refuse(w, http.StatusNotImplemented, "not_supported_error", notStarted("metrics endpoint", "--metrics"))
			return
		}

		s.writeLlamaCPPMetrics(w)
	})
}

// routeToModel reports whether a question to a router can be answered by the server of a model, and
// refuses it otherwise. Unless it says autoload=false, it has the model loaded, and perhaps
// another unloaded (tools/server/server-models.cpp, proxy_get).
func (s *Server) routeToModel(w http.ResponseWriter, r *http.Request) bool {
	if s.pool == nil {
		return true
	}

	model := r.FormValue("model")
	switch {
	case model == "":
		s.refuse(w, http.StatusBadRequest, "invalid_request_error", "model name is missing from the request")
		return false
	case !s.servesModel(model):
		s.refuseModel(w, model)
		return false
	case r.FormValue("autoload") == "false" && s.pool.modelState(model) == "unloaded":
		s.refuse(w, http.StatusBadRequest, "invalid_request_error", "model is not loaded")
		return false
	}

	m, err := s.pool.acquire(r.Context(), model)
	if err != nil {
		s.refuseEvicted(w, "Could not establish connection")
		return false
	}

	s.pool.release(m)

	return true
}

func (s *Server) routeOllama() {
	s.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Ollama is running") })
	s.handleJSON("/api/version", func() any { return object{"version": version} })
	s.handleJSON("/api/tags", func() any {
		models := []object{}
		for _, name := range s.cfg.Models {
			models = append(models, object{"name": name, "model": name, "size": weightBytes})
		}
		return object{"models": models}
	})

	s.handleJSON("/api/ps", func() any {
		models := []object{}
		for _, name := range s.loadedModels() {
			size := weightBytes + s.engine.currentConfig().KV*tokenBytes
			models = append(models, object{
				"name":           name,
				"model":          name,
				"size":           size,
				"size_vram":      size,
				"context_length": s.contextLength(),
				"expires_at":     time.Now().Add(5 * time.Minute),
			})
		}

		return object{"models": models}
	})
}

// loadedModels are those that Ollama has loaded: the first, unless it loads one for another.
func (s *Server) loadedModels() (names []string) {
	switch {
	case s.isLoading() || len(s.cfg.Models) == 0:
		return nil
	case s.pool == nil:
		return s.cfg.Models[:1]
	}

	for _, name := range s.cfg.Models {
		if s.pool.modelState(name) == "loaded" {
			names = append(names, name)
		}
	}

	return names
}

// routeTensorRT: trtllm-serve tells each iteration once at /metrics, which is always too late
// here.
func (s *Server) routeTensorRT() {
	s.mux.HandleFunc("GET /health", answerOK)
	s.handleJSON("/version", func() any { return object{"version": version} })
	s.handleJSON("/metrics", func() any { return []object{} })
	s.mux.HandleFunc("GET /prometheus/metrics", s.writeTensorRTMetrics)
}

// routeLMStudio: what it does not know gets an error with a good status.
func (s *Server) routeLMStudio() {
	s.handleJSON("/api/v0/models", func() any {
		data := []object{}
		for _, name := range s.cfg.Models {
			card := object{
				"id":                 name,
				"object":             "model",
				"type":               "llm",
				"state":              "not-loaded",
				"max_context_length": 1 << 20,
			}
			if s.pool == nil || s.pool.modelState(name) == "loaded" {
				card["state"], card["loaded_context_length"] = "loaded", s.contextLength()
			}

			data = append(data, card)
		}

		return object{"object": "list", "data": data}
	})

	s.handleJSON("/api/v1/models", func() any {
		models := []object{}
		for _, name := range s.cfg.Models {
			instances := []object{}
			if s.pool == nil || s.pool.modelState(name) == "loaded" {
				instances = append(instances, object{
					"id":     name,
					"config": object{"context_length": s.contextLength(), "parallel": s.engine.currentConfig().Slots},
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

func answerOK(http.ResponseWriter, *http.Request) {}
