package modelserver

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Answers of other servers, shortened where they are long.
const (
	tensorRTModels = `{"object":"list","data":[{"id":"m","object":"model","created":1758500000,"owned_by":"tensorrt_llm"}]}`
	dynamoModels   = `{"object":"list","data":[{"id":"m","object":"object","created":1758500000,"owned_by":"nvidia"},{"id":"n","object":"object","created":1758500000,"owned_by":"nvidia"}]}`
	lmDeployModels = `{"object":"list","data":[{"id":"m","object":"model","created":1758500000,"owned_by":"lmdeploy","root":"m","parent":null}]}`
	tgiModels      = `{"object":"list","data":[{"id":"org/m","object":"model","created":0,"owned_by":"org/m"}]}`
	tgiInfo        = `{"model_id":"org/m","model_sha":"a8","max_concurrent_requests":128,"max_input_tokens":4095,"max_total_tokens":4096,"version":"3.3.6","sha":null}`
	studioModels   = `{"data":[{"id":"a","object":"model","owned_by":"organization_owner"},{"id":"b","object":"model","owned_by":"organization_owner"}],"object":"list"}`
	studioStates   = `{"object":"list","data":[{"id":"a","object":"model","type":"llm","state":"not-loaded","max_context_length":32768},` +
		`{"id":"b","object":"model","type":"llm","state":"loaded","max_context_length":131072,"loaded_context_length":8192}]}`
	studioV1 = `{"models":[{"type":"llm","key":"a","loaded_instances":[]},{"type":"llm","key":"b","loaded_instances":[{"id":"b","config":{"context_length":8192,"parallel":4}}]}]}`
	// studioUnknown comes with status 200.
	studioUnknown = `{"error":"Unexpected endpoint or method. (GET /metrics)"}`
	swapModels    = `{"data":[{"id":"a","object":"model","created":1758500000,"owned_by":"llama-swap","status":{"value":"loaded"},"meta":{"n_ctx":4096}},` +
		`{"id":"b","object":"model","created":1758500000,"owned_by":"llama-swap","status":{"value":"unloaded"}}],"object":"list"}`
	swapOldModels = `{"data":[{"id":"a","object":"model","created":1758500000,"owned_by":"llama-swap"},{"id":"b","object":"model","created":1758500000,"owned_by":"llama-swap"}],"object":"list"}`
	swapRunning   = `{"running":[{"model":"a","state":"starting","cmd":"llama-server","proxy":"http://127.0.0.1:5800","ttl":0},{"model":"b","state":"ready","ttl":0}]}`
	koboldModels  = `{"object":"list","data":[{"id":"koboldcpp/m","object":"model","created":1,"owned_by":"koboldcpp","permission":[],"root":"koboldcpp"}]}`
	routerProps   = `{"role":"router","max_instances":1,"models_autoload":true,"model_alias":"llama-server","model_path":"none","default_generation_settings":{"params":null,"n_ctx":0},"build_info":"b11434-0"}`
	routerModels  = `{"data":[{"id":"a","aliases":[],"object":"model","owned_by":"llamacpp","created":1,"status":{"value":"loaded","args":["llama-server"]},"meta":{"n_ctx":8192,"size":5}},` +
		`{"id":"b/c","aliases":["c"],"object":"model","owned_by":"llamacpp","created":1,"status":{"value":"unloaded","args":[]}},` +
		`{"id":"d","aliases":[],"object":"model","owned_by":"llamacpp","created":1,"status":{"value":"loading","args":[]}}],"object":"list"}`
	routerNoModel  = `{"error":{"code":400,"message":"model name is missing from the request","type":"invalid_request_error"}}`
	routerUnloaded = `{"error":{"code":400,"message":"model is not loaded","type":"invalid_request_error"}}`
)

func newRouter(t testing.TB) *fake {
	return &fake{header: "llama.cpp", replies: map[string]reply{
		"/v1/models":                          {body: routerModels},
		"/props":                              {body: routerProps},
		"/props?model=a&autoload=false":       {body: llamaPropsBody},
		"/metrics":                            {400, routerNoModel},
		"/metrics?model=a&autoload=false":     {body: golden(t, "llamacpp.txt")},
		"/metrics?model=b%2Fc&autoload=false": {400, routerUnloaded},
	}}
}

func newTensorRT(t testing.TB) *fake {
	return &fake{header: "uvicorn", replies: map[string]reply{
		"/v1/models":        {body: tensorRTModels},
		"/version":          {body: `{"version":"1.2.0"}`},
		"/metrics":          {body: `[{"iter":1,"numActiveRequests":3}]`},
		tensorRTMetricsPath: {body: golden(t, "tensorrt.txt")},
	}}
}

func newStudio(testing.TB) *fake {
	return &fake{
		replies: map[string]reply{
			"/v1/models":        {body: studioModels},
			"/api/v0/models":    {body: studioStates},
			"/api/v1/models":    {body: studioV1},
			"/metrics":          {body: studioUnknown},
			"/api/version":      {body: studioUnknown},
			"/engine_metrics":   {body: studioUnknown},
			tensorRTMetricsPath: {body: studioUnknown},
		},
		types: map[string]string{"/metrics": "application/json; charset=utf-8"},
	}
}

// Each server is recognized and described.
func TestServers(t *testing.T) {
	t.Parallel()

	named := func(models ...string) (list []Model) {
		for _, id := range models {
			list = append(list, Model{ID: id})
		}
		return list
	}
	for _, tt := range []struct {
		name   string
		server *fake
		info   Info
		load   Load  // if err is nil
		err    error // of the load
	}{
		{"TensorRT-LLM", newTensorRT(t), Info{Flavour: "TensorRT-LLM", Version: "1.2.0", Models: named("m")},
			Load{Running: 16, Waiting: 3, KVUsage: 0.25, Preemptions: -1, Tokens: 2560, PromptTokens: 4000}, nil},
		{"TensorRT-LLM without its page", without(newTensorRT(t), tensorRTMetricsPath),
			Info{Flavour: "TensorRT-LLM", Version: "1.2.0", Models: named("m")}, Load{}, ErrNoGauges},
		{"Dynamo", &fake{replies: map[string]reply{
			"/v1/models": {body: dynamoModels},
			"/metrics":   {body: golden(t, "dynamo.txt")},
		}},
			Info{Flavour: "Dynamo", Models: named("m", "n")},
			Load{Running: 15, KVUsage: -1, Preemptions: -1, Tokens: 1000, PromptTokens: 412, Engines: "m,n"}, nil},
		{"another of NVIDIA's", &fake{replies: map[string]reply{"/v1/models": {body: dynamoModels}}},
			Info{Flavour: "OpenAI-compatible", Models: named("m", "n")}, Load{}, ErrNoGauges},
		{"LMDeploy", &fake{replies: map[string]reply{
			"/v1/models": {body: lmDeployModels},
			"/metrics":   {body: golden(t, "lmdeploy.txt")},
		}},
			Info{Flavour: "LMDeploy", Models: named("m")},
			Load{
				Running:      11,
				Waiting:      1,
				KVUsage:      0.375,
				Preemptions:  -1,
				Tokens:       300,
				PromptTokens: 100,
				Engines:      "0,1",
			}, nil},
		{"TGI", &fake{replies: map[string]reply{
			"/v1/models": {body: tgiModels},
			"/metrics":   {body: golden(t, "tgi.txt")},
			"/info":      {body: tgiInfo},
		}},
			Info{Flavour: "TGI", Version: "3.3.6", Models: []Model{{ID: "org/m", ContextLength: 4096}}},
			Load{Running: 8, Waiting: 2, KVUsage: -1, Preemptions: -1, Tokens: 840, PromptTokens: 2100}, nil},
		{"SGLang's gateway", &fake{replies: map[string]reply{
			"/v1/models":      {body: otherModels},
			"/engine_metrics": {body: golden(t, "sglang-gateway.txt")},
		}},
			Info{Flavour: "SGLang", Models: named("gpt"), Engines: 2},
			Load{
				Running:      10,
				Waiting:      2,
				KVUsage:      0.5,
				Preemptions:  -1,
				Tokens:       250,
				PromptTokens: -1,
				Engines:      "http://10.0.0.1:30000,http://10.0.0.2:30000",
				Missing:      []string{"preemptions", "prompt tokens"},
			}, nil},
		{"LM Studio", newStudio(t),
			Info{
				Flavour:   "LM Studio",
				Models:    []Model{{ID: "a"}, {ID: "b", ContextLength: 8192}},
				Loaded:    []string{"b"},
				MaxLoaded: 1,
				Slots:     4,
			}, Load{}, ErrNoGauges},
		{"LM Studio that has all of its models loaded",
			with(newStudio(t), "/api/v0/models", reply{body: strings.ReplaceAll(studioStates, "not-loaded", "loaded")}),
			Info{
				Flavour: "LM Studio",
				Models:  []Model{{ID: "a"}, {ID: "b", ContextLength: 8192}},
				Loaded:  []string{"a", "b"},
				Slots:   4,
			}, Load{}, ErrNoGauges},
		{"llama-swap", &fake{replies: map[string]reply{"/v1/models": {body: swapModels}}},
			Info{
				Flavour:   "llama-swap",
				Models:    []Model{{ID: "a", ContextLength: 4096}, {ID: "b"}},
				Loaded:    []string{"a"},
				MaxLoaded: 1,
			}, Load{}, ErrNoGauges},
		{"an older llama-swap", &fake{replies: map[string]reply{
			"/v1/models": {body: swapOldModels},
			"/running":   {body: swapRunning},
		}},
			Info{
				Flavour:   "llama-swap",
				Models:    named("a", "b"),
				Loaded:    []string{"b"},
				Loading:   true,
				MaxLoaded: 1,
			}, Load{}, ErrNoGauges},
		{"KoboldCpp, which answers as Ollama does", &fake{replies: map[string]reply{
			"/v1/models":   {body: koboldModels},
			"/api/version": {body: `{"version":"0.7.0"}`},
		}},
			Info{Flavour: "KoboldCpp", Models: named("koboldcpp/m")}, Load{}, ErrNoGauges},
		{"a router of llama.cpp", newRouter(t), Info{
			Flavour:   "llama.cpp",
			Version:   "b11434-0",
			Slots:     4,
			MaxLoaded: 1,
			Loaded:    []string{"a"},
			Loading:   true,
			Models: []Model{
				{ID: "a", ContextLength: 8192, SizeBytes: 5},
				{ID: "b/c"},
				{ID: "c", AliasOf: "b/c"},
				{ID: "d"},
			},
		}, Load{Running: 4, Waiting: 1, KVUsage: -1, Preemptions: -1, Tokens: -1, PromptTokens: -1}, nil},
		{"a router of llama.cpp that has room for all", with(newRouter(t), "/props",
			reply{body: strings.Replace(routerProps, `"max_instances":1`, `"max_instances":4`, 1)}), Info{
			Flavour: "llama.cpp",
			Version: "b11434-0",
			Slots:   4,
			Loaded:  []string{"a"},
			Loading: true,
			Models: []Model{
				{ID: "a", ContextLength: 8192, SizeBytes: 5},
				{ID: "b/c"},
				{ID: "c", AliasOf: "b/c"},
				{ID: "d"},
			},
		}, Load{Running: 4, Waiting: 1, KVUsage: -1, Preemptions: -1, Tokens: -1, PromptTokens: -1}, nil},
		{"a router of llama.cpp without --metrics",
			with(newRouter(t), "/metrics?model=a&autoload=false", reply{501, llamaNoMetrics}), Info{
				Flavour:   "llama.cpp",
				Version:   "b11434-0",
				Slots:     4,
				MaxLoaded: 1,
				Loaded:    []string{"a"},
				Loading:   true,
				Models: []Model{
					{ID: "a", ContextLength: 8192, SizeBytes: 5},
					{ID: "b/c"},
					{ID: "c", AliasOf: "b/c"},
					{ID: "d"},
				},
			}, Load{}, ErrNoGauges},
		{"a router of llama.cpp whose model was unloaded meanwhile",
			with(newRouter(t), "/metrics?model=a&autoload=false", reply{400, routerUnloaded}), Info{
				Flavour:   "llama.cpp",
				Version:   "b11434-0",
				Slots:     4,
				MaxLoaded: 1,
				Loaded:    []string{"a"},
				Loading:   true,
				Models: []Model{
					{ID: "a", ContextLength: 8192, SizeBytes: 5},
					{ID: "b/c"},
					{ID: "c", AliasOf: "b/c"},
					{ID: "d"},
				},
			}, Load{}, errNotNow},
		{"vLLM that reports waiting requests by reason alone, in OpenMetrics",
			with(newVLLM(t), "/metrics", reply{body: golden(t, "vllm-openmetrics.txt")}),
			Info{Flavour: "vLLM", Version: "0.29.0", Models: []Model{
				{ID: "Qwen/Qwen3-8B", ContextLength: 40960},
				{ID: "adapter"},
			}, Engines: 1},
			Load{
				Running:      12,
				Waiting:      5,
				KVUsage:      -1,
				Preemptions:  2,
				Tokens:       700,
				PromptTokens: -1,
				Engines:      "0",
				Missing:      []string{"KV usage", "prompt tokens"},
			}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := serve(t, tt.server)
			info, err := s.Probe(t.Context())
			if diff := cmp.Diff(tt.info, info); err != nil || diff != "" {
				t.Fatalf("%v, info (-want +got):\n%s", err, diff)
			}

			load, err := s.Load(t.Context())
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}

			if diff := cmp.Diff(tt.load, load, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("load (-want +got):\n%s", diff)
			}
		})
	}
}

// trtllm-serve returns each iteration once, to the first that asks.
func TestTensorRTKeepsItsIterations(t *testing.T) {
	t.Parallel()

	server := newTensorRT(t)
	s := serve(t, server)
	for range 2 {
		if _, err := s.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	if n := server.count("/metrics"); n > 0 {
		t.Errorf("/metrics was asked for %d times", n)
	}
}

// A router is never asked in a way that makes it load a model.
func TestRouterLoadsNothing(t *testing.T) {
	t.Parallel()

	server := newRouter(t)
	server.set("/v1/models", reply{body: strings.ReplaceAll(routerModels, `"loaded"`, `"unloaded"`)})

	s := serve(t, server)
	if info, err := s.Probe(t.Context()); err != nil || info.Slots != 0 {
		t.Errorf("%+v, %v", info, err)
	}

	if _, err := s.Load(t.Context()); !errors.Is(err, errNotNow) || errors.Is(err, ErrNoGauges) ||
		errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}

	if n := server.count("/metrics"); n > 0 {
		t.Errorf("/metrics was asked for %d times", n)
	}
}

// A page is read as metrics only if its type may be that.
func TestContentTypes(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		kind string
		good bool
	}{
		{"text/plain; version=0.0.4; charset=utf-8", true},
		{"text/plain", true},
		{"Text/Plain;version=1.0.0", true},
		{"application/openmetrics-text; version=1.0.0; charset=utf-8", true},
		{"text/html; charset=utf-8", false},
		{"application/json", false},
		{"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", false},
	} {
		server := newVLLM(t)
		server.types = map[string]string{"/metrics": tt.kind}

		s := serve(t, server)
		if _, err := s.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}

		_, err := s.Load(t.Context())
		if good := err == nil; good != tt.good ||
			!good && (!errors.Is(err, ErrNoGauges) || !strings.Contains(err.Error(), tt.kind[:9])) {
			t.Errorf("%s: %v", tt.kind, err)
		}
	}
}

// The number of models that a server can hold follows from those that it was seen to have loaded.
func TestHolds(t *testing.T) {
	t.Parallel()

	var known swapTracker
	for _, tt := range []struct {
		loaded string
		want   int
	}{
		{"", 1},
		{"a", 1},
		{"a b", 2},
		{"b", 2}, // a was not used for a while
		{"", 2},
		{"c", 2},
		{"c a", 2},
		{"d", 1}, // it made room for d
		{"a", 1},
		{"a b c", 3},
		{"a b c d", 0}, // all
	} {
		info := Info{Models: []Model{
			{ID: "a"},
			{ID: "b"},
			{ID: "c"},
			{ID: "d"},
			{ID: "alias", AliasOf: "a"},
		}, Loaded: strings.Fields(tt.loaded)}
		if got := known.observeLoaded(&info); got != tt.want {
			t.Errorf("with %q loaded it holds %d, want %d", tt.loaded, got, tt.want)
		}
	}
}

// CountsTokensAtEnd stays true after the server was away.
func TestCountsAtEndWhileAway(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		server *fake
		want   bool
	}{
		"vLLM":         {newVLLM(t), false},
		"SGLang":       {newSGLang(t), true},
		"llama.cpp":    {newLlamaCPP(t), true},
		"TensorRT-LLM": {newTensorRT(t), true},
		"Ollama":       {newOllama(t), false},
	} {
		s := serve(t, tt.server)
		if s.CountsTokensAtEnd() {
			t.Errorf("%s: before it was looked at", name)
		}

		list := tt.server.replies["/v1/models"]
		for _, models := range []reply{list, {502, ""}} {
			tt.server.set("/v1/models", models)
			s.Probe(t.Context())
			if got := s.CountsTokensAtEnd(); got != tt.want {
				t.Errorf("%s, after status %d: %v", name, models.status, got)
			}
		}
	}
}
