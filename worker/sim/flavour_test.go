package sim

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/worker/modelserver"
)

func TestEndpointsOfTheFlavours(t *testing.T) {
	t.Parallel()

	servers := map[Flavour]*Server{}
	for _, f := range Flavours {
		servers[f] = New(Config{Flavour: f, Models: []string{"m"}, Slots: 4, KV: 8192, Load: time.Nanosecond})
	}

	servers["metrics"] = New(Config{Flavour: LlamaCPP, Metrics: true})
	servers["router"] = New(Config{Flavour: LlamaCPP, Models: []string{"m"}, MaxLoaded: 1, Metrics: true})
	time.Sleep(time.Microsecond)

	for _, tt := range []struct {
		flavour Flavour
		path    string
		status  int
		parts   []string // of the body
	}{
		{VLLM, "/health", 200, nil},
		{VLLM, "/version", 200, []string{`"version":"promptmill-sim"`}},
		{VLLM, "/v1/models", 200, []string{`"id":"m"`, `"owned_by":"vllm"`, `"max_model_len":8192`}},
		{VLLM, "/metrics", 200, []string{
			`vllm:num_requests_running{engine="0",model_name="m"} 0`, "vllm:num_requests_waiting{",
			"vllm:kv_cache_usage_perc{",
			"vllm:num_preemptions_total{", "vllm:prompt_tokens_total{", "vllm:generation_tokens_total{",
			"vllm:request_success_total{",
			"vllm:cache_config_info{", `gpu_memory_utilization="0.9"`,
		}},
		{VLLM, "/props", 404, nil},
		{SGLang, "/health", 200, nil},
		{SGLang, "/health_generate", 200, nil},
		{SGLang, "/get_model_info", 200, []string{`"model_path":"m"`, `"is_generation":true`}},
		{SGLang, "/get_server_info", 200, []string{
			`"version":"promptmill-sim"`, `"max_running_requests":4`, `"max_total_num_tokens":8192`,
			`"internal_states":[`,
		}},
		{SGLang, "/server_info", 200, []string{`"max_running_requests":4`}},
		{SGLang, "/v1/models", 200, []string{`"owned_by":"sglang"`, `"max_model_len":8192`}},
		{SGLang, "/metrics", 200, []string{
			`sglang:num_running_reqs{model_name="m"`, "sglang:num_queue_reqs{", "sglang:token_usage{",
			"sglang:num_retracted_requests_total{", "sglang:generation_tokens_total{", "sglang:prompt_tokens_total{",
			"sglang:engine_startup_time{",
		}},
		{LlamaCPP, "/health", 200, []string{`{"status":"ok"}`}},
		{LlamaCPP, "/props", 200, []string{`"total_slots":4`, `"default_generation_settings":{"n_ctx":8192}`}},
		{LlamaCPP, "/slots", 200, []string{`{"id":3,"is_processing":false,"n_ctx":8192,"speculative":false}`}},
		{LlamaCPP, "/slots?fail_on_no_slot=1", 200, nil},
		{LlamaCPP, "/v1/models", 200, []string{`"owned_by":"llamacpp"`, `"n_ctx_train":`, `"size":`, `"n_params":`}},
		{LlamaCPP, "/metrics", 501, []string{`"type":"not_supported_error"`}},
		{"metrics", "/metrics", 200, []string{"llamacpp:requests_processing 0\n", "llamacpp:requests_deferred 0\n",
			"llamacpp:tokens_predicted_total 0\n", "llamacpp:prompt_tokens_total 0\n"}},
		{Ollama, "/", 200, []string{"Ollama is running"}},
		{Ollama, "/api/version", 200, []string{`"version":"promptmill-sim"`}},
		{Ollama, "/api/tags", 200, []string{`"name":"m"`, `"size":`}},
		{Ollama, "/api/ps", 200, []string{`"name":"m"`, `"size_vram":`, `"context_length":8192`, `"expires_at":`}},
		{Ollama, "/v1/models", 200, []string{`"owned_by":"library"`}},
		{Ollama, "/metrics", 404, nil},
		{TensorRT, "/v1/models", 200, []string{`"owned_by":"tensorrt_llm"`}},
		{TensorRT, "/version", 200, []string{`"version":"promptmill-sim"`}},
		{TensorRT, "/metrics", 200, []string{"[]"}},
		{TensorRT, "/prometheus/metrics", 200, []string{
			`trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 0`, "trtllm_num_requests_waiting{",
		}},
		{LMStudio, "/v1/models", 200, []string{`"owned_by":"organization_owner"`}},
		{LMStudio, "/api/v0/models", 200, []string{`"state":"loaded"`, `"loaded_context_length":8192`}},
		{LMStudio, "/api/v1/models", 200, []string{`"parallel":4`}},
		{LMStudio, "/metrics", 200, []string{`{"error":"Unexpected endpoint or method. (GET /metrics)"}`}},
		{"router", "/v1/models", 200, []string{`"status":{"args":[],"value":"unloaded"}`}},
		{"router", "/props", 200, []string{`"role":"router"`, `"max_instances":1`}},
		{"router", "/metrics", 400, []string{"model name is missing from the request"}},
		{"router", "/slots", 400, []string{"model name is missing from the request"}},
		{"router", "/metrics?model=m&autoload=false", 400, []string{"model is not loaded"}},
		{"router", "/metrics?model=x&autoload=false", 400, []string{"model 'x' not found"}},
		{Plain, "/v1/models", 200, []string{`"id":"m"`}},
		{Plain, "/", 404, nil},
		{Plain, "/health", 404, nil},
		{Plain, "/metrics", 404, nil},
		{Plain, "/version", 404, nil},
	} {
		t.Run(string(tt.flavour)+tt.path, func(t *testing.T) {
			t.Parallel()

			w := httptest.NewRecorder()
			servers[tt.flavour].ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}

			for _, part := range tt.parts {
				if !strings.Contains(w.Body.String(), part) {
					t.Errorf("no %s in %s", part, w.Body)
				}
			}

			if want := map[bool]string{true: "llama.cpp"}[tt.flavour == LlamaCPP || tt.flavour == "metrics" ||
				tt.flavour == "router"]; w.Header().Get("Server") != want {
				t.Errorf("server %q", w.Header().Get("Server"))
			}
		})
	}
}

func TestRefusalsOfTheFlavours(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("x", 400)
	for _, tt := range []struct {
		name      string
		flavour   Flavour
		body      string
		status    int
		error     string // the whole body; "" for a good answer
		tokens, n int    // of a good answer: prompt and completion
	}{
		{"another model", VLLM, `{"model":"n"}`, 404,
			`{"error":{"code":404,"message":"The model ` + "`n`" +
				` does not exist. Valid aliases: m, tagged:latest.","param":"model","type":"NotFoundError"}}`, 0, 0},
		{"another model", SGLang, `{"model":"n"}`, 404,
			`{"code":404,"message":"The model ` + "`n`" +
				` does not exist.","object":"error","param":null,"type":"NotFoundError"}`, 0, 0},
		{"another model, which it does not look at", LlamaCPP, `{"model":"n","max_tokens":5}`, 200, "", 1, 5},
		{"another model", Ollama, `{"model":"n"}`, 404,
			`{"error":{"code":null,"message":"model \"n\" not found, try pulling it first","param":null,"type":"not_found_error"}}`,
			0, 0},
		{"the latest of a model", Ollama, `{"model":"tagged","max_tokens":5}`, 200, "", 1, 5},
		{"a long prompt", VLLM, `{"model":"m","prompt":"` + long + `"}`, 400,
			`{"error":{"code":400,"message":"This model's maximum context length is 64 tokens. However, your prompt contains at least 65 input tokens, ` +
				`which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=65)",` +
				`"param":"input_tokens","type":"BadRequestError"}}`, 0, 0},
		{"a very long prompt", VLLM, `{"model":"m","prompt":"` + long + long + `"}`, 400,
			`{"error":{"code":400,"message":"This model's maximum context length is 64 tokens. However, your prompt contains 800 characters (more than 640 characters, ` +
				`which is the upper bound for 64 input tokens). Please reduce the length of the input prompt. (parameter=input_text, value=800)",` +
				`"param":"input_text","type":"BadRequestError"}}`, 0, 0},
		{"an answer longer than the context", VLLM, `{"model":"m","prompt":"a","max_tokens":65}`, 400,
			`{"error":{"code":400,"message":"max_tokens=65 cannot be greater than max_model_len=64. Please request fewer output tokens. (parameter=max_tokens, value=65)",` +
				`"param":"max_tokens","type":"BadRequestError"}}`, 0, 0},
		{"a long answer is cut", VLLM, `{"model":"m","prompt":"a","max_tokens":64}`, 200, "", 1, 63},
		{"a long prompt", Plain, `{"model":"m","prompt":"` + long + `"}`, 400,
			`{"error":{"code":400,"message":"This model's maximum context length is 64 tokens. However, you requested 100 tokens ` +
				`(100 in the messages, 0 in the completion). Please reduce the length of the messages or completion.","param":null,"type":"BadRequestError"}}`,
			0, 0},
		{"a long answer", Plain, `{"model":"m","prompt":"a","max_tokens":64}`, 400,
			`{"error":{"code":400,"message":"This model's maximum context length is 64 tokens. However, you requested 65 tokens ` +
				`(1 in the messages, 64 in the completion). Please reduce the length of the messages or completion.","param":null,"type":"BadRequestError"}}`,
			0, 0},
		{"an answer that just fits", VLLM, `{"model":"m","prompt":"a","max_tokens":63}`, 200, "", 1, 63},
		{"an answer without a limit is cut", VLLM, `{"model":"m","prompt":"a"}`, 200, "", 1, 63},
		{"a long prompt", SGLang, `{"model":"m","prompt":"` + long + `"}`, 400,
			`{"code":400,"message":"The input (100 tokens) is longer than the model's context length (64 tokens).","object":"error","param":null,"type":"BadRequestError"}`,
			0, 0},
		{"a long answer", SGLang, `{"model":"m","prompt":"a","max_tokens":63}`, 400,
			`{"code":400,"message":"Requested token count exceeds the model's maximum context length of 64 tokens. You requested a total of 64 tokens: ` +
				`1 tokens from the input messages and 63 tokens for the completion.","object":"error","param":null,"type":"BadRequestError"}`,
			0, 0},
		{"a long prompt", LlamaCPP, `{"model":"m","prompt":"` + long + `"}`, 400,
			`{"error":{"code":400,"message":"request (100 tokens) exceeds the available context size (64 tokens), try increasing it",` +
				`"n_ctx":64,"n_prompt_tokens":100,"type":"exceed_context_size_error"}}`, 0, 0},
		{"a long answer is cut", LlamaCPP, `{"model":"m","prompt":"a","max_tokens":64}`, 200, "", 1, 63},
		{"a long prompt is cut", Ollama, `{"model":"m","prompt":"` + long + `"}`, 200, "", 63, 1},
	} {
		t.Run(string(tt.flavour)+" "+tt.name, func(t *testing.T) {
			t.Parallel()

			s := New(Config{Flavour: tt.flavour, Models: []string{"m", "tagged:latest"}, KV: 64, Tokens: 1000})
			w := post(t.Context(), s, "/v1/completions", tt.body)
			if w.Code != tt.status {
				t.Fatalf("status %d, %s", w.Code, w.Body)
			}

			if tt.error != "" {
				// Compared as text, so that the difference is shown.
				if diff := cmp.Diff(tt.error, w.Body.String()); diff != "" {
					t.Errorf("body (-want +got):\n%s", diff)
				}
				return
			}

			var got struct {
				Choices []struct {
					Finish string `json:"finish_reason"`
				}
				Usage struct {
					Prompt     int `json:"prompt_tokens"`
					Completion int `json:"completion_tokens"`
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}

			if got.Usage.Prompt != tt.tokens || got.Usage.Completion != tt.n || got.Choices[0].Finish != "length" {
				t.Errorf("%s: want %d and %d tokens, cut", w.Body, tt.tokens, tt.n)
			}
		})
	}
}

func TestAFullQueueOfTheFlavours(t *testing.T) {
	t.Parallel()

	for flavour, want := range map[Flavour]string{
		VLLM:     `503 {"error":{"code":503,"message":"server busy, please try again","param":null,"type":"ServiceUnavailableError"}}`,
		SGLang:   `503 {"code":503,"message":"The request queue is full.","object":"error","param":null,"type":"ServiceUnavailable"}`,
		LlamaCPP: ``,
		Ollama:   `503 {"error":{"code":null,"message":"server busy, please try again.  maximum pending requests exceeded","param":null,"type":"api_error"}}`,
		Plain:    `429 {"error":{"code":429,"message":"too many requests","param":null,"type":"rate_limit_exceeded"}}`,
	} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				s := New(Config{Flavour: flavour, Slots: 1, Queue: 1, TTFT: time.Second})
				var clients sync.WaitGroup
				var refused []string
				var mu sync.Mutex
				for range 3 {
					clients.Go(func() {
						if w := post(t.Context(), s, chat, `{"model":"m"}`); w.Code != http.StatusOK {
							mu.Lock()
							refused = append(refused, http.StatusText(w.Code)+" "+w.Body.String())
							mu.Unlock()
						}
					})
				}

				clients.Wait()

				var all []string
				if want != "" {
					status, body, _ := strings.Cut(want, " ")
					all = []string{map[string]string{"503": "Service Unavailable", "429": "Too Many Requests"}[status] +
						" " + body}
				}

				if diff := cmp.Diff(all, refused); diff != "" {
					t.Errorf("refused (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestLoading(t *testing.T) {
	t.Parallel()

	// status returns the status of an answer, or that the connection was reset.
	status := func(s *Server, method, path string) (status int, body string) {
		defer func() {
			if recover() != nil {
				status, body = 0, "reset"
			}
		}()

		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(`{"model":"m"}`)))

		return w.Code, w.Body.String()
	}
	for _, flavour := range Flavours {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				s := New(Config{Flavour: flavour, Models: []string{"m"}, Load: time.Minute})
				code, body := status(s, http.MethodGet, "/v1/models")
				switch flavour {
				case LlamaCPP:
					if code != 503 ||
						body != `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}` {
						t.Errorf("status %d, %s", code, body)
					}
				case Ollama:
					if _, loaded := status(s, http.MethodGet, "/api/ps"); code != 200 || loaded != `{"models":[]}` {
						t.Errorf("status %d, %s; loaded %s", code, body, loaded)
					}
				default:
					if body != "reset" {
						t.Errorf("status %d, %s", code, body)
					}
				}

				if flavour.ListensWhileLoading() != (body != "reset") {
					t.Error("it listens and does not, while it loads")
				}

				begin := time.Now()
				if flavour != Ollama {
					time.Sleep(time.Minute)
				} else {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					post(ctx, s, chat, `{"model":"m"}`) // and leave
				}

				if code, body = status(s, http.MethodPost, chat); code != 200 || time.Since(begin) != time.Minute {
					t.Errorf("status %d after %v: %s", code, time.Since(begin), body)
				}
			})
		})
	}
}

func TestModelserverRecognizesTheFlavours(t *testing.T) {
	t.Parallel()

	for flavour, want := range map[Flavour]string{
		VLLM: "vLLM", SGLang: "SGLang", LlamaCPP: "llama.cpp", Ollama: "Ollama", Plain: "OpenAI-compatible",
	} {
		t.Run(string(flavour), func(t *testing.T) {
			t.Parallel()

			for _, models := range [][]string{{"m"}, nil} {
				s := httptest.NewServer(New(Config{Flavour: flavour, Models: models, Metrics: true}))
				defer s.Close()

				client, err := modelserver.New(s.URL, "")
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()

				info, err := client.Probe(t.Context())
				if err != nil || info.Flavour != want {
					t.Errorf("%s, %v; want %s", info.Flavour, err, want)
				}

				if _, err := client.Load(t.Context()); (err == nil) != (flavour != Ollama && flavour != Plain) {
					t.Errorf("load: %v", err)
				}
			}
		})
	}
}
