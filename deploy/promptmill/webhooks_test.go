package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/webhooks"

	"github.com/promptmill/promptmill/deploy/webhook"
	"github.com/promptmill/promptmill/worker/sim"
)

// receiver verifies events with OpenAI's SDK and records them.
type receiver struct {
	t      *testing.T
	url    string
	client openai.Client

	// mu guards the fields below.
	mu sync.Mutex
	// status is the answer; 0: it hangs.
	status int
	events []webhooks.UnwrapWebhookEventUnion
}

// newReceiver starts a receiver that answers with a status. Events are verified with the secret of the state
// folder.
func (c command) newReceiver(status int) *receiver {
	c.t.Helper()

	secret := strings.TrimSpace(c.must("webhooks", "secret"))
	r := &receiver{
		t:      c.t,
		status: status,
		client: openai.NewClient(option.WithAPIKey("k"), option.WithWebhookSecret(secret)),
	}
	s := httptest.NewServer(r)
	r.url = s.URL
	c.t.Cleanup(s.Close)

	return r
}

// ServeHTTP implements [http.Handler].
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	e, err := r.client.Webhooks.Unwrap(body, req.Header)
	if err != nil {
		r.t.Errorf("the SDK refuses an event: %v", err)
		return
	}

	r.mu.Lock()
	r.events = append(r.events, *e)
	status := r.status
	r.mu.Unlock()

	if status == 0 {
		<-req.Context().Done()
		return
	}

	w.WriteHeader(status)
}

// answerWith changes the answer.
func (r *receiver) answerWith(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// got returns the events so far, as TYPE BATCH, and their ids.
func (r *receiver) got() (events, ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, e := range r.events {
		events, ids = append(events, e.Type+" "+e.Data.ID), append(ids, e.ID)
	}

	return events, ids
}

// await waits for a number of events.
func (r *receiver) await(n int) (events, ids []string) {
	r.t.Helper()
	poll(r.t, pollTime, fmt.Sprintf("%d events", n), func() bool {
		events, ids = r.got()
		return len(events) >= n
	})
	return events, ids
}

// deliveries returns what webhooks list --json prints.
func (c command) deliveries() (list []webhook.Delivery) {
	c.t.Helper()
	must(c.t, json.Unmarshal([]byte(c.must("webhooks", "list", "--json")), &list))
	return list
}

// awaitDeliveries waits until all deliveries are in a state.
func (c command) awaitDeliveries(state string) (list []webhook.Delivery) {
	c.t.Helper()
	poll(c.t, pollTime, "deliveries that are "+state, func() bool {
		list = c.deliveries()
		for _, d := range list {
			if d.State != state {
				return false
			}
		}
		return true
	})

	return list
}

// Events go to each endpoint, are listed, tested and sent again.
func TestWebhooks(t *testing.T) {
	t.Parallel()

	c, model := newCommand(t), newModel(t, sim.Config{})
	first, second := c.newReceiver(200), c.newReceiver(500)

	if text := c.must("webhooks", "test", first.url); text != "" {
		t.Errorf("test prints %q as its product", text)
	}
	c.expect(1, "promptmill: error: "+second.url+": 500 Internal Server Error\n", "webhooks", "test", second.url)

	port := loopbackPort(t)
	_, said := c.serve("--webhook", first.url+"/?token=secret", "--webhook", second.url, "--metrics", port)
	c.expect(0, "no events yet\n", "webhooks", "list")
	c.start("worker", "--url", model.url)
	in := c.input("in.jsonl", 3)
	c.must("submit", in, "--run", "r1", "--model", "sim", "--wait")
	c.must("submit", in, "--run", "r2", "--model", "sim", "--wait")

	events, _ := first.await(3)
	if diff := cmp.Diff([]string{"batch.completed batch_test", "batch.completed batch_r1", "batch.completed batch_r2"},
		events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	_, ids := second.await(3)
	second.answerWith(410)
	poll(t, pollTime, "events that are given up", func() bool {
		return strings.Count(c.must("webhooks", "list"), "410 Gone") == 2
	})

	list := c.must("webhooks", "list")
	if !strings.Contains(list, first.url+"/?...") || strings.Contains(list, "token") ||
		strings.Contains(said.String(), "token") {
		t.Errorf("webhooks list:\n%s\nserve:\n%s", list, said)
	}

	second.answerWith(204)
	c.expect(0, "goes to "+second.url+" again", "webhooks", "redeliver", "--failed")
	_, again := second.await(len(ids) + 2)
	for _, id := range again[len(again)-2:] {
		if id != ids[1] && id != ids[2] {
			t.Errorf("event %s is sent again, want one of %q", id, ids)
		}
	}

	c.awaitDeliveries(webhook.Delivered)
	counts := map[string]float64{
		`webhook_attempts_total{outcome="delivered"}`: 4,
		`webhook_given_up_total}`:                     2,
		`webhook_pending}`:                            0,
	}
	poll(t, pollTime, "no pending event", func() bool { return scrape(t, port)["webhook_pending}"] == 0 })
	got := only(scrape(t, port), "webhook_")
	if got[`webhook_attempts_total{outcome="failed"}`] < 4 { // each was refused, and then gone
		t.Errorf("metrics %v", got)
	}
	delete(got, `webhook_attempts_total{outcome="failed"}`)
	if diff := cmp.Diff(counts, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}

	c.expect(0, "no event was given up\n", "webhooks", "redeliver", "--failed")

	if kind, values := c.complete("webhooks", "redeliver", ids[1]); kind != "words" || len(values) == 0 {
		t.Errorf("completion of %s: %s %q", ids[1], kind, values)
	}

	before, _ := first.got()
	c.expect(0, " of batch_r1 goes to ", "webhooks", "redeliver", "r1")
	first.await(len(before) + 1)

	second.answerWith(500)
	c.expect(1, "1 of 2 endpoints have not taken the event", "webhooks", "test", "--all")
}

// serve is killed while an endpoint has an event: the event arrives at the next start, under the same id, and
// no run has another.
func TestWebhookAfterKill(t *testing.T) {
	t.Parallel()

	c, model := newCommand(t), newModel(t, sim.Config{})
	r := c.newReceiver(0) // it hangs
	serving, _ := c.serve("--webhook", r.url)
	c.start("worker", "--url", model.url)
	c.must("submit", c.input("in.jsonl", 3), "--run", "r", "--model", "sim", "--keep", "1s", "--wait")
	r.await(1)
	must(t, serving.Process.Kill())
	serving.Wait()

	r.answerWith(200)
	serving, _ = c.serve("--webhook", r.url)
	events, ids := r.await(2)
	if events[0] != events[1] || ids[0] != ids[1] || events[0] != "batch.completed batch_r" {
		t.Errorf("events %q with ids %q", events, ids)
	}

	c.awaitDeliveries(webhook.Delivered)
	must(t, serving.Process.Kill())
	serving.Wait()
	c.serve("--webhook", r.url)
	poll(t, pollTime, "the run has left the bus", func() bool {
		_, there := c.manifest("r")
		return !there
	})

	if events, _ := r.got(); len(events) != 2 {
		t.Errorf("a restart sends events again: %q", events)
	}
}

// A webhook that is new gets no events of before. A run that is kept for no time has its event.
func TestNewWebhook(t *testing.T) {
	t.Parallel()

	c, model := newCommand(t), newModel(t, sim.Config{})
	serving, said := c.serve()
	c.start("worker", "--url", model.url)
	in := c.input("in.jsonl", 3)
	c.must("submit", in, "--run", "before", "--model", "sim", "--wait")
	c.expect(0, "no webhooks: promptmill serve --webhook URL has them", "webhooks", "list")
	must(t, serving.Process.Signal(os.Interrupt))
	waitExit(t, serving, said, patience)

	r := c.newReceiver(200)
	c.serve("--webhook", r.url)
	c.start("worker", "--url", model.url) // the bus has another address now
	c.must("submit", in, "--run", "gone", "--model", "sim", "--keep", "0s")
	c.must("submit", in, "--run", "cancelled", "--model", "nosuch")
	c.must("cancel", "cancelled")

	events, _ := r.await(2)
	if diff := cmp.Diff(map[string]bool{"batch.completed batch_gone": true, "batch.cancelled batch_cancelled": true},
		map[string]bool{events[0]: true, events[1]: true}); diff != "" || len(events) != 2 {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// Each batch of the batch API has one event: a run's, or that of an input that was refused.
func TestWebhooksOfBatches(t *testing.T) {
	t.Parallel()

	c, model := newCommand(t), newModel(t, sim.Config{})
	r := c.newReceiver(200)
	_, said := c.serve("--webhook", r.url, "--api", "127.0.0.1:0", "--dir", "out",
		"--on-end", "echo $PROMPTMILL_END_BATCH $PROMPTMILL_END_STATE $PROMPTMILL_END_OUTPUT")
	c.start("worker", "--url", model.url)

	var base string
	poll(t, pollTime, "the batch API", func() bool {
		_, rest, ok := strings.Cut(said.String(), "batch API on ")
		base, _, _ = strings.Cut(rest, "\n")
		return ok
	})

	client := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(base), option.WithMaxRetries(0))
	create := func(lines string) string {
		file, err := client.Files.New(t.Context(), openai.FileNewParams{
			File:    openai.File(strings.NewReader(lines), "in.jsonl", "application/jsonl"),
			Purpose: openai.FilePurposeBatch,
		})
		must(t, err)
		b, err := client.Batches.New(t.Context(), openai.BatchNewParams{
			InputFileID:      file.ID,
			Endpoint:         openai.BatchNewParamsEndpointV1ChatCompletions,
			CompletionWindow: openai.BatchNewParamsCompletionWindow24h,
		})
		must(t, err)

		return b.ID
	}

	good := create(`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"sim","messages":[{"role":"user","content":"hi"}]}}`)
	bad := create("no JSON\n")

	events, _ := r.await(2)
	if diff := cmp.Diff(map[string]bool{"batch.completed " + good: true, "batch.failed " + bad: true},
		map[string]bool{events[0]: true, events[1]: true}); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	b, err := client.Batches.Get(t.Context(), good)
	if err != nil || b.Status != openai.BatchStatusCompleted {
		t.Errorf("the batch of the event: %+v, %v", b, err)
	}

	results := filepath.Join(c.dir, "out", strings.TrimPrefix(good, "batch_")+".jsonl.zst")
	for _, want := range []string{
		"--on-end: " + good + " completed " + results + "\n",
		"--on-end: " + bad + " failed\n",
	} {
		poll(t, pollTime, want, func() bool { return strings.Contains(said.String(), want) })
	}

	if list := c.awaitDeliveries(webhook.Delivered); len(list) != 4 {
		t.Errorf("%d deliveries, want one for each batch and endpoint: %+v", len(list), list)
	}
}
