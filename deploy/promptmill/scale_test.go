package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/scale"
	"github.com/promptmill/promptmill/worker/sim"
)

// askScale asks serve for boxes.
func askScale(t *testing.T, port, query string) (a scale.Answer) {
	t.Helper()

	code, text := call(t, http.DefaultClient, "GET", "http://127.0.0.1"+port+scale.Path+query, "")
	if code != http.StatusOK {
		t.Fatalf("%s: %d %s", query, code, text)
	}
	must(t, json.Unmarshal([]byte(text), &a))

	return a
}

// Serve wants one box until it has seen what a box does, then as many as end the run in time, and none while it is
// paused or done. The gauge has the same number.
func TestScale(t *testing.T) {
	t.Parallel()

	const slots, seconds, requests = 4, 0.2, 5000 // 20 requests a second: 250 s with one box
	c, port := newCommand(t), loopbackPort(t)
	_, out := c.start("serve", "--listen", "127.0.0.1:0", "--metrics", port, "--scale-within", "2h")
	poll(t, pollTime, "the bus", func() bool { return strings.Contains(out.String(), "serving ") })
	if a := askScale(t, port, "?model=sim"); a.Value != 0 || a.By != nil {
		t.Errorf("without a run: %+v", a)
	}

	c.must("submit", c.input("in.jsonl", requests), "--model", "sim", "--run", "r")
	var a scale.Answer
	poll(t, pollTime, "the run", func() bool {
		a = askScale(t, port, "?model=sim&within=1s")
		return a.Value > 0
	})
	if a.Value != 1 || a.RequestsLeft != requests || a.Boxes != 0 || a.BoxRequestsPerS != nil {
		t.Errorf("without a box: %+v", a)
	}

	m := newModel(t, sim.Config{TTFT: 200 * time.Millisecond, Tokens: 1})
	worker, said := c.start("worker", "--url", m.url, "--concurrency", "4", "--metrics", loopbackPort(t))
	poll(t, pollTime, "a measured box", func() bool {
		a = askScale(t, port, "?model=sim&within=1s")
		return a.BoxRequestsPerS != nil
	})
	if most := 1.5 * slots / seconds; *a.BoxRequestsPerS > most || a.Value < int(requests/2/most) || a.Boxes != 1 {
		t.Errorf("%+v; the server ends %.0f requests a second", a, slots/seconds)
	}
	if a := askScale(t, port, "?within=1s&max=7"); a.Value != 7 || a.Model != nil {
		t.Errorf("at most 7 boxes for all models: %+v", a)
	}
	if a := askScale(t, port, "?model=sim"); a.Value != 1 || a.By.Before(time.Now().Add(time.Hour)) {
		t.Errorf("within the time of --scale-within: %+v", a)
	}
	if a := askScale(t, port, "?model=other"); a.Value != 0 {
		t.Errorf("an unknown model: %+v", a)
	}
	if got, known := scrape(t, port)[`boxes_wanted{model="sim"}`]; got != 1 || !known {
		t.Errorf("the gauge is %g", got)
	}

	c.must("pause", "r")
	poll(t, pollTime, "no box", func() bool { return askScale(t, port, "?model=sim&within=1s").Value == 0 })
	if got, known := scrape(t, port)[`boxes_wanted{model="sim"}`]; got != 0 || !known {
		t.Errorf("the gauge of a paused run is %g, known: %v", got, known)
	}

	// What a box does is remembered when all of them are gone.
	must(t, worker.Process.Signal(syscall.SIGTERM))
	if code := waitExit(t, worker, said, patience); code != exit.CodeOK {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	c.must("resume", "r")
	poll(t, pollTime, "boxes for the rest", func() bool { return askScale(t, port, "?model=sim&within=1s").Value > 1 })
}

// A worker has no bus to ask, and a wrong parameter no answer.
func TestScaleRefuses(t *testing.T) {
	t.Parallel()

	c, port, workerPort := newCommand(t), loopbackPort(t), loopbackPort(t)
	_, out := c.start("serve", "--listen", "127.0.0.1:0", "--metrics", port)
	poll(t, pollTime, "the bus", func() bool { return strings.Contains(out.String(), "serving ") })
	m := newModel(t, sim.Config{})
	c.start("worker", "--url", m.url, "--metrics", workerPort)
	poll(t, pollTime, "the worker's metrics", func() bool { return scrape(t, workerPort) != nil })

	for address, want := range map[string]int{
		port + "/scale?model=sim&within=soon": http.StatusBadRequest,
		workerPort + "/scale?model=sim":       http.StatusNotFound,
	} {
		if code, text := call(t, http.DefaultClient, "GET", "http://127.0.0.1"+address, ""); code != want ||
			!strings.Contains(text, `"error":`) {
			t.Errorf("%s: %d %s", address, code, text)
		}
	}
}
