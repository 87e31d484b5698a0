package modelserver

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reply is the answer of a fake server at one path.
type reply struct {
	status int // 0 is 200
	body   string
}

// fake is a model server that answers with recorded texts, and with 404 at all other paths. It
// counts the requests.
type fake struct {
	header  string            // Server
	replies map[string]reply  // by path, or by path and query
	types   map[string]string // Content-Type, by path; the others are guessed

	mu    sync.Mutex
	asked map[string]int
	keys  map[string]bool
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.asked == nil {
		f.asked, f.keys = map[string]int{}, map[string]bool{}
	}

	f.asked[r.URL.Path]++
	f.keys[r.Header.Get("Authorization")] = true

	if f.header != "" {
		w.Header().Set("Server", f.header)
	}

	if kind := f.types[r.URL.Path]; kind != "" {
		w.Header().Set("Content-Type", kind)
	}

	a, ok := f.replies[r.URL.RequestURI()]
	if !ok {
		a, ok = f.replies[r.URL.Path]
	}
	if !ok {
		a = reply{404, `{"detail":"Not Found"}`}
	}

	if a.status != 0 {
		w.WriteHeader(a.status)
	}

	w.Write([]byte(a.body))
}

// set changes the answer at a path.
func (f *fake) set(path string, a reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replies[path] = a
}

// count returns how often a path was requested since the last count.
func (f *fake) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer delete(f.asked, path)
	return f.asked[path]
}

// serve runs a server, and returns a client of it.
func serve(t testing.TB, h http.Handler) *Server {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return connect(t, server.URL, "")
}

func connect(t testing.TB, url, key string) *Server {
	t.Helper()
	s, err := New(url, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func golden(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Answers of the servers, shortened where they are long.
const (
	vllmModels = `{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model","created":1758500000,"owned_by":"vllm","root":"Qwen/Qwen3-8B","parent":null,"max_model_len":40960,"permission":[{"id":"modelperm-1","object":"model_permission","allow_view":true,"organization":"*","group":null}]},` +
		`{"id":"adapter","object":"model","created":1758500000,"owned_by":"vllm","root":"/lora","parent":"Qwen/Qwen3-8B","max_model_len":null,"permission":[]}]}`
	sglangModels = `{"object":"list","data":[{"id":"m","object":"model","created":1758500000,"owned_by":"sglang","root":"m","parent":null,"max_model_len":32768}]}`
	sglangInfo   = `{"model_path":"m","tokenizer_path":"m","api_key":"secret","admin_api_key":"secret","max_running_requests":null,"tp_size":1,"status":"ready","max_total_num_tokens":20480,` +
		`"internal_states":[{"api_key":"secret","last_gen_throughput":149.58,"memory_usage":{"weight":1.5,"kvcache":0.25,"token_capacity":20480,"graph":-0.1},"effective_max_running_requests_per_dp":128}],"version":"0.5.9"}`
	sglangLoads = `{"timestamp":"2026-10-07T10:00:00+00:00","version":"0.5.9","accelerator":"H200","num_accelerators":1,"loads":[` +
		`{"timestamp":1791417180.1,"dp_rank":0,"num_running_reqs":3,"num_waiting_reqs":1,"max_total_num_tokens":204000,"max_running_requests":4,"token_usage":0.5,"gen_throughput":41.5,"decode_moments":[1.0,2.0]},` +
		`{"dp_rank":1,"num_running_reqs":2,"num_waiting_reqs":0,"token_usage":0.25}]}`
	llamaModels = `{"models":[{"name":"qwen","model":"qwen","modified_at":"","size":"","digest":"","type":"model","tags":[""],"capabilities":["completion"],"details":{"format":"gguf"}}],"object":"list",` +
		`"data":[{"id":"qwen","aliases":["qwen","q"],"tags":[],"object":"model","created":1758500000,"owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":151936,"n_ctx":8192,"n_ctx_train":40960,"n_embd":2560,"n_params":4022468096,"size":2492680192,"ftype":"Q4_K - Medium"}}]}`
	llamaPropsBody = `{"default_generation_settings":{"params":{"seed":4294967295},"n_ctx":8192},"total_slots":4,"model_alias":"qwen","model_path":"/models/qwen.gguf","modalities":{"vision":false,"audio":false},"endpoint_slots":true,"endpoint_metrics":true,"build_info":"b8681-Debian","is_sleeping":false}`
	llamaLoading   = `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`
	llamaNoMetrics = "{\"error\":{\"code\":501,\"message\":\"This server does not support metrics endpoint. Start it with `--metrics`\",\"type\":\"not_supported_error\"}}"
	ollamaModels   = `{"object":"list","data":[{"id":"llama3.2:latest","object":"model","created":1758500000,"owned_by":"library"},{"id":"hf.co/unsloth/Qwen3:Q4_K_M","object":"model","created":1758500000,"owned_by":"unsloth"}]}`
	ollamaTags     = `{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","modified_at":"2026-09-01T10:00:00Z","size":2019393189,"digest":"a8","details":{"format":"gguf","family":"llama"}},{"name":"hf.co/unsloth/Qwen3:Q4_K_M","model":"hf.co/unsloth/Qwen3:Q4_K_M","size":2500000000}]}`
	ollamaPs       = `{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","size":3100000000,"digest":"a8","details":{"format":"gguf"},"expires_at":"2026-11-02T08:15:34.383753787Z","size_vram":3000000000,"context_length":4096}]}`
	version        = `{"version":"0.29.0"}`
	page404        = "<html><head><title>404 Not Found</title></head></html>"
	otherModels    = `{"object":"list","data":[{"id":"gpt","object":"model","created":1,"owned_by":"openai"}]}`
)

func newVLLM(t testing.TB) *fake {
	return &fake{header: "uvicorn", replies: map[string]reply{
		"/v1/models": {body: vllmModels}, "/version": {body: version}, "/metrics": {body: golden(t, "vllm.txt")},
	}}
}

func newSGLang(t testing.TB) *fake {
	return &fake{header: "uvicorn", replies: map[string]reply{
		"/v1/models": {body: sglangModels}, "/server_info": {body: sglangInfo},
		"/metrics": {body: golden(t, "sglang.txt")}, "/v1/loads": {body: sglangLoads},
	}}
}

func newLlamaCPP(t testing.TB) *fake {
	return &fake{header: "llama.cpp", replies: map[string]reply{
		"/v1/models": {body: llamaModels},
		"/props":     {body: llamaPropsBody},
		"/metrics":   {body: golden(t, "llamacpp.txt")},
	}}
}

func newOllama(testing.TB) *fake {
	return &fake{replies: map[string]reply{
		"/v1/models":   {body: ollamaModels},
		"/api/version": {body: `{"version":"0.20.1"}`},
		"/api/tags":    {body: ollamaTags},
		"/api/ps":      {body: ollamaPs},
	}}
}

// without removes paths from a server.
func without(f *fake, paths ...string) *fake {
	for _, path := range paths {
		delete(f.replies, path)
	}
	return f
}

// with changes the answer of a server at one path.
func with(f *fake, path string, a reply) *fake {
	f.replies[path] = a
	return f
}

// rootsOf returns the certificates of a TLS server.
func rootsOf(s *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return roots
}
