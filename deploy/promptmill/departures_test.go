package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// spotInstance is a metadata service of Amazon. Once taken, it says that the instance ends in a minute.
type spotInstance struct {
	*httptest.Server
	taken atomic.Bool
}

func startSpotInstance(t *testing.T) *spotInstance {
	s := &spotInstance{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			fmt.Fprint(w, "token")
		case strings.HasSuffix(r.URL.Path, "/spot/instance-action") && s.taken.Load():
			fmt.Fprintf(w, `{"action": "terminate", "time": %q}`, time.Now().UTC().Add(time.Minute).Format(time.RFC3339))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)

	return s
}

// A worker that gets a notice goes on taking what ends in time, and ends by itself when there is nothing more. One that
// is interrupted only finishes what is in flight.
func TestWorkerLeaves(t *testing.T) {
	t.Parallel()

	const requests, slots = 60, 4
	c := newCommand(t)
	m := newModel(t, sim.Config{
		Slots:  slots,
		TTFT:   100 * time.Millisecond,
		Tokens: 10,
	})
	c.serve()
	leave, spot := filepath.Join(c.dir, "leave"), startSpotInstance(t)

	for _, tt := range []struct {
		name   string
		args   []string
		notify func(worker *os.Process)
		text   string
		stays  bool // some of the run stays on the bus
	}{
		{"term", nil, func(p *os.Process) { p.Signal(syscall.SIGTERM) },
			"leaving: taking only requests that end within 1m0s; a second signal stops now. Nothing is lost", false},
		{"file", []string{"--drain-on", "file:leave"}, func(*os.Process) { must(t, os.WriteFile(leave, nil, 0o600)) },
			"leaving: this box goes away (file:" + leave + ", the file is there)", false},
		{"signal", []string{"--drain-on", "SIGUSR2"}, func(p *os.Process) { p.Signal(syscall.SIGUSR2) },
			"leaving: this box goes away (SIGUSR2, signal); taking only requests that end within 1m0s", false},
		{"spot", []string{"--drain-on", "aws"}, func(*os.Process) { spot.taken.Store(true) },
			"leaving: this box goes away (aws, spot instance: terminate)", false},
		{"int", []string{"--drain-on", "none"}, func(p *os.Process) { p.Signal(os.Interrupt) },
			"stopping: finishing the requests in flight", true},
	} {
		in := c.input(tt.name+".jsonl", requests)
		before := m.sim.Succeeded()
		worker, said := c.startAs([]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + spot.URL}, append([]string{
			"worker", "--name", tt.name, "--url", m.url, "--grace", "1m", "--concurrency", fmt.Sprint(slots),
		}, tt.args...)...)
		c.must("submit", in, "--run", tt.name, "--model", "sim", "--shard-size", "5")
		poll(t, patience, "answers", func() bool { return m.sim.Succeeded() >= before+2*slots })

		tt.notify(worker.Process)
		code := waitExit(t, worker, said, patience)
		if code != exit.CodeOK || !strings.Contains(said.String(), tt.text) {
			t.Errorf("%s: exit code %d:\n%s", tt.name, code, said)
		}

		if answered := m.sim.Succeeded() - before; (answered < requests) != tt.stays {
			t.Errorf("%s: %d of %d requests were answered:\n%s", tt.name, answered, requests, said)
		}

		if tt.stays {
			continue
		}

		c.ended(tt.name, patience)
		c.verified(in, tt.name)
		if !strings.Contains(said.String(), "left; unfinished requests go to other workers") {
			t.Errorf("%s: the worker does not say that it has left:\n%s", tt.name, said)
		}
	}

	if m, ok := c.manifest("int"); !ok || m.State != proto.StateInProgress {
		t.Errorf("the run of the worker that was interrupted is %s", m.State)
	}
}

// A worker whose box goes before there is any work ends at once.
func TestWorkerLeavesBeforeWork(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	must(t, os.WriteFile(filepath.Join(c.dir, "leave"), []byte("2m"), 0o600))
	worker, said := c.start("worker", "--sim", "--drain-on", "file:leave", "--nats", "nats://127.0.0.1:1") // it is down
	if code := waitExit(t, worker, said, patience); code != exit.CodeOK ||
		!strings.Contains(said.String(), "leaving: this box goes away") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

func TestUsageOfDrainOn(t *testing.T) {
	t.Parallel()

	const forms = "give auto, none, aws, gcp, azure, file:PATH, a URL, SIGUSR1 or SIGUSR2"
	testUsages(t, []usage{
		{
			args: "worker --sim --drain-on hetzner",
			err:  `--drain-on: "hetzner" is no source: ` + forms,
			code: 2,
		},
		{
			args: "worker --sim --drain-on aws,none",
			err:  "--drain-on: none excludes every other source",
			code: 2,
		},
		{
			args: "worker --sim --drain-on aws --drain-on aws",
			err:  "--drain-on: aws is given twice",
			code: 2,
		},
		{
			args: "worker --sim --drain-on file:",
			err:  "--drain-on: file: has no path: write file:/run/leave",
			code: 2,
		},
		{
			args: "worker --sim --drain-on http://",
			err:  `--drain-on: the URL has no host: "http://"`,
			code: 2,
		},
	})
}
