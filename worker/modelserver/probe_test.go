package modelserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestProbe(t *testing.T) {
	t.Parallel()

	qwen := []Model{{"Qwen/Qwen3-8B", 40960, 0, ""}, {"adapter", 0, 0, ""}}
	llama := []Model{{"qwen", 8192, 2492680192, ""}, {"q", 8192, 2492680192, "qwen"}}
	for _, tt := range []struct {
		name   string
		server *fake
		want   Info
	}{
		{"vLLM", newVLLM(t), Info{
			Flavour:              "vLLM",
			Version:              "0.29.0",
			Models:               qwen,
			Engines:              2,
			WeightBytes:          32e9,
			GPUMemoryUtilization: 0.92,
		}},
		{"vLLM with the required pages only", without(newVLLM(t), "/version", "/metrics"),
			Info{Flavour: "vLLM", Models: qwen}},
		{"vLLM behind something that renames its models", with(newVLLM(t), "/v1/models", reply{body: otherModels}),
			Info{
				Flavour:              "vLLM",
				Version:              "0.29.0",
				Models:               []Model{{ID: "gpt"}},
				Engines:              2,
				WeightBytes:          32e9,
				GPUMemoryUtilization: 0.92,
			}},
		{"SGLang", newSGLang(t), Info{
			Flavour: "SGLang", Version: "0.5.9", Models: []Model{{ID: "m", ContextLength: 32768}},
			Engines: 2, LoadSeconds: 6.1, WeightBytes: 3 << 29, CacheBytes: 1 << 28,
		}},
		{"an older SGLang without metrics",
			with(without(newSGLang(t), "/server_info", "/metrics"), "/get_server_info", reply{body: sglangInfo}), Info{
				Flavour:     "SGLang",
				Version:     "0.5.9",
				Models:      []Model{{ID: "m", ContextLength: 32768}},
				WeightBytes: 3 << 29,
				CacheBytes:  1 << 28,
			}},
		{"SGLang whose scheduler fails to answer",
			with(newSGLang(t), "/server_info", reply{500, "Internal Server Error"}),
			Info{Flavour: "SGLang", Models: []Model{{ID: "m", ContextLength: 32768}}, Engines: 2, LoadSeconds: 6.1}},
		{"llama.cpp", newLlamaCPP(t), Info{Flavour: "llama.cpp", Version: "b8681-Debian", Models: llama, Slots: 4}},
		{"an older llama.cpp, whose list has no context", with(newLlamaCPP(t), "/v1/models",
			reply{body: `{"object":"list","data":[{"id":"/models/q.gguf","object":"model","created":1,"owned_by":"llamacpp","meta":{"n_ctx_train":40960,"size":5}}]}`}),
			Info{
				Flavour: "llama.cpp",
				Version: "b8681-Debian",
				Models:  []Model{{"/models/q.gguf", 8192, 5, ""}},
				Slots:   4,
			}},
		{"llama.cpp with a model not loaded", with(newLlamaCPP(t), "/v1/models",
			reply{body: `{"object":"list","data":[{"id":"a","object":"model","owned_by":"llamacpp","created":1,"status":{"value":"unloaded"}},{"id":"b","owned_by":"llamacpp","meta":null}]}`}),
			Info{
				Flavour: "llama.cpp",
				Version: "b8681-Debian",
				Models:  []Model{{ID: "a", ContextLength: 8192}, {ID: "b", ContextLength: 8192}},
				Slots:   4,
			}},
		{"llama.cpp under another owner",
			with(without(newLlamaCPP(t), "/props"), "/v1/models", reply{body: otherModels}),
			Info{Flavour: "llama.cpp", Models: []Model{{ID: "gpt"}}}},
		{"Ollama", newOllama(t), Info{
			Flavour:   "Ollama",
			Version:   "0.20.1",
			GPUBytes:  3e9,
			Notes:     ollamaNotes,
			MaxLoaded: 1,
			Loaded:    []string{"llama3.2:latest"},
			Models: []Model{
				{"llama3.2:latest", 4096, 2019393189, ""},
				{"hf.co/unsloth/Qwen3:Q4_K_M", 0, 2500000000, ""},
				{"llama3.2", 4096, 2019393189, "llama3.2:latest"},
			},
		}},
		{"Ollama with a model of a user called vllm",
			with(without(newOllama(t), "/api/tags", "/api/ps"), "/v1/models",
				reply{body: `{"object":"list","data":[{"id":"vllm/x:1","owned_by":"vllm"},{"id":"y:1","owned_by":"library"}]}`}),
			Info{
				Flavour:   "Ollama",
				Version:   "0.20.1",
				Models:    []Model{{ID: "vllm/x:1"}, {ID: "y:1"}},
				Notes:     ollamaNotes,
				MaxLoaded: 1,
			}},
		{"Ollama with no models has none",
			with(newOllama(t), "/v1/models", reply{body: `{"object":"list","data":null}`}),
			Info{Flavour: "Ollama", Version: "0.20.1", Models: []Model{}, GPUBytes: 3e9, Notes: ollamaNotes}},
		{"another server", &fake{replies: map[string]reply{"/v1/models": {body: otherModels}}},
			Info{Flavour: "OpenAI-compatible", Models: []Model{{ID: "gpt"}}}},
		{"another server that says OK to everything", &fake{replies: map[string]reply{
			"/v1/models": {body: otherModels}, "/metrics": {body: page404}, "/api/version": {body: page404},
		}}, Info{Flavour: "OpenAI-compatible", Models: []Model{{ID: "gpt"}}}},
		{"another server with an empty list takes any model",
			&fake{replies: map[string]reply{"/v1/models": {body: `{"object":"list","data":[]}`}}},
			Info{Flavour: "OpenAI-compatible"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := serve(t, tt.server)
			for range 2 { // the second is of a known server
				info, err := s.Probe(t.Context())
				if err != nil {
					t.Fatal(err)
				}

				if diff := cmp.Diff(tt.want, info); diff != "" {
					t.Errorf("info (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// A server that can list no models and fails an empty request is asked for a model that is named.
func TestProbeTriesModel(t *testing.T) {
	t.Parallel()

	fails := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "dead", http.StatusServiceUnavailable) }
	for _, tt := range []struct {
		name, model string
		answer      http.HandlerFunc // to a whole request
		away        bool
		message     string
	}{
		{"it answers", "m", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }, false,
			"status 500 Internal Server Error: oops; but it answers requests"},
		{"it refuses", "m", http.NotFound, false, "but it answers requests"},
		{"it takes longer than the question", "m", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			false, "but it answers requests"},
		{"it fails", "m", fails, true, "and a request fails: status 503 Service Unavailable: dead"},
		{"no model is named", "", fails, true, "and a request fails: status 500 Internal Server Error: oops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if string(body) == `{"model":"m","messages":[{"role":"user","content":"1"}],"max_tokens":1}` {
					tt.answer(w, r)
				} else {
					http.Error(w, "oops", http.StatusInternalServerError)
				}
			}))
			t.Cleanup(server.Close)

			s, err := New(server.URL, "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			if tt.model != "" {
				s.TryModel(tt.model)
			}

			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()

			_, err = s.Probe(ctx)
			if errors.Is(err, ErrUnreachable) != tt.away || errors.Is(err, ErrFailing) != tt.away ||
				!strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestProbeFails(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name             string
		server           *fake
		away, loading    bool
		flavour, message string
	}{
		{"llama.cpp loads", &fake{header: "llama.cpp", replies: map[string]reply{"/v1/models": {503, llamaLoading}}},
			true, true, "llama.cpp", "loads"},
		{"an older llama.cpp loads, but lists its model", with(newLlamaCPP(t), "/props", reply{503, llamaLoading}),
			true, true, "llama.cpp", "loads"},
		{"the engine behind vLLM's front end has died", with(newVLLM(t), "/health", reply{503, ""}), true, false,
			"vLLM", "/health returned status 503"},
		{"a proxy misses its server", &fake{replies: map[string]reply{"/v1/models": {502, page404}}}, true, false, "",
			"502 Bad Gateway"},
		{"a proxy says later", &fake{replies: map[string]reply{"/v1/models": {503, page404}}}, true, false, "", "503"},
		{"its list fails, and requests do not", &fake{replies: map[string]reply{"/v1/models": {500, "oops"}}}, false,
			false, "OpenAI-compatible", "status 500 Internal Server Error: oops; but it answers requests"},
		{"all of it fails", &fake{replies: map[string]reply{
			"/v1/models":           {500, "oops"},
			"/v1/chat/completions": {500, "oops"},
		}}, true, false, "",
			"status 500 Internal Server Error: oops; and a request fails: status 500 Internal Server Error: oops"},
		{"no list", &fake{}, false, false, "OpenAI-compatible", "404 Not Found"},
		{"the key is wrong", with(newVLLM(t), "/v1/models", reply{401, `{"error":"Unauthorized"}`}), false, false,
			"OpenAI-compatible", "401"},
		{"a redirect", &fake{replies: map[string]reply{"/v1/models": {307, ""}}}, false, false,
			"OpenAI-compatible", "307"},
		{"a web page", &fake{replies: map[string]reply{"/v1/models": {200, page404}}}, false, false,
			"OpenAI-compatible", "it answers text/html, not JSON: is it a model server?"},
		{"other JSON", &fake{replies: map[string]reply{"/v1/models": {200, `{"status":"ok"}`}}}, false, false,
			"OpenAI-compatible", "its answer is JSON, but not a list of models"},
		{"a JSON list", &fake{replies: map[string]reply{"/v1/models": {200, `[]`}}}, false, false, "OpenAI-compatible",
			"its answer is JSON, but not a list of models"},
		{"a list of other things", &fake{replies: map[string]reply{"/v1/models": {200, `{"data":[{"name":"x"}]}`}}},
			false, false, "OpenAI-compatible", "without an id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			info, err := serve(t, tt.server).Probe(t.Context())
			if err == nil {
				t.Fatal("there is no error")
			}
			if errors.Is(err, ErrUnreachable) != tt.away || errors.Is(err, ErrLoading) != tt.loading ||
				!strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %v", err)
			}

			if info.Flavour != tt.flavour {
				t.Errorf("flavour %q, want %q", info.Flavour, tt.flavour)
			}
		})
	}
}

func TestProbeOfNothing(t *testing.T) {
	t.Parallel()

	gone := httptest.NewServer(nil)
	gone.Close()

	s := connect(t, gone.URL, "")
	if _, err := s.Probe(t.Context()); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrLoading) ||
		s.Flavour() != "" {
		t.Errorf("error %v, flavour %q", err, s.Flavour())
	}
}

// A server that fails to list its models keeps its flavour.
func TestFailedListKeepsFlavour(t *testing.T) {
	t.Parallel()

	server := newVLLM(t)
	s := serve(t, server)
	if _, err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}

	server.set("/v1/models", reply{403, "no"})
	if info, err := s.Probe(t.Context()); err == nil || errors.Is(err, ErrUnreachable) || info.Flavour != "vLLM" ||
		s.Flavour() != "vLLM" {
		t.Errorf("%+v, %v", info, err)
	}

	if _, err := s.Load(t.Context()); err != nil {
		t.Errorf("its load: %v", err)
	}
}

// Another server may come behind the URL, between two probes or after a time of silence.
func TestServerBecomesAnother(t *testing.T) {
	t.Parallel()

	for _, silence := range []bool{false, true} {
		server := newVLLM(t)
		s := serve(t, server)
		look := func(want string) {
			t.Helper()
			if info, err := s.Probe(t.Context()); err != nil || info.Flavour != want {
				t.Fatalf("%+v, %v, want %s", info, err, want)
			}
		}

		look("vLLM")
		if silence {
			server.set("/v1/models", reply{502, ""})
			if _, err := s.Probe(t.Context()); !errors.Is(err, ErrUnreachable) {
				t.Errorf("error %v", err)
			}

			// Its list looks the same; only its gauges differ.
			server.set("/v1/models", reply{body: otherModels})
			server.set("/metrics", reply{body: golden(t, "llamacpp.txt")})
			look("llama.cpp")
			server.set("/v1/models", reply{502, ""})
			s.Probe(t.Context())
			server.set("/v1/models", reply{body: otherModels})
			server.set("/metrics", reply{body: golden(t, "vllm.txt")})
			look("vLLM")
		}

		server.set("/v1/models", reply{body: llamaModels})
		server.set("/metrics", reply{body: golden(t, "llamacpp.txt")})
		look("llama.cpp")

		if load, err := s.Load(t.Context()); err != nil || load.Running != 4 {
			t.Errorf("load %+v, %v", load, err)
		}

		server.set("/v1/models", reply{body: ollamaModels})
		look("Ollama")
	}
}

// A server that was too busy to show its flavour is probed again.
func TestBusyServerIsRecognisedLater(t *testing.T) {
	t.Parallel()

	server := with(with(newVLLM(t), "/v1/models", reply{body: otherModels}), "/metrics", reply{500, ""})
	s := serve(t, server)
	for _, want := range []string{"OpenAI-compatible", "vLLM"} {
		if info, err := s.Probe(t.Context()); err != nil || info.Flavour != want {
			t.Errorf("%+v, %v, want %s", info, err, want)
		}
		server.set("/metrics", reply{body: golden(t, "vllm.txt")})
	}
}

// A server is asked once for the signs that it does not have.
func TestProbeAsksLittle(t *testing.T) {
	t.Parallel()

	server := &fake{replies: map[string]reply{"/v1/models": {body: otherModels}}}
	s := serve(t, server)
	for i := range 5 {
		if _, err := s.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := server.count("/metrics") + server.count("/api/version"); i > 0 && n != 0 {
			t.Errorf("look %d asks %d things that the server does not have", i, n)
		}
	}

	sglang := newSGLang(t)
	s = serve(t, sglang)
	s.Probe(t.Context())
	if n := sglang.count("/health") + sglang.count("/health_generate"); n != 0 {
		t.Errorf("SGLang was asked for its health %d times", n)
	}
}

func TestKeyIsSent(t *testing.T) {
	t.Parallel()

	server := newVLLM(t)
	h := httptest.NewServer(server)
	t.Cleanup(h.Close)
	s := connect(t, h.URL, "sesame")
	s.Probe(t.Context())
	s.Load(t.Context())
	s.Post(t.Context(), "/v1/chat/completions", []byte("{}"))
	if diff := cmp.Diff(map[string]bool{"Bearer sesame": true}, server.keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// FuzzList must neither panic, nor accept a list without names.
func FuzzList(f *testing.F) {
	for _, seed := range []string{
		vllmModels, sglangModels, llamaModels, ollamaModels, otherModels, `{"data":null}`, `{}`, page404,
	} {
		f.Add([]byte(seed))
	}

	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := parseModelList(body)
		if err != nil {
			return
		}

		for _, m := range list.toModels() {
			if m.ID == "" || m.ContextLength < 0 || m.SizeBytes < 0 {
				t.Errorf("model %+v", m)
			}
		}
	})
}

// A list that does not come shows nothing about the requests. The wait for it is bounded.
func TestListHangs(t *testing.T) {
	t.Parallel()

	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			<-r.Context().Done()
		}
	}))

	ctx, cancel := context.WithTimeout(t.Context(), 2*probeTimeout)
	defer cancel()

	if _, err := s.Probe(ctx); err == nil || errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
		t.Errorf("error %v", err)
	}
}

func TestDefault(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, list, owner, want string }{
		{"one", `{"id":"m"}`, "x", "m"},
		{"two", `{"id":"m"},{"id":"n"}`, "x", ""},
		{"none", ``, "x", ""},
		{"a pattern", `{"id":"openai/*"}`, "x", ""},
		{"several names of vLLM", `{"id":"a","root":"/m"},{"id":"b","root":"/m"}`, "vllm", "a"},
		{"several names and an adapter",
			`{"id":"a","root":"/m"},{"id":"b","root":"/m"},{"id":"l","root":"/l","parent":"a"}`, "vllm", ""},
		{"no root", `{"id":"a","root":null},{"id":"b","root":null}`, "x", ""},
		{"llama.cpp's aliases", `{"id":"a","aliases":["a","b","c"]}`, "llamacpp", "a"},
		{"one that is listed twice", `{"id":"m"},{"id":"m"}`, "x", "m"},
		{"one without an id", `{"id":null},{"id":"m"},{"id":""}`, "x", "m"},
		{"an entry that is null", `null,{"id":"m"}`, "x", "m"},
		{"aliases twice, and null", `{"id":"a","aliases":["b",null,"b"]}`, "llamacpp", "a"},
		{"an alias that is listed as well", `{"id":"a","aliases":["b"]},{"id":"b"}`, "llamacpp", "a"},
		{"Ollama's latest", `{"id":"llama3:latest"}`, "library", "llama3:latest"},
		{"two of Ollama's", `{"id":"llama3:latest"},{"id":"llama3:8b"}`, "library", ""},
	} {
		list := strings.ReplaceAll(tt.list, `"id"`, fmt.Sprintf(`"owned_by":%q,"id"`, tt.owner))
		info, err := serve(t, &fake{replies: map[string]reply{"/v1/models": {200, `{"data":[` + list + `]}`}}}).
			Probe(t.Context())
		if err != nil || info.DefaultModel() != tt.want {
			t.Errorf("%s: %q, %v", tt.name, info.DefaultModel(), err)
		}

		names := slices.Sorted(slices.Values(info.ModelNames()))
		if once := slices.Compact(slices.Clone(names)); len(once) != len(names) || slices.Contains(names, "") {
			t.Errorf("%s: names %q", tt.name, names)
		}
	}
}

func TestSlotsNote(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		info Info
		want string
	}{
		{Info{Flavour: "llama.cpp", Slots: 4}, "runs 4 requests at once"},
		{Info{Flavour: "llama.cpp", Slots: 32}, ""},
		{Info{Flavour: "llama.cpp"}, ""},
		{Info{Flavour: "vLLM", Slots: 4}, ""},
	} {
		if got := tt.info.SlotsNote(); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%+v: %q, want %q in it", tt.info, got, tt.want)
		}
	}
}
