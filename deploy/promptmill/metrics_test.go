package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/worker/sim"
)

// loopbackPort is a free port, as an address that means this machine alone to --metrics.
func loopbackPort(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf(":%d", freePorts(t, 1)[0])
}

// scrape reads our metrics at a port of this machine, without the buckets of
// the histogram: values by name and labels, as they are written. nil: nothing is served.
func scrape(t *testing.T, port string) map[string]float64 {
	t.Helper()

	res, err := http.Get("http://127.0.0.1" + port + "/metrics")
	if err != nil {
		return nil
	}
	defer res.Body.Close()

	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", res.Status, err, text)
	}

	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, labels := strings.Cut(strings.TrimSpace(line), "} ")
		if !labels {
			name, value, _ = strings.Cut(name, " ")
		}

		name, ours := strings.CutPrefix(name, "promptmill_") // the rest is Go's
		if !ours || strings.Contains(line, "_bucket{") {
			continue
		}

		if values[name+"}"], err = strconv.ParseFloat(value, 64); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}

	return values
}

// only are the values with that word in their names.
func only(values map[string]float64, word string) map[string]float64 {
	values = maps.Clone(values)
	maps.DeleteFunc(values, func(name string, _ float64) bool { return !strings.Contains(name, word) })
	return values
}

// In the middle of a run, with one request at the model server and all others done, the
// metrics report that alone. Only this machine can read them.
func TestMetricsOfRun(t *testing.T) {
	t.Parallel()

	const requests = 100
	c := newCommand(t)
	model, held := sim.New(sim.Config{
		Models: []string{"sim"},
		Slots:  16,
		TTFT:   5 * time.Millisecond,
		Tokens: 10,
	}), make(chan struct{})

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && model.Succeeded() == requests-1 {
			<-held
		}
		model.ServeHTTP(w, r)
	}))

	t.Cleanup(server.Close)
	in, port := c.input("in.jsonl", requests), loopbackPort(t)
	run, out := c.startAs(nil, "run", in, "--run", "r", "--url", server.URL, "--concurrency", "1",
		"-o", "out.jsonl.zst", "--flush", "50ms",
		"--shard-size", "10", "--progress", "none", "--metrics", port)

	var got map[string]float64
	poll(t, pollTime, "all requests but one", func() bool {
		got = scrape(t, port)
		return got[`collector_durable_lines{run="r"}`] == requests-1
	})

	name := fmt.Sprintf("worker=%q", pipeline.HostName())
	lines := sum(t, c.journal("out"), "")
	delete(got, "worker_attempt_seconds_sum{"+name+"}") // is a time
	if got[`bus_up}`] != 1 || got[`run_requests{run="r"}`] != requests {
		t.Errorf("the bus is not in the metrics: %v", got)
	}
	maps.DeleteFunc(got, func(name string, _ float64) bool { // the state of the bus may be 5 s old
		kind, _, _ := strings.Cut(name, "_")
		return slices.Contains([]string{"boxes", "build", "bus", "disk", "gpu", "run"}, kind)
	})

	shards := got[`producer_shards_published_total{run="r"}`]
	if shards < requests/10 {
		t.Errorf("%g shards of at most 10 requests were published", shards)
	}

	want := map[string]float64{
		`worker_requests_total{outcome="answered",` + name + `}`: requests - 1,
		`worker_requests_total{outcome="failed",` + name + `}`:   0,
		`worker_attempt_seconds_count{` + name + `}`:             requests - 1,
		`worker_in_flight{` + name + `}`:                         1,
		`worker_limit{` + name + `}`:                             1,
		`worker_ready{` + name + `}`:                             1,
		`worker_tokens_total{direction="in",` + name + `}`:       lines.in,
		`worker_tokens_total{direction="out",` + name + `}`:      lines.out,
		`worker_shards_acked_total{` + name + `}`:                shards - 1,
		`worker_shards_redelivered_total{` + name + `}`:          0,
		`worker_rerun_requests_total{` + name + `}`:              0,
		`worker_discarded_attempts_total{` + name + `}`:          0,
		`worker_discarded_tokens_total{` + name + `}`:            0,
		`producer_shards_published_total{run="r"}`:               shards,
		`producer_waiting{run="r"}`:                              0,
		`collector_requests{run="r"}`:                            requests,
		`collector_lines_total{outcome="answered",run="r"}`:      requests - 1,
		`collector_lines_total{outcome="failed",run="r"}`:        0,
		`collector_durable_lines{run="r"}`:                       requests - 1,
		`collector_stopped{run="r"}`:                             0,
		`collector_duplicates_total{run="r"}`:                    0,
		`collector_tokens_total{direction="in",run="r"}`:         lines.in,
		`collector_tokens_total{direction="out",run="r"}`:        lines.out,
	}
	for _, reason := range []string{"429", "500", "connection_error", "stall", "timeout"} { // for example
		if n, known := got[fmt.Sprintf("worker_failed_attempts_total{reason=%q,%s}", reason, name)]; !known || n != 0 {
			t.Errorf("%g attempts failed with %s; known: %v", n, reason, known)
		}
	}
	maps.DeleteFunc(got, func(name string, n float64) bool { return strings.Contains(name, "failed_attempts") && n == 0 })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}

	if address := elsewhere(t); address != "" {
		if conn, err := net.Dial("tcp", address+port); err == nil {
			conn.Close()
			t.Errorf("others can read the metrics at %s%s", address, port)
		}
	}

	close(held)
	if code := waitExit(t, run, out, patience); code != exit.CodeOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
}

// sums are the sums of lines.
type sums struct {
	answered, failed, attempts, in, out float64
	discarded                           float64            // tokens
	reasons                             map[string]float64 // of attempts that were followed by another
}

// sum adds up the lines of a worker, or of all.
func sum(t *testing.T, lines map[string][]byte, worker string) sums {
	t.Helper()

	s := sums{reasons: map[string]float64{}}
	for _, text := range lines {
		if worker != "" && workerOf(t, text) != worker {
			continue
		}

		var line struct {
			Response struct {
				Body struct {
					Usage struct {
						In  float64 `json:"prompt_tokens"`
						Out float64 `json:"completion_tokens"`
					}
				}
				Status int `json:"status_code"`
			}
			Promptmill struct {
				Attempts  float64
				Retried   string
				Discarded float64 `json:"discarded_tokens"`
			}
		}
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}

		if line.Response.Status == http.StatusOK {
			s.answered++
		} else {
			s.failed++
		}

		s.attempts += line.Promptmill.Attempts
		s.discarded += line.Promptmill.Discarded
		s.in += line.Response.Body.Usage.In
		s.out += line.Response.Body.Usage.Out

		for reason := range strings.SplitSeq(line.Promptmill.Retried, ",") {
			if reason != "" {
				s.reasons[reason]++
			}
		}
	}

	return s
}

// elsewhere is an address of this machine that is not the loopback's, or "".
func elsewhere(t *testing.T) string {
	t.Helper()

	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}

	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}

	return ""
}

// The counts that a worker reports are the sums of its lines: answers, refusals, attempts
// at a server with faults, and shards that another box has begun. serve reports the
// runs that it collects, as long as it does.
func TestMetricsOfBoxes(t *testing.T) {
	t.Parallel()

	const requests = 300
	c := newCommand(t)
	m := newModel(t, sim.Config{
		Slots:  8,
		TTFT:   30 * time.Millisecond,
		Tokens: 10,
		Seed:   3,
		Faults: sim.Faults{"500": 0.08, "garbage": 0.08, "context": 0.05},
	})

	serve, one, two := loopbackPort(t), loopbackPort(t), loopbackPort(t)
	c.serve("--metrics", serve)
	first, said := c.startAs(nil, "worker", "--name", "one", "--url", m.url, "--concurrency", "8", "--grace", "1ms",
		"--metrics", one)
	in := c.input("in.jsonl", requests)
	c.must("submit", in, "--run", "r", "--model", "sim", "--shard-size", "50")
	poll(t, pollTime, "answers", func() bool {
		return scrape(t, one)[`worker_requests_total{outcome="answered",worker="one"}`] >= 70
	})

	terminate(t, first, said)
	poll(t, pollTime, "all lines of the first box", func() bool {
		got, lines := scrape(t, serve), c.journal("r")
		return float64(len(lines)) == got[`collector_lines_total{outcome="answered",run="r"}`]+
			got[`collector_lines_total{outcome="failed",run="r"}`]
	})

	got, want := scrape(t, serve), sum(t, c.journal("r"), "")
	for name, value := range map[string]float64{
		`collector_requests{run="r"}`:                       requests,
		`collector_lines_total{outcome="answered",run="r"}`: want.answered,
		`collector_lines_total{outcome="failed",run="r"}`:   want.failed,
		`collector_tokens_total{direction="in",run="r"}`:    want.in,
		`collector_tokens_total{direction="out",run="r"}`:   want.out,
	} {
		if got[name] != value {
			t.Errorf("%s is %g, and should be %g", name, got[name], value)
		}
	}

	c.startAs(nil, "worker", "--name", "two", "--url", m.url, "--concurrency", "8", "--attempts", "9", "--metrics", two)
	c.ended("r", patience)
	c.verified(in, "r")
	poll(t, pollTime, "the end of the collector's metrics", func() bool {
		return len(only(scrape(t, serve), "collector_")) == 0
	})
	poll(t, pollTime, "the end of the run", func() bool {
		return scrape(t, serve)[`run_state{run="r",state="completed"}`] == 1
	})
	got = scrape(t, serve)
	if got[`run_lines{outcome="answered",run="r"}`] == 0 || got[`bus_worker_ready{worker="two"}`] != 1 {
		t.Errorf("the run or the worker is not in the metrics of the bus: %v", got)
	}
	c.must("delete", "r")
	poll(t, pollTime, "no metrics of a deleted run", func() bool { return len(only(scrape(t, serve), `run="r"`)) == 0 })
	lines := c.lines("r.jsonl.zst")
	maps.Copy(lines, c.lines("r.errors.jsonl.zst"))

	want, got = sum(t, lines, "two"), scrape(t, two)
	if want.failed == 0 || want.reasons["500"] == 0 || want.reasons["invalid_response"] == 0 {
		t.Fatalf("the second box had not all faults: %+v", want)
	}

	reasons := map[string]float64{}
	for reason, n := range want.reasons {
		reasons[fmt.Sprintf("worker_failed_attempts_total{reason=%q,worker=%q}", reason, "two")] = n
	}

	met := only(got, "failed_attempts")
	maps.DeleteFunc(met, func(_ string, n float64) bool { return n == 0 }) // known reasons that were not met
	if diff := cmp.Diff(reasons, met); diff != "" {
		t.Errorf("failed attempts (-want +got):\n%s", diff)
	}

	for name, value := range map[string]float64{
		`worker_requests_total{outcome="answered",worker="two"}`: want.answered,
		`worker_requests_total{outcome="failed",worker="two"}`:   want.failed,
		`worker_attempt_seconds_count{worker="two"}`:             want.attempts,
		`worker_tokens_total{direction="in",worker="two"}`:       want.in,
		`worker_tokens_total{direction="out",worker="two"}`:      want.out,
		`worker_discarded_attempts_total{worker="two"}`:          want.attempts - want.answered - want.failed,
		`worker_discarded_tokens_total{worker="two"}`:            want.discarded,
		`worker_in_flight{worker="two"}`:                         0,
		`worker_limit{worker="two"}`:                             8,
	} {
		if got[name] != value {
			t.Errorf("%s is %g, and should be %g", name, got[name], value)
		}
	}

	if n := got[`worker_shards_redelivered_total{worker="two"}`]; n < 1 {
		t.Errorf("%g shards were begun by the other box", n)
	}

	if n := got[`worker_attempt_seconds_sum{worker="two"}`]; n < want.answered*0.02 {
		t.Errorf("%g attempts took %g s in all", want.attempts, n)
	}
}

// An address that cannot be had is refused before anything is begun.
func TestMetricsAddress(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	in := c.input("in.jsonl", 3)

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()

	taken := busy.Addr().String()
	for address, want := range map[string]struct {
		code int
		said string
	}{
		taken: {exit.CodeError, "promptmill: error: cannot serve metrics at " + taken +
			": another process has this port already\npromptmill: hint: choose another port with --metrics [HOST]:PORT\n"},
		"9100": {exit.CodeUsage,
			"promptmill: error: --metrics 9100: it has no port\npromptmill: hint: for example --metrics :9464\n"},
	} {
		for _, args := range [][]string{
			{"run", in, "--sim"},
			{"serve", "--listen", "127.0.0.1:0"},
			{"worker", "--sim"},
		} {
			text, code := c.run(append(args, "--metrics", address)...)
			if diff := cmp.Diff(want.said, text); code != want.code || diff != "" {
				t.Errorf("%s --metrics %s: exit code %d (-want +got):\n%s", args[0], address, code, diff)
			}
		}
	}
}
