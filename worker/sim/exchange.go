package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Exchange is a request to the model and what the server did with it: the truth that the figures
// of a client can be compared with.
type Exchange struct {
	// RequestID is the X-Request-Id of the request; empty: it has none.
	RequestID string `json:"request_id,omitempty"`
	// Path is the endpoint, such as /v1/chat/completions.
	Path string `json:"path"`
	// Model is the model that the request names.
	Model string `json:"model,omitempty"`
	// Answer is what the text of the answer begins with, unless it has a schema. It follows from
	// the prompt and the seed, so all attempts of a request have the same.
	Answer string `json:"answer,omitempty"`

	// Start is the time at which the head of the request was read, and End the one at which its
	// answer was written or the connection given up.
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`

	// Status is the status of the answer; 0: it got none.
	Status int `json:"status"`
	// Fault is the fault that it met, one of [FaultNames]; empty: none.
	Fault string `json:"fault,omitempty"`
	// Aborted is set if the client left before it got an answer.
	Aborted bool `json:"aborted,omitempty"`

	// PromptTokens and CompletionTokens are the usage that the answer reports; 0: it has none.
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	// GeneratedTokens are the tokens that were generated for the request, also those of an answer
	// that nobody got, and those that a preemption threw away.
	GeneratedTokens int `json:"generated_tokens"`
}

// WriteExchanges returns a function for Config.OnExchange that writes each exchange as a line of
// JSON. If w fails, it calls onError with the first error and writes no more.
func WriteExchanges(w io.Writer, onError func(error)) func(Exchange) {
	var mu sync.Mutex
	failed := false

	return func(x Exchange) {
		line, err := json.Marshal(x)
		line = append(line, '\n')

		mu.Lock()
		defer mu.Unlock()

		if failed {
			return
		}

		if err == nil {
			_, err = w.Write(line)
		}
		if err != nil {
			failed = true
			onError(fmt.Errorf("log of the simulated server: %w", err))
		}
	}
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap returns the writer beneath, for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
