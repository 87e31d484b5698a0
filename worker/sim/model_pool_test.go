package sim

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A server that holds one model gets requests for two.
func TestModelPool(t *testing.T) {
	t.Parallel()

	const swap, answer = 10 * time.Second, time.Second
	for _, tt := range []struct {
		name    string
		flavour Flavour
		hold    int
		models  []string // of requests, one every 100 ms
		bad     []string // the errors that refuse them, "" for an answer
		swaps   int64
		took    time.Duration // all of them
	}{
		{"one model", LlamaCPP, 1, []string{"a", "a"}, []string{"", ""}, 1, swap + answer},
		{"a router unloads a loading model", LlamaCPP, 1, []string{"a", "b"},
			[]string{"proxy error: Could not establish connection", ""}, 2, swap + answer + 100*time.Millisecond},
		{"a router that holds both", LlamaCPP, 2, []string{"a", "b"}, []string{"", ""}, 2,
			swap + answer + 100*time.Millisecond},
		{"Ollama ends the requests of one first", Ollama, 1, []string{"a", "b"}, []string{"", ""}, 2,
			2 * (swap + answer)},
		{"and has the others wait in line", Ollama, 1, []string{"a", "b", "a"}, []string{"", "", ""}, 3,
			3 * (swap + answer)},
		{"so does LM Studio", LMStudio, 1, []string{"a", "b"}, []string{"", ""}, 2, 2 * (swap + answer)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				s := New(Config{
					Flavour:   tt.flavour,
					Models:    []string{"a", "b"},
					TTFT:      answer,
					Tokens:    1,
					MaxLoaded: tt.hold,
					SwapTime:  swap,
				})

				begin := time.Now()
				got := make([]*httptest.ResponseRecorder, len(tt.models))
				var clients sync.WaitGroup
				for i, model := range tt.models {
					clients.Go(func() { got[i] = post(t.Context(), s, chat, `{"model":"`+model+`","max_tokens":1}`) })
					time.Sleep(100 * time.Millisecond)
				}

				clients.Wait()
				for i, bad := range tt.bad {
					switch code, body := got[i].Code, got[i].Body.String(); {
					case bad == "" && code != http.StatusOK,
						bad != "" && (code != http.StatusInternalServerError || body != bad):
						t.Errorf("request %d: %d %s, want %q", i, code, body, bad)
					}
				}

				if took := time.Since(begin); s.Swaps() != tt.swaps || took != tt.took {
					t.Errorf("%d models were loaded, in %s; want %d, in %s", s.Swaps(), took, tt.swaps, tt.took)
				}
			})
		})
	}
}

// A router that unloads a model ends its requests, and a client that leaves frees its place.
func TestEvictionEndsRequests(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := New(Config{
			Flavour:   LlamaCPP,
			Models:    []string{"a", "b"},
			TTFT:      time.Minute,
			MaxLoaded: 1,
			SwapTime:  time.Second,
		})

		var cut *httptest.ResponseRecorder
		var clients sync.WaitGroup
		clients.Go(func() { cut = post(t.Context(), s, chat, `{"model":"a"}`) })
		time.Sleep(2 * time.Second)
		leaving, leave := context.WithCancel(t.Context())
		clients.Go(func() { post(leaving, s, chat, `{"model":"b"}`) })
		time.Sleep(100 * time.Millisecond)
		leave()
		clients.Wait()
		if cut.Code != http.StatusInternalServerError || cut.Body.String() != "proxy error: Failed to read connection" {
			t.Errorf("%d %s", cut.Code, cut.Body)
		}

		if state := s.pool.modelState("b"); state != "loading" {
			t.Errorf("b is %s", state)
		}

		time.Sleep(time.Second)
		for model, want := range map[string]string{"a": "unloaded", "b": "loaded"} {
			if state := s.pool.modelState(model); state != want {
				t.Errorf("%s is %s", model, state)
			}
		}
	})
}
