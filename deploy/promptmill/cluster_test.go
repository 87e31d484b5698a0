package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/verify"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/modelserver"
	"github.com/promptmill/promptmill/worker/sim"
)

// A run on a cluster of three servers continues while each of them in turn, also as
// a leader, is shut down and comes back with its store; it stands still while two
// are away; and ends with exactly one line for each request.
func TestClusterNodesComeAndGo(t *testing.T) {
	t.Parallel()

	const requests = 12_000
	c := startCluster(t)
	r := startClusterRun(t, c, requests)
	work, results, model := proto.WorkStream(r.id), proto.ResultsStream(r.id), proto.ConsumerName("sim")

	r.during("nothing happens", r.progress)
	r.during("a node that leads neither stream is away", func() {
		led := []*clusterNode{c.leaderOf(work, ""), c.leaderOf(results, "")}
		for _, n := range c.nodes {
			if n != led[0] && n != led[1] {
				r.without(n)
				return
			}
		}
	})

	r.during("the leader of the work stream is away", func() {
		if m := r.manifest(); m.Publish.Done {
			t.Error("the publishing was over before its stream's leader went")
		}
		r.without(c.leaderOf(work, ""))
	})

	r.during("the leader of the results stream is away", func() { r.without(c.leaderOf(results, "")) })
	r.during("the leader of the work's consumer steps down", func() {
		before := c.leaderOf(work, model)
		_, err := c.js.Conn().Request("$JS.API.CONSUMER.LEADER.STEPDOWN."+work+"."+model, nil, 5*time.Second)
		if err != nil {
			t.Fatalf("step down: %v", err)
		}
		poll(t, patience, "another leader of the consumer", func() bool { return c.leaderOf(work, model) != before })
		r.progress()
	})

	r.during("the leader of the work's consumer is away", func() { r.without(c.leaderOf(work, model)) })
	r.during("the node that the collector talks to is away", func() {
		r.without(c.node(r.link.Conn.ConnectedServerName()))
	})

	r.during("two of three nodes are away", func() {
		for _, n := range c.nodes[1:] {
			n.stop()
		}

		r.still()
		for _, n := range c.nodes[1:] {
			n.start(t)
		}

		for _, n := range c.nodes[1:] {
			n.healthy(t)
		}

		r.progress()
	})

	r.finish()
}

// An object that is stored while its stream has no leader for a moment is stored as it
// is.
func TestObjectStoredWithoutLeader(t *testing.T) {
	t.Parallel()

	_, js := prototest.Server(t)
	ctx := t.Context()
	cfg := jetstream.ObjectStoreConfig{Bucket: proto.ObjectsBucket("r")}
	if _, err := js.CreateObjectStore(ctx, cfg); err != nil {
		t.Fatal(err)
	}

	data := make([]byte, 1_000_000) // several chunks
	rand.NewChaCha8([32]byte{3}).Read(data)
	objects := bus.New(js).Objects("r")
	back := make(chan error, 1)
	// No server listens for the first chunks, as while a leader is elected.
	err := objects.PutReader(ctx, "big", &noticed{Reader: bytes.NewReader(data), begin: func() {
		if err := js.DeleteObjectStore(ctx, cfg.Bucket); err != nil {
			t.Error(err)
		}
		time.AfterFunc(100*time.Millisecond, func() {
			_, err := js.CreateObjectStore(ctx, cfg)
			back <- err
		})
	}})
	if err := <-back; err != nil {
		t.Fatal(err)
	}

	if err != nil {
		t.Fatalf("it is not stored: %v", err)
	}

	if got, err := objects.Get(ctx, "big"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the object was stored, and is damaged: %v", err)
	}
}

// noticed is a reader that signals its first read.
type noticed struct {
	io.Reader
	begin func()
}

func (n *noticed) Read(p []byte) (int, error) {
	if n.begin != nil {
		n.begin()
		n.begin = nil
	}
	return n.Reader.Read(p)
}

// clusterSeat is the place of a node in a cluster, whether it runs or not.
type clusterSeat struct {
	name   string
	port   int    // of clients
	config string // file
}

func (s clusterSeat) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// A command that starts while the cluster has no leader, as it may for seconds after a
// node died, waits for one.
func TestBucketsMadeWithoutLeader(t *testing.T) {
	t.Parallel()

	c := startCluster(t)
	c.nodes[1].stop()
	c.nodes[2].stop()
	l := c.connect(0, zerolog.Nop())
	made := make(chan error, 1)
	go func() { made <- bus.CreateBuckets(t.Context(), l.JS, bus.Limits{Replicas: 3}) }()
	poll(t, patience, "the question on the bus", func() bool { return l.Conn.Stats().OutMsgs > 0 })
	c.nodes[1].start(t)
	c.nodes[2].start(t)
	if err := <-made; err != nil {
		t.Fatal(err)
	}
}

// clusterSeats are the places of n nodes that know each other, or of one alone. more
// is added to each one's configuration.
func clusterSeats(t *testing.T, n int, more string) (seats []clusterSeat) {
	t.Helper()

	ports := freePorts(t, 2*n)
	var routes []string
	for _, port := range ports[n:] {
		routes = append(routes, fmt.Sprintf("\"nats://127.0.0.1:%d\"", port))
	}

	dir := t.TempDir()
	for i := range n {
		s := clusterSeat{name: fmt.Sprintf("n%d", i+1), port: ports[i]}
		s.config = filepath.Join(dir, s.name+".conf")

		text := fmt.Sprintf("server_name: %s\nlisten: \"127.0.0.1:%d\"\njetstream { store_dir: %q, sync_interval: 1s }\n",
			s.name, s.port, filepath.Join(dir, s.name))
		if n > 1 {
			text += fmt.Sprintf("cluster { name: pm, listen: \"127.0.0.1:%d\", routes: [%s] }\n",
				ports[n+i], strings.Join(routes, ", "))
		}

		if err := os.WriteFile(s.config, []byte(text+more), 0o644); err != nil {
			t.Fatal(err)
		}

		seats = append(seats, s)
	}

	return seats
}

// freePorts finds ports without a listener. The system
// does not give them to outgoing connections, which could take one while its server is away.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()

	for range 10_000 {
		port := 20_000 + rand.IntN(10_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() // at the end, so that all are different

		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}

	t.Fatalf("no %d free ports", n)

	return nil
}

// testCluster is a cluster of three nodes in this process.
type testCluster struct {
	t     *testing.T
	nodes []*clusterNode
	js    jetstream.JetStream // of a connection for the test's questions
}

type clusterNode struct {
	clusterSeat
	server *server.Server // nil while it is down
}

func startCluster(t *testing.T) *testCluster {
	t.Helper()

	c := &testCluster{t: t}
	for _, seat := range clusterSeats(t, 3, "max_payload: 262144\n") { // small, so that not so big requests are big
		n := &clusterNode{clusterSeat: seat}
		c.nodes = append(c.nodes, n)
		n.start(t)
		t.Cleanup(n.stop)
	}

	poll(t, patience, "a leader of the cluster", func() bool {
		for _, n := range c.nodes {
			if n.server.JetStreamIsLeader() {
				return len(n.server.JetStreamClusterPeers()) == len(c.nodes)
			}
		}
		return false
	})

	c.js = c.connect(0, zerolog.Nop()).JS

	return c
}

// connect connects to the cluster as the program does, to the node first first.
func (c *testCluster) connect(first int, log zerolog.Logger) *busconn.Connection {
	c.t.Helper()

	var urls []string
	for i := range c.nodes {
		urls = append(urls, c.nodes[(first+i)%len(c.nodes)].url())
	}

	l, err := busconn.Dial(strings.Join(urls, ","), log)
	if err != nil {
		c.t.Fatal(err)
	}

	c.t.Cleanup(l.Close)

	return l
}

func (c *testCluster) node(name string) *clusterNode {
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	c.t.Fatalf("there is no node %q", name)
	return nil
}

// leaderOf waits for the leader of a stream, or of its consumer, and returns it.
func (c *testCluster) leaderOf(stream, consumer string) (leader *clusterNode) {
	c.t.Helper()

	poll(c.t, patience, "a leader of "+stream+" "+consumer, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()

		var cluster *jetstream.ClusterInfo
		if consumer != "" {
			info, err := c.js.Consumer(ctx, stream, consumer)
			if err != nil {
				return false
			}
			cluster = info.CachedInfo().Cluster
		} else {
			info, err := c.js.Stream(ctx, stream)
			if err != nil {
				return false
			}
			cluster = info.CachedInfo().Cluster
		}

		if cluster.Leader == "" {
			return false
		}

		leader = c.node(cluster.Leader)

		return true
	})

	return leader
}

func (n *clusterNode) start(t *testing.T) {
	t.Helper()

	opts, err := server.ProcessConfigFile(n.config)
	if err != nil {
		t.Fatal(err)
	}

	opts.NoSigs, opts.NoLog = true, true
	if n.server, err = server.NewServer(opts); err != nil {
		t.Fatalf("node %s: %v", n.name, err)
	}

	n.server.Start()
	if !n.server.ReadyForConnections(20 * time.Second) {
		t.Fatalf("node %s does not get ready", n.name)
	}
}

// stop shuts the node down, if it is up.
func (n *clusterNode) stop() {
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
		n.server = nil
	}
}

// healthy waits until the node has all that the others have.
func (n *clusterNode) healthy(t *testing.T) {
	t.Helper()

	var last string
	defer func() {
		if t.Failed() {
			t.Logf("node %s is not healthy: %s", n.name, last)
		}
	}()

	poll(t, patience, "a healthy node "+n.name, func() bool {
		last = n.server.Healthz(&server.HealthzOptions{}).Error
		return last == ""
	})
}

// clusterRun is a run with all its parts in this process, each with a connection of
// its own to the cluster.
type clusterRun struct {
	t         *testing.T
	cluster   *testCluster
	id        string
	requests  int
	input     string
	output    output.Prefix
	link      *busconn.Connection // of producer and collector
	runs      *bus.RunStore
	collector *collector.Collector
	model     *sim.Server
	hurry     atomic.Bool // the model answers at once
	said      *lockedBuffer
	ended     chan error // has the error of producer and collector

	stats []*worker.Stats
	parts sync.WaitGroup
	pulse pulse
}

// startClusterRun begins a run of n requests, some of them big, on a work stream
// that holds a small part of them, so that it is published as long as it lasts.
func startClusterRun(t *testing.T, c *testCluster, requests int) *clusterRun {
	t.Helper()

	dir := t.TempDir()
	r := &clusterRun{
		t:        t,
		cluster:  c,
		id:       "run",
		requests: requests,
		input:    filepath.Join(dir, "in.jsonl"),
		output:   output.Prefix(filepath.Join(dir, "out")),
		model:    sim.New(sim.Config{Models: []string{"sim"}, Tokens: 20}),
		said:     &lockedBuffer{},
		ended:    make(chan error, 1),
	}

	log := zerolog.New(zerolog.ConsoleWriter{Out: r.said, NoColor: true, TimeFormat: "15:04:05"}).
		Level(zerolog.WarnLevel).With().Timestamp().Logger()
	part := func(name string) zerolog.Logger { return log.With().Str("part", name).Logger() }
	writeClusterInput(t, r.input, requests)
	listener := httptest.NewServer(http.HandlerFunc(r.answer))
	t.Cleanup(listener.Close)

	ctx := t.Context()
	r.link = c.connect(2, part("crew"))
	limits := bus.Limits{WorkBytes: 4 << 20, ResultsBytes: 8 << 20, Replicas: 3}
	if err := bus.CreateBuckets(ctx, r.link.JS, bus.Limits{Replicas: 3}); err != nil {
		t.Fatal(err)
	}

	settings := proto.Settings{Model: "sim", ShardSize: 16, ShardBytes: pipeline.DefaultShardBytes, Capacity: 128}
	m := proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       r.id,
		State:     proto.StateInProgress,
		CreatedAt: time.Now().UTC(),
		Settings:  settings,
	}

	var err error
	if m.Input, _, err = producer.Validate(ctx, producer.Source{Files: []string{r.input}}, settings, nil); err != nil {
		t.Fatal(err)
	}

	opened, err := bus.Open(ctx, r.link.JS)
	if err != nil {
		t.Fatal(err)
	}

	r.runs = opened.Runs

	if err := bus.EnsureStreams(ctx, r.link.JS, m, limits); err != nil {
		t.Fatal(err)
	}

	if err := r.runs.Create(ctx, m); err != nil {
		t.Fatal(err)
	}

	j, err := journal.Create(r.output.Journal(), m)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { j.Close() })

	r.collector, err = collector.New(collector.Config{
		JS:            r.link.JS,
		Journal:       j,
		Output:        r.output,
		Host:          "test",
		Limits:        limits,
		FlushInterval: 200 * time.Millisecond,
		Log:           part("collector"),
		Input: pipeline.Input{
			Run:   m,
			Files: func(context.Context) ([]string, error) { return []string{r.input}, nil },
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	p, err := producer.New(producer.Config{JS: r.link.JS, Run: r.id, Log: part("producer")})
	if err != nil {
		t.Fatal(err)
	}

	work := pipeline.Parts{
		Producer:  p,
		Collector: r.collector,
	}

	running, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { // before the cluster's, so that all goroutines end
		if t.Failed() {
			r.describe()
			defer func() {
				select {
				case err := <-r.ended:
					t.Logf("producer and collector ended with: %v", err)
				default:
				}
				t.Logf("output of the parts:\n%s", r.said)
			}()
		}

		stop()
		r.parts.Wait()
	})

	for i := range 2 {
		model, err := modelserver.New(listener.URL, "")
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(model.Close)
		name := fmt.Sprintf("w%d", i+1)
		w, err := worker.New(worker.Config{
			JS:      c.connect(i, part(name)).JS,
			Server:  model,
			Limiter: limit.Fixed(64),
			Name:    name,
			Grace:   time.Second,
			Log:     part(name),
		})
		if err != nil {
			t.Fatal(err)
		}

		r.stats = append(r.stats, w.Stats())
		r.parts.Go(func() {
			if err := w.Run(running); err != nil {
				t.Errorf("worker %s: %v", name, err)
			}
		})
	}

	r.parts.Go(func() { r.ended <- work.Run(running) })
	r.parts.Go(func() { r.pulse.follow(running, func() int { return r.collector.Progress().Received.Done }) })

	return r
}

// answer answers in 0.4 s, and not before most answers are collected: the
// run must not come to its end while something is in its way.
func (r *clusterRun) answer(w http.ResponseWriter, req *http.Request) {
	for begin := time.Now(); !r.hurry.Load() &&
		(time.Since(begin) < 400*time.Millisecond || int(r.model.Succeeded()) > r.done()+600); {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-req.Context().Done():
			return
		}
	}

	r.model.ServeHTTP(w, req)
}

// writeClusterInput writes requests whose text does not compress. Every 250th is too
// big for a message.
func writeClusterInput(t *testing.T, path string, n int) {
	t.Helper()

	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}

	w := bufio.NewWriter(file)
	random := rand.NewChaCha8([32]byte{1})
	for i := range n {
		noise := make([]byte, 750)
		if i%250 == 100 {
			noise = make([]byte, 300_000)
		}

		random.Read(noise)
		fmt.Fprintf(w, "{\"custom_id\":\"q-%d\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}\n",
			i, base64.StdEncoding.EncodeToString(noise))
	}

	if err := errors.Join(w.Flush(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// describe returns the state of the run and its parts.
func (r *clusterRun) describe() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	r.t.Logf("%d of %d results are collected; the model has answered %d", r.done(), r.requests, r.model.Succeeded())
	for i, w := range r.stats {
		r.t.Logf("worker %d: %d at the model, %d done, %d shards",
			i+1, w.InFlight.Load(), w.Done.Load(), w.Shards.Load())
	}

	for _, name := range []string{
		proto.WorkStream(r.id), proto.ResultsStream(r.id), "OBJ_" + proto.ObjectsBucket(r.id),
	} {
		stream, err := r.cluster.js.Stream(ctx, name)
		if err != nil {
			r.t.Logf("stream %s: %v", name, err)
			continue
		}

		info := stream.CachedInfo()
		r.t.Logf("stream %s: leader %q, messages %d to %d, %d in all, %d bytes",
			name, info.Cluster.Leader, info.State.FirstSeq, info.State.LastSeq, info.State.Msgs, info.State.Bytes)

		for info := range stream.ListConsumers(ctx).Info() {
			r.t.Logf("  consumer %s: leader %q, delivered %d, acknowledged %d, out %d, pending %d, waiting pulls %d",
				info.Name, info.Cluster.Leader, info.Delivered.Stream, info.AckFloor.Stream, info.NumAckPending,
				info.NumPending, info.NumWaiting)
		}
	}
}

func (r *clusterRun) done() int { return r.collector.Progress().Received.Done }

func (r *clusterRun) manifest() proto.Manifest {
	r.t.Helper()
	m, err := r.runs.Get(r.t.Context(), r.id)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// during returns how long the run stood still during an event.
func (r *clusterRun) during(what string, happens func()) {
	r.t.Helper()

	begin, before := time.Now(), r.done()
	happens()

	if r.done() == r.requests {
		r.t.Fatalf("the run was over before this was: %s", what)
	}

	r.t.Logf("%s: %s in all, %d results, none for %s at most", what, time.Since(begin).Round(time.Millisecond),
		r.done()-before, r.pulse.longest(begin).Round(time.Millisecond))
}

// progress waits for a good many new results.
func (r *clusterRun) progress() {
	r.t.Helper()
	goal := r.done() + 300
	poll(r.t, patience, "new results", func() bool { return r.done() >= goal })
}

// without shuts a node down, expects the run to continue, and starts the node again.
func (r *clusterRun) without(n *clusterNode) {
	r.t.Helper()
	n.stop()
	r.progress()
	n.start(r.t)
	n.healthy(r.t)
	r.progress()
}

// still waits until the run stands still for a good while.
func (r *clusterRun) still() {
	r.t.Helper()
	begin := time.Now()
	poll(r.t, patience, "standstill", func() bool { return r.pulse.silent(begin) > 2*time.Second })
}

// finish lets the run come to its end and checks its files.
func (r *clusterRun) finish() {
	t := r.t
	t.Helper()

	r.hurry.Store(true)
	begin := time.Now()

	select {
	case err := <-r.ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatalf("the run is not over: %d of %d requests are done", r.done(), r.requests)
	}

	t.Logf("the rest: %s, no results for %s at most",
		time.Since(begin).Round(time.Millisecond), r.pulse.longest(begin).Round(time.Millisecond))

	p, err := verify.Run(t.Context(), verify.Config{Inputs: []string{r.input}, Output: r.output, Answers: true})
	if err != nil {
		t.Fatal(err)
	}

	if !p.Complete || p.Requests != r.requests || p.Answered != r.requests || p.Failed != 0 {
		t.Errorf("the output is wrong: %+v", p)
	}

	meta, err := r.output.ReadMeta()
	if err != nil {
		t.Fatal(err)
	}

	if meta.Results.SuccessCount != r.requests || meta.Results.FailureCount != 0 ||
		meta.Status != proto.StateCompleted {
		t.Errorf("metadata: %s, %d answered, %d failed",
			meta.Status, meta.Results.SuccessCount, meta.Results.FailureCount)
	}

	m := r.manifest()
	if m.State != proto.StateCompleted || m.Counts.Done != r.requests || m.Counts.Failed != 0 {
		t.Errorf("manifest: %s, %+v", m.State, m.Counts)
	}

	t.Logf("%d requests were answered more than once, %d lines dropped, %d rounds, %d warnings",
		r.model.Succeeded()-int64(r.requests), meta.Results.DuplicatesDropped, m.Publish.Round,
		strings.Count(r.said.String(), " WRN "))

	if testing.Verbose() {
		t.Logf("output of the parts:\n%s", r.said)
	}
}

// pulse notes when a count grows.
type pulse struct {
	mu    sync.Mutex
	beats []time.Time
}

// follow looks at the count until ctx ends.
func (p *pulse) follow(ctx context.Context, count func() int) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for last := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}

		if now := count(); now != last {
			last = now
			p.mu.Lock()
			p.beats = append(p.beats, time.Now())
			p.mu.Unlock()
		}
	}
}

// longest is the longest time without a beat since then.
func (p *pulse) longest(since time.Time) (most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()

	at := since
	for _, beat := range p.beats {
		if beat.After(since) {
			most, at = max(most, beat.Sub(at)), beat
		}
	}

	return max(most, time.Since(at))
}

// silent returns the time since the last beat, at most since then.
func (p *pulse) silent(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.beats); n > 0 && p.beats[n-1].After(since) {
		since = p.beats[n-1]
	}
	return time.Since(since)
}
