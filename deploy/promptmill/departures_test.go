package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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

// A worker whose box goes before there is any work waits for it, and ends by the deadline.
func TestWorkerLeavesBeforeWork(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{})
	leave := filepath.Join(c.dir, "leave")
	must(t, os.WriteFile(leave, []byte("1h"), 0o600))
	await := func(name string, extra ...string) (*exec.Cmd, *lockedBuffer) {
		worker, said := c.start(append([]string{
			"worker", "--name", name, "--url", m.url, "--drain-on", "file:leave",
		}, extra...)...)
		poll(t, patience, "the notice", func() bool {
			return strings.Contains(said.String(), "leaving: this box goes away")
		})

		return worker, said
	}

	c.serve()
	ends, said := await("ends", "--nats", "nats://127.0.0.1:1") // it is down
	works, workSaid := await("works")
	in := c.input("in.jsonl", 8)
	c.must("submit", in, "--run", "r", "--model", "sim")
	c.ended("r", patience)
	c.verified(in, "r")

	must(t, os.WriteFile(leave, []byte("0s"), 0o600))
	if code := waitExit(t, ends, said, patience); code != exit.CodeOK {
		t.Errorf("without a bus: exit code %d:\n%s", code, said)
	}

	if code := waitExit(t, works, workSaid, patience); code != exit.CodeOK {
		t.Errorf("after the work: exit code %d:\n%s", code, workSaid)
	}
}

// A notice bounds what a worker finishes after Ctrl-C.
func TestNoticeAfterInterrupt(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: time.Hour})
	c.serve()
	worker, said := c.start("worker", "--url", m.url, "--grace", "1h", "--drain-on", "file:leave")
	c.must("submit", c.input("in.jsonl", 4), "--run", "r", "--model", "sim")
	poll(t, patience, "requests in flight", func() bool { return c.workers(1)[0].InFlight > 0 })

	must(t, worker.Process.Signal(os.Interrupt))
	poll(t, patience, "the first signal", func() bool { return strings.Contains(said.String(), "stopping: finishing") })
	must(t, os.WriteFile(filepath.Join(c.dir, "leave"), []byte("3s"), 0o600))

	if code := waitExit(t, worker, said, patience); code != exit.CodeOK {
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
