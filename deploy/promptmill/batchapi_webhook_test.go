package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	official "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// receivedEvent is an event as a receiver of webhooks gets it.
type receivedEvent struct {
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
	header  http.Header
}

// eventReceiver takes events, each when it comes for the second time.
type eventReceiver struct {
	// mu guards the fields below.
	mu     sync.Mutex
	seen   map[string]string // bodies by the id of their event
	events []receivedEvent
	faults []string
}

// ServeHTTP implements [http.Handler].
func (r *eventReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	id := req.Header.Get("Webhook-Id")

	r.mu.Lock()
	defer r.mu.Unlock()

	earlier, again := r.seen[id]
	if r.seen[id] = string(body); !again {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}

	if earlier != string(body) {
		r.faults = append(r.faults, "event "+id+" came as "+earlier+" and then as "+string(body))
	}

	e := receivedEvent{
		Headers: map[string]string{},
		Body:    string(body),
		header:  req.Header.Clone(),
	}
	for name := range req.Header {
		e.Headers[strings.ToLower(name)] = req.Header.Get(name)
	}

	r.events = append(r.events, e)
}

// The SDKs verify the event of each way in which a batch ends.
func TestBatchAPIWebhooks(t *testing.T) {
	t.Parallel()

	receiver := &eventReceiver{seen: map[string]string{}}
	server := httptest.NewServer(receiver)
	t.Cleanup(server.Close)

	a := startBatchAPI(t, "--webhook", server.URL+"/hook")
	secret := strings.TrimSpace(a.must("webhooks", "secret"))
	client := official.NewClient(option.WithBaseURL(a.url()), option.WithAPIKey("unused"),
		option.WithWebhookSecret(secret))

	create := func(text, window string) string {
		t.Helper()

		file, err := client.Files.New(t.Context(), official.FileNewParams{
			File:    official.File(strings.NewReader(text), "in.jsonl", "application/jsonl"),
			Purpose: official.FilePurposeBatch,
		})

		must(t, err)
		b, err := client.Batches.New(t.Context(), official.BatchNewParams{
			InputFileID:      file.ID,
			Endpoint:         official.BatchNewParamsEndpointV1ChatCompletions,
			CompletionWindow: official.BatchNewParamsCompletionWindow(window),
		})

		must(t, err)

		return b.ID
	}

	wanted := map[string]string{
		create(chatLines(3, "fast"), "24h"):   "batch.completed",
		create("nonsense", "24h"):             "batch.failed",
		create(chatLines(2000, "slow"), "1s"): "batch.expired",
	}

	cancelled := create(chatLines(500, "slow"), "24h")
	wanted[cancelled] = "batch.cancelled"
	_, err := client.Batches.Cancel(t.Context(), cancelled)
	must(t, err)

	poll(t, pollTime, "the events", func() bool {
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		return len(receiver.events) >= len(wanted)
	})

	receiver.mu.Lock()
	defer receiver.mu.Unlock()

	for _, fault := range receiver.faults {
		t.Error(fault)
	}

	var want strings.Builder // an event a line
	for _, e := range receiver.events {
		unwrapped, err := client.Webhooks.Unwrap([]byte(e.Body), e.header)
		must(t, err)

		id := unwrapped.Data.ID
		if unwrapped.Type != wanted[id] {
			t.Errorf("the event of %s is %s, want %s", id, unwrapped.Type, wanted[id])
		}

		delete(wanted, id)

		if _, err := client.Webhooks.Unwrap([]byte(e.Body+" "), e.header); err == nil {
			t.Error("another body has the signature, too")
		}

		want.WriteString(unwrapped.Type + " " + id + "\n")
	}

	for id, event := range wanted {
		t.Errorf("there is no %s of %s", event, id)
	}

	a.checkUnwrap(t, receiver.events, secret, want.String())
}

// checkUnwrap verifies events with the SDKs for Python and Node, where they are.
func (a *batchAPI) checkUnwrap(t *testing.T, events []receivedEvent, secret, want string) {
	t.Helper()

	input, err := json.Marshal(events)
	must(t, err)

	programs := map[string]func() (*exec.Cmd, *lockedBuffer){}
	if python := findPython(t, "openai"); python != "" {
		programs["Python"] = func() (*exec.Cmd, *lockedBuffer) {
			return a.prepareClient(python, "-B", clientProgram(t, "webhook.py"), secret)
		}
	}

	if os.Getenv(nodeVariable) != "" {
		programs["Node"] = func() (*exec.Cmd, *lockedBuffer) { return a.prepareNode(t, "webhook.mjs", secret) }
	}

	for _, name := range []string{"Python", "Node"} {
		if programs[name] == nil {
			t.Logf("left out the checks that need openai for %s", name)
			continue
		}

		cmd, out := programs[name]()
		cmd.Stdin = strings.NewReader(string(input))
		a.runClient(t, cmd, out)
		if got := out.String(); got != want {
			t.Errorf("%s unwraps %q, want %q", name, got, want)
		}
	}
}
