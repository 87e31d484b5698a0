package modelserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/worker/sim"
)

func TestLoad(t *testing.T) {
	t.Parallel()

	sparse := "vllm:num_requests_running 1\nvllm:num_requests_waiting 2\n"
	for _, tt := range []struct {
		name   string
		server *fake
		path   string // of the one request
		want   Load
	}{
		{"two engines of vLLM", newVLLM(t), "/metrics", Load{
			Running:      256,
			Waiting:      7,
			KVUsage:      0.625,
			Preemptions:  2,
			Tokens:       900000,
			PromptTokens: 30000,
			Engines:      "0,1",
		}},
		{"old names of vLLM", with(newVLLM(t), "/metrics", reply{body: golden(t, "vllm-old.txt")}), "/metrics", Load{
			Running:      8,
			KVUsage:      0.25,
			Tokens:       22,
			PromptTokens: 11,
		}},
		{"vLLM with few gauges", with(newVLLM(t), "/metrics", reply{body: sparse}), "/metrics", Load{
			Running: 1, Waiting: 2, KVUsage: -1, Preemptions: -1, Tokens: -1, PromptTokens: -1,
			Missing: []string{"KV usage", "preemptions", "tokens", "prompt tokens"},
		}},
		{"two replicas of SGLang, on two GPUs each", newSGLang(t), "/metrics", Load{
			Running:      20,
			Waiting:      2,
			KVUsage:      0.3,
			Preemptions:  5,
			Tokens:       1500,
			PromptTokens: 150,
			Engines:      "0,1",
		}},
		{"SGLang without --enable-metrics", without(newSGLang(t), "/metrics"), "/v1/loads", Load{
			Running: 5, Waiting: 1, KVUsage: 0.375, Preemptions: -1, Tokens: -1, PromptTokens: -1,
			Missing: []string{"preemptions", "tokens", "prompt tokens"},
		}},
		{"llama.cpp", newLlamaCPP(t), "/metrics", Load{
			Running:      4,
			Waiting:      1,
			KVUsage:      -1,
			Preemptions:  -1,
			Tokens:       1250,
			PromptTokens: 900,
		}},
		{"an old llama.cpp", with(newLlamaCPP(t), "/metrics",
			reply{body: golden(t, "llamacpp.txt") + "llamacpp:kv_cache_usage_ratio 0.5\n"}), "/metrics",
			Load{Running: 4, Waiting: 1, KVUsage: 0.5, Preemptions: -1, Tokens: 1250, PromptTokens: 900}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := serve(t, tt.server)
			if _, err := s.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}

			clear(tt.server.asked)

			load, err := s.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}

			if diff := cmp.Diff(tt.want, load, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("load (-want +got):\n%s", diff)
			}

			if diff := cmp.Diff(map[string]int{tt.path: 1}, tt.server.asked); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadFails(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		server  *fake
		after   map[string]reply // that it was looked at
		want    error
		message string
	}{
		{"llama.cpp without --metrics", with(newLlamaCPP(t), "/metrics", reply{501, llamaNoMetrics}), nil,
			ErrNoGauges, "--metrics"},
		{"llama.cpp loads again", newLlamaCPP(t), map[string]reply{"/metrics": {503, llamaLoading}},
			ErrLoading, "loads"},
		{"vLLM with --disable-log-stats", with(newVLLM(t), "/metrics",
			reply{body: "python_info{version=\"3.12\"} 1.0\n"}), nil, ErrNoGauges, "running"},
		{"vLLM that lacks a gauge", with(newVLLM(t), "/metrics", reply{body: "vllm:num_requests_running 1\n"}), nil,
			ErrNoGauges, "waiting"},
		{"vLLM behind a proxy without its metrics", without(newVLLM(t), "/metrics"), nil, ErrNoGauges, "404"},
		{"a web page for metrics", with(newVLLM(t), "/metrics", reply{body: page404}), nil, ErrNoGauges, "text/html"},
		{"an older SGLang without --enable-metrics", without(newSGLang(t), "/metrics", "/v1/loads"), nil, ErrNoGauges,
			"--enable-metrics"},
		{"SGLang that cannot read its loads", with(without(newSGLang(t), "/metrics"), "/v1/loads",
			reply{body: `{"loads":[]}`}), nil, ErrNoGauges, "--enable-metrics"},
		{"a router of SGLang, with other loads", with(without(newSGLang(t), "/metrics"), "/v1/loads",
			reply{body: `{"loads":[{"worker":"http://a","load":18}]}`}), nil, ErrNoGauges, "--enable-metrics"},
		{"a proxy in front of SGLang misses it", without(newSGLang(t), "/metrics"),
			map[string]reply{"/v1/loads": {502, page404}}, ErrUnreachable, "502"},
		{"a proxy misses its server", newVLLM(t), map[string]reply{"/metrics": {502, page404}}, ErrUnreachable, "502"},
		{"Ollama", newOllama(t), nil, ErrNoGauges, "does not report"},
		{"another server", &fake{replies: map[string]reply{"/v1/models": {body: otherModels}}}, nil, ErrNoGauges,
			"does not report"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := serve(t, tt.server)
			if _, err := s.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}

			for path, a := range tt.after {
				tt.server.set(path, a)
			}

			if _, err := s.Load(t.Context()); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %v, want %v that says %q", err, tt.want, tt.message)
			}
		})
	}
}

// The simulated server is recognized as a vLLM, and has its gauges.
func TestSimulatedServer(t *testing.T) {
	t.Parallel()

	s := serve(t, sim.New(sim.Config{Models: []string{"m"}}))
	info, err := s.Probe(t.Context())
	if err != nil || info.Flavour != "vLLM" || info.Version == "" || len(info.Models) != 1 || info.Models[0].ID != "m" {
		t.Errorf("%+v, %v", info, err)
	}

	if a := s.Post(
		t.Context(), "/v1/chat/completions", []byte(`{"model":"m","messages":[]}`),
	); a.Status != http.StatusOK {
		t.Errorf("status %d: %s", a.Status, a.Body)
	}

	if load, err := s.Load(t.Context()); err != nil || load.Missing != nil {
		t.Errorf("%+v, %v", load, err)
	}
}

// A counter that moves only when a request ends shows nothing about a server that works on long
// ones.
func TestCountsAtEnd(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		server *fake
		atEnd  bool
	}{
		{"vLLM", newVLLM(t), false},
		{"Ollama", newOllama(t), false},
		{"llama.cpp", newLlamaCPP(t), true},
		{"a router of llama.cpp", newRouter(t), true},
		{"SGLang", newSGLang(t), true},
		{"TensorRT-LLM", newTensorRT(t), true},
		{"TGI", &fake{replies: map[string]reply{
			"/v1/models": {body: tgiModels},
			"/metrics":   {body: golden(t, "tgi.txt")},
		}}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := serve(t, tt.server)
			if s.CountsTokensAtEnd() {
				t.Error("true for a server that was never probed")
			}

			if _, err := s.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}

			if got := s.CountsTokensAtEnd(); got != tt.atEnd {
				t.Errorf("%v, want %v", got, tt.atEnd)
			}
		})
	}
}

func TestLoadBeforeLook(t *testing.T) {
	t.Parallel()
	if _, err := serve(t, newVLLM(t)).Load(t.Context()); !errors.Is(err, ErrNoGauges) {
		t.Errorf("error %v", err)
	}
}

// SGLang may be restarted with metrics.
func TestSGLangGetsMetrics(t *testing.T) {
	t.Parallel()

	server := without(newSGLang(t), "/metrics")
	s := serve(t, server)
	for _, want := range []int{5, 20} {
		if _, err := s.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}

		if load, err := s.Load(t.Context()); err != nil || load.Running != want {
			t.Errorf("%+v, %v, want %d running", load, err, want)
		}

		server.set("/metrics", reply{body: golden(t, "sglang.txt")})
	}
}

func TestLoadOfServerThatIsGone(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(newVLLM(t))
	s := connect(t, server.URL, "")
	if _, err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}

	server.Close()
	if _, err := s.Load(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v", err)
	}
}

// llama.cpp does not answer before its batch is done, which is no sign that it is away.
func TestLateLoadIsNotAway(t *testing.T) {
	t.Parallel()

	server := newLlamaCPP(t)
	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			<-r.Context().Done()
			return
		}
		server.ServeHTTP(w, r)
	}))
	if _, err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	_, err := s.Load(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNoGauges) {
		t.Errorf("error %v", err)
	}
}
