package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/files"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// natsVersions are the NATS servers of which a node may die: the newest of each line that
// promptmill works with.
var natsVersions = []string{"v2.15.3", "v2.14.10", "v2.12.15", "v2.11.15"}

// allDeaths is the variable with which every node dies in every phase with every version.
const allDeaths = "PROMPTMILL_TEST_ALL_DEATHS"

// phase is the phase of a run in which a node dies.
type phase string

const (
	publishing phase = "publishing" // the work stream is full, and takes the rest as it empties
	working    phase = "working"    // all is published, and most of it is not answered
	collecting phase = "collecting" // the model has answered all, and not all is in the output
	finishing  phase = "finishing"  // all is in the journal, and the output files are being written
)

// death is a node that is lost while a run works.
type death struct {
	version   string
	phase     phase
	leads     string // the leadership of the node: the results, the work, or the cluster (meta)
	connected bool   // promptmill is connected to it, and not to another
	signal    syscall.Signal
}

func (d death) String() string {
	text := fmt.Sprintf("%s-%s-%s", d.version, d.phase, d.leads)
	if d.connected {
		text += "-connected"
	}
	if d.signal == syscall.SIGSTOP {
		text += "-frozen"
	}

	return text
}

// A node of a cluster of three that dies without a goodbye stops no run, at any role of the
// node, at any step of the run, and for each of the servers: lines come again, all of them
// by the end, and the command ends as usual. How long no line came is logged and not
// bounded: an election of NATS takes up to 9 s, and may have to be repeated.
//
// PROMPTMILL_TEST_ALL_DEATHS=1 has each node die in each phase with each version.
func TestNodeDies(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it runs clusters of other NATS servers")
	}

	t.Parallel()

	newest, kill := natsVersions[0], syscall.SIGKILL
	deaths := []death{
		{newest, publishing, "work", true, kill},
		{newest, working, "results", false, kill},
		{newest, collecting, "results", true, kill},
		{newest, finishing, "meta", true, kill},
		{newest, working, "work", true, syscall.SIGSTOP},
		{natsVersions[1], finishing, "work", false, kill},
		{natsVersions[2], working, "meta", true, kill},
		{natsVersions[3], collecting, "work", false, kill},
	}
	if os.Getenv(allDeaths) != "" {
		deaths = nil
		for _, version := range natsVersions {
			for i, phase := range []phase{publishing, working, collecting, finishing} {
				for j, leads := range []string{"results", "work", "meta"} {
					deaths = append(deaths, death{version, phase, leads, (i+j)%2 == 0, kill})
				}
			}
			deaths = append(deaths, death{version, working, "results", true, syscall.SIGSTOP})
		}
	}

	two := make(chan struct{}, 2) // at once
	for _, d := range deaths {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			two <- struct{}{}
			defer func() { <-two }()
			loseNode(t, d)
		})
	}
}

func loseNode(t *testing.T, d death) {
	const requests = 3000
	nodes, l, leader := startNATSRelease(t, d.version)
	places := map[string]*natsNode{}
	free := []string{"results", "work"}
	for _, n := range nodes {
		if n.name == leader {
			places["meta"] = n
		} else {
			places[free[0]], free = n, free[1:]
		}
	}

	lost := places[d.leads]

	must(t, bus.CreateBuckets(t.Context(), l.JS, bus.Limits{Replicas: 3}))
	if d.phase == publishing {
		opened, err := bus.Open(t.Context(), l.JS)
		must(t, err)
		runs := opened.Runs
		must(t, runs.SetLimits(t.Context(), bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 64 << 20}))
	}

	finalizing := make(chan struct{})
	finalize := sync.OnceFunc(func() { close(finalizing) })
	_, err := l.Conn.Subscribe("$KV."+proto.RunsBucket+".r", func(msg *nats.Msg) {
		var m proto.Manifest
		if json.Unmarshal(msg.Data, &m) == nil && m.State == proto.StateFinalizing {
			finalize()
		}
	})

	must(t, err)

	c := newCommand(t)
	model := newModel(t, sim.Config{Slots: 128, TTFT: 150 * time.Millisecond, Spread: 0.2, Tokens: 10})
	model.sim.Hang(true)
	in := c.noise("in.jsonl", requests)
	out := output.Prefix(filepath.Join(c.dir, "out"))

	urls := []string{lost.url()} // which names the others
	for _, n := range nodes {
		if n != lost && !d.connected {
			urls = append([]string{n.url()}, urls...)
		}
	}

	running, said := c.startAs(nil, "run", in, "--nats", strings.Join(urls, ","), "--replicas", "3", "--run", "r",
		"-o", "out.jsonl.zst",
		"--url", model.url, "--model", "sim", "--concurrency", "128", "--flush", "200ms", "--progress", "json")

	manifest := func() (m proto.Manifest) {
		if msg, err := bus.LastMessage(
			t.Context(), l.JS, "KV_"+proto.RunsBucket, "$KV."+proto.RunsBucket+".r",
		); err == nil {
			m, _ = proto.ParseManifest("r", msg.Data)
		}
		return m
	}

	poll(t, pollTime, "the run", func() bool { return manifest().Run != "" })
	lead(t, l.JS, proto.ResultsStream("r"), places["results"].name)
	lead(t, l.JS, proto.WorkStream("r"), places["work"].name)

	if d.phase != publishing {
		poll(t, patience, "all shards on the bus", func() bool { return manifest().Publish.Done })
	}

	model.sim.Hang(false)

	var written pulse
	go written.follow(t.Context(), func() int { // bytes in the journal
		info, err := os.Stat(out.Journal())
		if err != nil {
			return 0
		}
		return int(info.Size())
	})

	switch d.phase {
	case publishing, working:
		begin := time.Now()
		poll(t, patience, "lines in the journal", func() bool {
			return model.sim.Succeeded() > 300 && written.silent(begin) < time.Second
		})

		if done := manifest().Publish.Done; done != (d.phase == working) {
			t.Errorf("all is published: %t", done)
		}
	case collecting:
		poll(t, patience, "all answers", func() bool { return model.sim.Succeeded() >= requests })
	case finishing:
		select {
		case <-finalizing:
		case <-time.After(patience):
			t.Fatalf("the run is not finalizing:\n%s", said)
		}
	}

	where := consumers(l.JS)
	begin := time.Now()
	lost.cmd.Process.Signal(d.signal)

	code := waitExit(t, running, said, patience)
	stall, took := written.longest(begin), time.Since(begin)
	if code != exit.CodeOK {
		t.Errorf("exit code %d:\n%s", code, said)
		return
	}

	meta, err := out.ReadMeta()
	must(t, err)
	t.Logf("%s: no line for %.1f s at most, the end after %.1f s; worked %.1f s, idle %.1f s; consumers: %s",
		d, stall.Seconds(), took.Seconds(),
		meta.Results.InferenceTimeSeconds, *meta.Results.IdleTimeSeconds, where)

	if idle := *meta.Results.IdleTimeSeconds; idle > 0 {
		t.Errorf("%.1f s count as idle", idle)
	}

	if text, code := c.run("verify", in, out.Results()); code != exit.CodeOK {
		t.Errorf("verify: exit code %d:\n%s", code, text)
	}

	if t.Failed() || testing.Verbose() {
		t.Logf("output of run:\n%s", said)
	}
}

// noise writes requests of 1 KB each that do not compress.
func (c command) noise(name string, n int) string {
	c.t.Helper()

	file, err := os.Create(filepath.Join(c.dir, name))
	must(c.t, err)

	w, random, text := bufio.NewWriter(file), rand.NewChaCha8([32]byte{4}), make([]byte, 750)
	for i := range n {
		random.Read(text)
		fmt.Fprintf(w, "{\"custom_id\":\"q-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}\n",
			i, base64.StdEncoding.EncodeToString(text))
	}

	must(c.t, errors.Join(w.Flush(), file.Close()))

	return name
}

// startNATSRelease starts a cluster of three of a version of the server, and returns the
// name of its leader.
func startNATSRelease(t *testing.T, version string) (nodes []*natsNode, l *busconn.Connection, leader string) {
	t.Helper()

	program := natsRelease(t, version)
	seats := clusterSeats(t, 3, "")
	pages := freePorts(t, len(seats))
	for i, seat := range seats {
		file, err := os.OpenFile(seat.config, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = fmt.Fprintf(file, "http: \"127.0.0.1:%d\"\n", pages[i])
		must(t, errors.Join(err, file.Close()))
	}

	nodes, l = startNATSProgram(t, program, seats, nil)
	poll(t, patience, "a leader of the cluster", func() bool {
		var page struct {
			Meta struct {
				Leader string `json:"leader"`
			} `json:"meta_cluster"`
		}

		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/jsz", pages[0]))
		if err != nil {
			return false
		}
		defer resp.Body.Close()

		if json.NewDecoder(resp.Body).Decode(&page) != nil {
			return false
		}

		leader = page.Meta.Leader

		return leader != ""
	})

	http.DefaultClient.CloseIdleConnections()

	return nodes, l, leader
}

// natsRelease is the program of a version of the NATS server.
func natsRelease(t *testing.T, version string) string {
	t.Helper()
	return goProgram(t, "github.com/nats-io/nats-server/v2", "nats-server", version)
}

// goProgram is the program of a Go package at a version. It is built once on each machine, and kept in
// the user's cache.
func goProgram(t *testing.T, pkg, name, version string) string {
	t.Helper()

	cache, err := os.UserCacheDir()
	must(t, err)
	cache = filepath.Join(cache, "promptmill-test")
	program := filepath.Join(cache, name+"-"+version)
	building.Lock()
	defer building.Unlock()

	if files.Exists(program) {
		return program
	}

	must(t, os.MkdirAll(cache, 0o755))
	dir, err := os.MkdirTemp(cache, "build-")
	must(t, err)
	defer os.RemoveAll(dir)

	build := exec.CommandContext(t.Context(), "go", "install", pkg+"@"+version)
	build.Dir, build.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOWORK=off", "GOFLAGS=")
	if text, err := build.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: %s %s cannot be had from the Go module proxy: %v\n%s", name, version, err, text)
	}

	must(t, os.Rename(filepath.Join(dir, name), program)) // in one step: other tests also build it

	return program
}

var building sync.Mutex

// lead makes a node the leader of a stream.
func lead(t *testing.T, js jetstream.JetStream, stream, node string) {
	t.Helper()

	for range 20 {
		if wholeStream(t, js, stream) == node {
			return
		}

		request := fmt.Sprintf(`{"placement":{"preferred":%q}}`, node)
		if _, err := js.Conn().Request(
			"$JS.API.STREAM.LEADER.STEPDOWN."+stream, []byte(request), 5*time.Second,
		); err != nil {
			t.Logf("stream %s: step down: %v", stream, err)
		}
	}

	t.Fatalf("node %s does not come to lead stream %s", node, stream)
}

// consumers returns the leaders of a run's consumers.
func consumers(js jetstream.JetStream) (text string) {
	for _, name := range []string{proto.WorkStream("r"), proto.ResultsStream("r")} {
		resp, err := js.Conn().Request("$JS.API.CONSUMER.LIST."+name, nil, 2*time.Second)
		if err != nil {
			return err.Error()
		}

		var list struct {
			Consumers []jetstream.ConsumerInfo `json:"consumers"`
		}

		json.Unmarshal(resp.Data, &list)
		for _, info := range list.Consumers {
			text += fmt.Sprintf(" %s at %s (of %d)", name, info.Cluster.Leader, 1+len(info.Cluster.Replicas))
		}
	}

	return strings.TrimSpace(text)
}
