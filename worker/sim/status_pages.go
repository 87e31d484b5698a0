package sim

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// version is the version of the simulated servers.
const version = "promptmill-sim"

// The simulated model, one of 8 billion parameters at 8 bits.
const (
	parameters  = 8_000_000_000
	weightBytes = 8_500_000_000
	tokenBytes  = 128 << 10 // of the cache
)

// object is a JSON object.
type object = map[string]any

// statusPages are the pages on which a server of a flavour reports about itself: its list of
// models, its version and its load.
type statusPages struct {
	cfg     *Config
	engine  *Engine
	pool    *modelPool // nil: the server has all its models loaded
	loaded  loadTimer
	counts  *answerCounts
	respond responder
	mux     *http.ServeMux
	started time.Time
}

// register registers the pages of the flavour.
func (p *statusPages) register() {
	p.mux.HandleFunc("GET /v1/models", p.listModels)
	switch p.cfg.Flavour {
	case VLLM:
		p.routeVLLM()
	case SGLang:
		p.routeSGLang()
	case LlamaCPP:
		p.routeLlamaCPP()
	case Ollama:
		p.routeOllama()
	case TensorRT:
		p.routeTensorRT()
	case LMStudio:
		p.routeLMStudio()
	}
}

// handleJSON registers a page of JSON.
func (p *statusPages) handleJSON(path string, answer func() any) {
	p.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		p.respond.writeJSON(w, http.StatusOK, answer())
	})
}

// listModels lists the models, none if any may be requested.
func (p *statusPages) listModels(w http.ResponseWriter, _ *http.Request) {
	data := []object{}
	for _, name := range p.cfg.Models {
		card := object{"id": name, "object": "model", "created": 0}
		switch p.cfg.Flavour {
		case VLLM, SGLang:
			card["owned_by"], card["root"], card["max_model_len"] = string(p.cfg.Flavour), name, p.cfg.contextLength()
		case LlamaCPP:
			card["owned_by"] = "llamacpp"
			card["meta"] = object{
				"n_ctx":       p.cfg.contextLength(),
				"n_ctx_train": 1 << 20,
				"n_params":    parameters,
				"size":        weightBytes,
			}
			if p.pool != nil {
				card["status"] = object{"value": p.pool.modelState(name), "args": []string{}}
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

	p.respond.writeJSON(w, http.StatusOK, object{"object": "list", "data": data})
}

func (p *statusPages) routeVLLM() {
	p.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		p.respond.writeJSON(w, http.StatusNotFound, object{"detail": "Not Found"})
	})
	p.handleJSON("/version", func() any { return object{"version": version} })
	p.mux.HandleFunc("GET /health", answerOK)
	p.mux.HandleFunc("GET /metrics", p.writeVLLMMetrics)
}

func (p *statusPages) routeSGLang() {
	p.mux.HandleFunc("GET /health", answerOK)
	p.mux.HandleFunc("GET /health_generate", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
		defer cancel()
		if p.engine.Run(ctx, 1, 1) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})

	p.handleJSON("/get_model_info", func() any {
		return object{"model_path": p.cfg.modelName(), "tokenizer_path": p.cfg.modelName(), "is_generation": true}
	})

	info := func() any {
		cfg := p.engine.currentConfig()

		return object{
			"version":              version,
			"model_path":           p.cfg.modelName(),
			"served_model_name":    p.cfg.modelName(),
			"context_length":       p.cfg.contextLength(),
			"max_running_requests": cfg.Slots,
			"max_total_num_tokens": cfg.KV,
			"internal_states": []object{{"memory_usage": object{
				"weight": float64(weightBytes) / (1 << 30), "kvcache": float64(cfg.KV*tokenBytes) / (1 << 30),
			}}},
		}
	}

	p.handleJSON("/get_server_info", info)
	p.handleJSON("/server_info", info) // its newer name
	p.mux.HandleFunc("GET /metrics", p.writeSGLangMetrics)
}

func (p *statusPages) routeLlamaCPP() {
	p.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		p.respond.refuse(w, http.StatusNotFound, "not_found_error", "File Not Found")
	})

	p.handleJSON("/health", func() any { return object{"status": "ok"} })
	p.mux.HandleFunc("GET /props", func(w http.ResponseWriter, r *http.Request) {
		if p.pool != nil && !r.URL.Query().Has("model") {
			p.respond.writeJSON(w, http.StatusOK, object{
				"role":                        "router",
				"max_instances":               p.cfg.MaxLoaded,
				"models_autoload":             true,
				"model_path":                  "none",
				"build_info":                  version,
				"default_generation_settings": object{"n_ctx": 0},
			})

			return
		}

		if !p.routeToModel(w, r) {
			return
		}

		p.respond.writeJSON(w, http.StatusOK, object{
			"total_slots":                 p.engine.currentConfig().Slots,
			"model_path":                  p.cfg.modelName(),
			"build_info":                  version,
			"default_generation_settings": object{"n_ctx": p.cfg.contextLength()},
		})
	})

	p.mux.HandleFunc("GET /slots", func(w http.ResponseWriter, r *http.Request) {
		if !p.routeToModel(w, r) {
			return
		}

		slots, load := make([]object, p.engine.currentConfig().Slots), p.engine.Load()
		if load.Running >= len(slots) && r.FormValue("fail_on_no_slot") != "" {
			p.respond.refuse(w, http.StatusServiceUnavailable, "unavailable_error", "no slot available")
			return
		}

		for i := range slots {
			slots[i] = object{
				"id":            i,
				"n_ctx":         p.cfg.contextLength(),
				"speculative":   false,
				"is_processing": i < load.Running,
			}
		}

		p.respond.writeJSON(w, http.StatusOK, slots)
	})

	p.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if !p.routeToModel(w, r) {
			return
		}

		if !p.cfg.Metrics {
			p.respond.refuseFeature(w, "metrics endpoint", "--metrics")
			return
		}

		p.writeLlamaCPPMetrics(w)
	})
}

// routeToModel reports whether a question to a router can be answered by the server of a model,
// and refuses it otherwise. Unless the question has autoload=false, the model is loaded for it,
// and perhaps another unloaded (tools/server/server-models.cpp, proxy_get).
func (p *statusPages) routeToModel(w http.ResponseWriter, r *http.Request) bool {
	if p.pool == nil {
		return true
	}

	model := r.FormValue("model")
	switch {
	case model == "":
		p.respond.refuse(w, http.StatusBadRequest, "invalid_request_error", "model name is missing from the request")
		return false
	case !p.cfg.servesModel(model):
		p.respond.refuseModel(w, model)
		return false
	case r.FormValue("autoload") == "false" && p.pool.modelState(model) == "unloaded":
		p.respond.refuse(w, http.StatusBadRequest, "invalid_request_error", "model is not loaded")
		return false
	}

	m, err := p.pool.acquire(r.Context(), model)
	if err != nil {
		p.respond.refuseEvicted(w, "Could not establish connection")
		return false
	}

	p.pool.release(m)

	return true
}

func (p *statusPages) routeOllama() {
	p.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Ollama is running") })
	p.handleJSON("/api/version", func() any { return object{"version": version} })
	p.handleJSON("/api/tags", func() any {
		models := []object{}
		for _, name := range p.cfg.Models {
			models = append(models, object{"name": name, "model": name, "size": weightBytes})
		}
		return object{"models": models}
	})

	p.handleJSON("/api/ps", func() any {
		models := []object{}
		for _, name := range p.loadedModels() {
			size := weightBytes + p.engine.currentConfig().KV*tokenBytes
			models = append(models, object{
				"name":           name,
				"model":          name,
				"size":           size,
				"size_vram":      size,
				"context_length": p.cfg.contextLength(),
				"expires_at":     time.Now().Add(5 * time.Minute),
			})
		}

		return object{"models": models}
	})
}

// loadedModels returns the models that Ollama has loaded: the first, unless it loads one for
// another.
func (p *statusPages) loadedModels() (names []string) {
	switch {
	case p.loaded.isLoading() || len(p.cfg.Models) == 0:
		return nil
	case p.pool == nil:
		return p.cfg.Models[:1]
	}

	for _, name := range p.cfg.Models {
		if p.pool.modelState(name) == "loaded" {
			names = append(names, name)
		}
	}

	return names
}

// routeTensorRT: trtllm-serve returns each iteration once at /metrics, which is always too late
// here.
func (p *statusPages) routeTensorRT() {
	p.mux.HandleFunc("GET /health", answerOK)
	p.handleJSON("/version", func() any { return object{"version": version} })
	p.handleJSON("/metrics", func() any { return []object{} })
	p.mux.HandleFunc("GET /prometheus/metrics", p.writeTensorRTMetrics)
}

// routeLMStudio: a path that LM Studio does not know gets an error with a good status.
func (p *statusPages) routeLMStudio() {
	p.handleJSON("/api/v0/models", func() any {
		data := []object{}
		for _, name := range p.cfg.Models {
			card := object{
				"id":                 name,
				"object":             "model",
				"type":               "llm",
				"state":              "not-loaded",
				"max_context_length": 1 << 20,
			}
			if p.pool == nil || p.pool.modelState(name) == "loaded" {
				card["state"], card["loaded_context_length"] = "loaded", p.cfg.contextLength()
			}

			data = append(data, card)
		}

		return object{"object": "list", "data": data}
	})

	p.handleJSON("/api/v1/models", func() any {
		models := []object{}
		for _, name := range p.cfg.Models {
			instances := []object{}
			if p.pool == nil || p.pool.modelState(name) == "loaded" {
				instances = append(instances, object{
					"id": name,
					"config": object{
						"context_length": p.cfg.contextLength(),
						"parallel":       p.engine.currentConfig().Slots,
					},
				})
			}

			models = append(models, object{"type": "llm", "key": name, "loaded_instances": instances})
		}

		return object{"models": models}
	})

	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.respond.writeJSON(w, http.StatusOK, object{"error": fmt.Sprintf("Unexpected endpoint or method. (%s %s)",
			r.Method, r.URL.Path)})
	})
}

// answerOK answers with an empty body.
func answerOK(http.ResponseWriter, *http.Request) {}
