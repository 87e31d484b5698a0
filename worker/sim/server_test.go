package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
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
		Status  string
		Reason  struct{ Reason string } `json:"incomplete_details"`
	}

	for _, tt := range []struct {
		name, path, body, object, tokens string
		text                             func(reply) string
	}{
		{"chat", chat, `{"model":"\u006d","messages":[],"max_tokens":3}`, "chat.completion", "completion_tokens",
			func(r reply) string { return r.Choices[0].Message.Content }},
		{"completions", "/v1/completions", `{"model":"m","prompt":"a","max_tokens":3}`, "text_completion",
			"completion_tokens",
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

			if len(r.Output) > 0 && (r.Status != "incomplete" || r.Reason.Reason != "max_output_tokens") {
				t.Errorf("status %q, incomplete because of %q", r.Status, r.Reason.Reason)
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
		if w := post(t.Context(), s, chat, tt.body); w.Code != tt.status ||
			w.Code != 200 && !strings.Contains(w.Body.String(), `"error":{`) {
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
			if line := `vllm:num_requests_` + name + `{engine="0",model_name="sim"} ` + want +
				"\n"; !strings.Contains(metrics, line) {
				t.Errorf("no %q in\n%s", line, metrics)
			}
		}

		leave()

		var got []time.Duration
		for range 5 {
			got = append(got, <-ends)
		}

		if diff := cmp.Diff(
			[]time.Duration{0, time.Second, time.Second, 2 * time.Second, 2 * time.Second}, got,
		); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}

		if metrics := get(s, "/metrics"); !strings.Contains(metrics,
			"num_requests_waiting{engine=\"0\",model_name=\"sim\"} 0\n") || s.Succeeded() != 4 {
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
		{"all of zero", "all=0", Faults{
			"429":       0,
			"500":       0,
			"503":       0,
			"529":       0,
			"reset":     0,
			"truncated": 0,
			"html":      0,
			"garbage":   0,
			"empty":     0,
			"nochoices": 0,
			"abort":     0,
		}},
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

	faults, err := ParseFaults("all=0.77,context=0.07")
	if err != nil {
		t.Fatal(err)
	}

	r := rand.New(rand.NewPCG(1, 2))
	counts := map[string]int{}
	for range 10_000 {
		counts[faults.pick(r)]++
	}

	for _, name := range append(slices.Clone(cured), "context") {
		if n := counts[name]; n < 550 || n > 850 {
			t.Errorf("%d of 10,000 are %s, want about 700", n, name)
		}
	}

	if counts["hang"] != 0 {
		t.Errorf("%d hang", counts["hang"])
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	res, body, err := postOverTCP(t, New(Config{Faults: Faults{"truncated": 1}}), chat, `{"model":"m"}`)
	if err == nil || len(body) == 0 || res.StatusCode != 200 {
		t.Errorf("status %v, %d bytes, %v; want a part of a good answer", res, len(body), err)
	}
}

// postOverTCP posts over a real connection, so that it can be reset.
func postOverTCP(t *testing.T, s *Server, path, body string) (*http.Response, string, error) {
	t.Helper()

	server := httptest.NewServer(s)
	defer server.Close()

	client := server.Client()
	defer client.CloseIdleConnections()

	res, err := client.Post(server.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()

	text, err := io.ReadAll(res.Body)

	return res, string(text), err
}

func TestFaultAnswers(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		fault  string
		status int    // 0: reset
		body   string // a part of it
	}{
		{"429", 429, "too many requests"},
		{"500", 500, "simulated fault"},
		{"503", 503, "server busy"},
		{"529", 529, "all workers are busy"},
		{"reset", 0, ""},
		{"html", 502, "<html>"},
		{"garbage", 200, `"choices": [`},
		{"empty", 200, ""},
		{"nochoices", 200, `"choices":[]`},
		{"abort", 200, `"finish_reason":"abort"`},
		{"context", 400, "This model's maximum context length is 1048576 tokens."},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()

			s := New(Config{Faults: Faults{tt.fault: 1}})
			res, body, err := postOverTCP(t, s, chat, `{"model":"m","messages":"a"}`)
			switch {
			case tt.status == 0:
				if err == nil {
					t.Errorf("status %d, %s; want a reset connection", res.StatusCode, body)
				}
			case err != nil:
				t.Error(err)
			case res.StatusCode != tt.status || !strings.Contains(body, tt.body) || tt.fault == "empty" && body != "":
				t.Errorf("status %d, %s; want %d, %s", res.StatusCode, body, tt.status, tt.body)
			}

			if s.Succeeded() != 0 {
				t.Error("it counts as answered")
			}
		})
	}
}

func TestHang(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Slots: 2, TTFT: time.Second, Faults: Faults{"429": 0.5}})
		s.Hang(true)
		gone, leave := context.WithCancel(t.Context())
		var left, clients sync.WaitGroup
		for range 2 {
			left.Go(func() { post(gone, s, chat, `{"model":"m"}`) })
		}

		for range 3 {
			clients.Go(func() {
				if w := post(t.Context(), s, chat, `{"model":"m"}`); w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
			})
		}

		time.Sleep(time.Hour)
		if got := s.Engine().Load(); got.Running != 2 || got.Waiting != 3 || got.Tokens != 0 {
			t.Errorf("after an hour: %+v", got)
		}

		if got := get(s, "/metrics"); !strings.Contains(got,
			`vllm:generation_tokens_total{engine="0",model_name="sim"} 0`+"\n") {
			t.Errorf("metrics\n%s", got)
		}

		leave()
		left.Wait()
		begin := time.Now()
		s.Hang(false)
		clients.Wait()
		if took := time.Since(begin); took < time.Second || took > 2*time.Second {
			t.Errorf("the others take %v", took)
		}
	})
}

func TestHangOfAServerWithoutLatency(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := New(Config{})
		s.Hang(true)
		done := make(chan struct{})
		go func() { post(t.Context(), s, chat, `{"model":"m"}`); close(done) }()
		synctest.Wait()

		select {
		case <-done:
			t.Error("it answers")
		default:
		}

		if got := s.Engine().Load(); got.Running != 1 || got.Tokens != 0 {
			t.Errorf("%+v", got)
		}

		s.Hang(false)
		<-done
	})
}

func TestPoisonKills(t *testing.T) {
	t.Parallel()

	died := make(chan struct{})
	s := New(Config{TTFT: time.Hour, Slots: 1, Poison: "arsenic", OnDeath: func() { close(died) }})
	server := httptest.NewServer(s)
	defer server.Close()

	client := server.Client()
	defer client.CloseIdleConnections()

	send := func(prompt string) error {
		res, err := client.Post(server.URL+chat, "application/json",
			strings.NewReader(`{"model":"m","messages":"`+prompt+`"}`))
		if err == nil {
			res.Body.Close()
		}
		return err
	}

	innocent := make(chan error, 2)
	for range cap(innocent) {
		go func() { innocent <- send("water") }()
	}

	for deadline := time.Now().Add(time.Minute); s.Engine().Load().Waiting == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the innocent do not arrive")
		}
		time.Sleep(time.Millisecond)
	}

	if send("some arsenic") == nil {
		t.Error("the poison is answered")
	}

	<-died
	for range cap(innocent) {
		if <-innocent == nil {
			t.Error("an innocent request is answered")
		}
	}

	if send("water") == nil {
		t.Error("the dead answer")
	}
}
