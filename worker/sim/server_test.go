package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func post(ctx context.Context, s *Server, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, path, strings.NewReader(body)))
	return w
}

func get(s *Server, path string) string {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Body.String()
}

const chat = "/v1/chat/completions"

func TestAnswersFollowFromPromptAndSeed(t *testing.T) {
	t.Parallel()
	ask := func(seed uint64, prompt string) string {
		w := post(t.Context(), New(Config{Seed: seed}), chat, fmt.Sprintf(`{"model":"m","messages":%q}`, prompt))
		if w.Code != http.StatusOK {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	if diff := cmp.Diff(ask(1, "a"), ask(1, "a")); diff != "" {
		t.Errorf("the same request has two answers:\n%s", diff)
	}
	if ask(1, "a") == ask(2, "a") || ask(1, "a") == ask(1, "b") {
		t.Error("another seed or another prompt has the same answer")
	}
}

func TestAnswerShapes(t *testing.T) {
	t.Parallel()
	type choice struct {
		Text         string `json:"text"`
		FinishReason string `json:"finish_reason"`
		Message      struct{ Content string }
	}
	type reply struct {
		Object  string   `json:"object"`
		Model   string   `json:"model"`
		Choices []choice `json:"choices"`
		Data    []struct{ Embedding []float32 }
		Output  []struct{ Content []struct{ Text string } }
		Usage   map[string]any
	}
	for _, tt := range []struct {
		name, path, body, object, tokens string
		text                             func(reply) string
	}{
		{"chat", chat, `{"model":"\u006d","messages":[],"max_tokens":3}`, "chat.completion", "completion_tokens",
			func(r reply) string { return r.Choices[0].Message.Content }},
		{"completions", "/v1/completions", `{"model":"m","prompt":"a","max_tokens":3}`, "text_completion", "completion_tokens",
			func(r reply) string { return r.Choices[0].Text }},
		{"responses", "/v1/responses", `{"model":"m","input":"a","max_output_tokens":3}`, "response", "output_tokens",
			func(r reply) string { return r.Output[0].Content[0].Text }},
		{"embeddings", "/v1/embeddings", `{"model":"m","input":"a"}`, "list", "",
			func(r reply) string { return strings.Repeat("x ", len(r.Data[0].Embedding)/16-2) + "x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := post(t.Context(), New(Config{}), tt.path, tt.body)
			var r reply
			if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
			if r.Object != tt.object || r.Model != "m" {
				t.Errorf("answer %s", w.Body)
			}
			if words := strings.Fields(tt.text(r)); len(words) != 3 {
				t.Errorf("%d words, want 3", len(words))
			}
			if tt.tokens != "" && r.Usage[tt.tokens] != 3.0 {
				t.Errorf("usage %v", r.Usage)
			}
			if len(r.Choices) > 0 && r.Choices[0].FinishReason != "length" {
				t.Errorf("finish reason %q", r.Choices[0].FinishReason)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := New(Config{Models: []string{"m"}})
	for _, tt := range []struct {
		name, body string
		status     int
	}{
		{"broken JSON", `{`, 400},
		{"a model that is no text", `{"model":1}`, 400},
		{"a limit that is no number", `{"model":"m","max_tokens":"x"}`, 400},
		{"another model", `{"model":"n"}`, 404},
		{"the right one", `{"model":"m"}`, 200},
	} {
		if w := post(t.Context(), s, chat, tt.body); w.Code != tt.status || w.Code != 200 && !strings.Contains(w.Body.String(), `"error":{`) {
			t.Errorf("%s: status %d, %s", tt.name, w.Code, w.Body)
		}
	}
	if s.Succeeded() != 1 {
		t.Errorf("%d succeeded, want 1", s.Succeeded())
	}
	if got := get(s, "/v1/models"); !strings.Contains(got, `"id":"m"`) {
		t.Errorf("models %s", got)
	}
}

func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Slots: 2, TTFT: time.Second})
		begin := time.Now()
		ends := make(chan time.Duration, 5)
		gone, leave := context.WithCancel(t.Context())
		defer leave()
		for i := range 5 {
			ctx := t.Context()
			if i == 4 {
				ctx = gone
			}
			go func() {
				post(ctx, s, chat, `{"model":"m","messages":"a"}`)
				ends <- time.Since(begin)
			}()
			synctest.Wait() // so that the last is the one that leaves
		}
		metrics := get(s, "/metrics")
		for name, want := range map[string]string{"running": "2", "waiting": "3"} {
			if line := `vllm:num_requests_` + name + `{engine="0",model_name="sim"} ` + want + "\n"; !strings.Contains(metrics, line) {
				t.Errorf("no %q in\n%s", line, metrics)
			}
		}
		leave()
		var got []time.Duration
		for range 5 {
			got = append(got, <-ends)
		}
		if diff := cmp.Diff([]time.Duration{0, time.Second, time.Second, 2 * time.Second, 2 * time.Second}, got); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
		if metrics := get(s, "/metrics"); !strings.Contains(metrics, "num_requests_waiting{engine=\"0\",model_name=\"sim\"} 0\n") || s.Succeeded() != 4 {
			t.Errorf("%d succeeded at the end of\n%s", s.Succeeded(), metrics)
		}
	})
}

func TestTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{TTFT: time.Second, TPOT: 100 * time.Millisecond})
		begin := time.Now()
		post(t.Context(), s, chat, `{"model":"m","messages":"a","max_tokens":11}`)
		if got := time.Since(begin); got != 2*time.Second {
			t.Errorf("11 tokens take %v, want 2 s", got)
		}
	})
}

func TestParseFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       Faults
	}{
		{"none", "", Faults{}},
		{"one", "429=0.5", Faults{"429": 0.5}},
		{"two and white space", "429=0.5, hang=0.25", Faults{"429": 0.5, "hang": 0.25}},
		{"one named twice", "500=0.25,500=0.5", Faults{"500": 0.75}},
		{"all of zero", "all=0", Faults{"429": 0, "500": 0, "503": 0, "reset": 0, "truncated": 0, "html": 0, "garbage": 0}},
		{"an unknown one", "501=0.1", nil},
		{"no rate", "429", nil},
		{"a rate that is no number", "429=x", nil},
		{"not a number, as IEEE has it", "429=NaN", nil},
		{"below zero", "429=-0.1", nil},
		{"above one", "429=1.5", nil},
		{"above one in all", "429=0.6,500=0.6", nil},
		{"an empty part", "429=0.1,", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseFaults(tt.text)
			if (err != nil) != (tt.want == nil) {
				t.Fatalf("ParseFaults(%q) = %v, %v", tt.text, got, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultRates(t *testing.T) {
	t.Parallel()
	faults, err := ParseFaults("all=0.7,context=0.1")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	counts := map[string]int{}
	for range 10_000 {
		counts[faults.draw(r)]++
	}
	for _, name := range []string{"429", "500", "503", "reset", "truncated", "html", "garbage", "context"} {
		if n := counts[name]; n < 800 || n > 1200 {
			t.Errorf("%d of 10,000 are %s, want about 1,000", n, name)
		}
	}
	if counts["hang"] != 0 {
		t.Errorf("%d hang", counts["hang"])
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(New(Config{Faults: Faults{"truncated": 1}}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	res, err := http.Post(server.URL+chat, "application/json", strings.NewReader(`{"model":"m"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil || len(body) == 0 || res.StatusCode != 200 {
		t.Errorf("status %d, %d bytes, %v; want a part of a good answer", res.StatusCode, len(body), err)
	}
}
