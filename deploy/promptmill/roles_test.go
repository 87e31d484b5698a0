package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// victim is a run on its own bus that others try to get at: two shards, of which one
// is out, a result, an input, a large answer, a collector and a reader.
type victim struct {
	*natsserver.Server
	folder string // of the bus
	ack    string // of the shard that is out
}

const secretPrompt = "SECRET-PROMPT"

func newVictim(t *testing.T) *victim {
	t.Helper()

	dir, ctx := t.TempDir(), t.Context()
	b, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Shared: true, Log: zerolog.Nop()})
	must(t, err)
	t.Cleanup(b.Stop)
	must(t, bus.CreateBuckets(ctx, b.JS, b.Limits))
	opened, err := bus.Open(ctx, b.JS)
	must(t, err)
	runs := opened.Runs
	m := proto.Manifest{
		Schema: proto.ManifestSchema, Run: "victim", CreatedAt: time.Now(), State: proto.StateInProgress,
		Input: proto.Input{Requests: 2, Models: map[string]int{"m": 2}},
	}

	must(t, runs.Create(ctx, m))
	must(t, bus.EnsureStreams(ctx, b.JS, m, b.Limits))
	must(t, opened.Leases.Acquire(ctx, "victim", proto.CollectorInfo{Host: "h", Output: "/o"}))

	for _, shard := range []string{"0-0", "0-1"} {
		_, err = b.JS.Publish(ctx, proto.WorkSubject("victim", "m", shard), []byte(secretPrompt))
		must(t, err)
	}

	_, err = b.JS.Publish(ctx, proto.ResultsSubject("victim", "0-1"), []byte("result"))
	must(t, err)
	_, err = b.JS.Publish(ctx, "pm.victim.answers.large", []byte("answer"))
	must(t, err)
	must(t, bus.New(b.JS).Objects("victim").Put(ctx, "input-0", []byte(secretPrompt)))
	_, err = b.JS.Publish(ctx, "$KV.promptmill_readers.victim.other", []byte("position"))
	must(t, err)
	consumer, err := b.JS.Consumer(ctx, proto.WorkStream("victim"), proto.ConsumerName("m"))
	must(t, err)
	msg, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
	must(t, err)

	return &victim{Server: b, folder: dir, ack: msg.Reply()}
}

// state is the content of the bus, by stream and consumer.
func (v *victim) state(t *testing.T) map[string]string {
	t.Helper()

	all := map[string]string{}
	streams := v.JS.ListStreams(t.Context())
	for s := range streams.Info() {
		republish := s.Config.RePublish // a pointer, which would differ each time
		s.Config.RePublish = nil
		all[s.Config.Name] = fmt.Sprintf("%+v, %+v, messages %d to %d, %d of them",
			s.Config, republish, s.State.FirstSeq, s.State.LastSeq, s.State.Msgs)
		if s.Config.MaxAge > 0 { // its messages go by themselves
			all[s.Config.Name] = fmt.Sprintf("%+v, messages to %d", s.Config, s.State.LastSeq)
		}

		stream, err := v.JS.Stream(t.Context(), s.Config.Name)
		must(t, err)

		consumers := stream.ListConsumers(t.Context())
		for c := range consumers.Info() {
			all[s.Config.Name+"/"+c.Name] = fmt.Sprintf("delivered %d, acknowledged %d, out %d, paused %v",
				c.Delivered.Consumer, c.AckFloor.Consumer, c.NumAckPending, c.Paused)
		}

		must(t, consumers.Err())
	}

	must(t, streams.Err())

	return all
}

// as connects with the join string of a role, over TLS, and notes all that it hears.
func (v *victim) as(t *testing.T, role proto.Role) (*busconn.Connection, func() string) {
	t.Helper()

	j, err := proto.ParseJoin(v.JoinString(role))
	must(t, err)
	l, err := busconn.Join(j, zerolog.Nop())
	must(t, err)
	t.Cleanup(l.Close)
	l.Conn.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	var mu sync.Mutex
	var heard bytes.Buffer
	_, err = l.Conn.Subscribe(role.InboxPrefix()+".>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&heard, "%s: %v %s\n", m.Subject, m.Header, m.Data)
	})

	must(t, err)
	must(t, l.Conn.Flush())

	return l, func() string {
		must(t, l.Conn.Flush())
		mu.Lock()
		defer mu.Unlock()
		return heard.String()
	}
}

// attempt is a message that a role sends where it should not get through.
type attempt struct {
	what, subject, data string
	header              nats.Header
	reply               string // empty: an inbox of its own
}

// targets are subjects at which one would aim an answer.
func targets(ack string) []string {
	return []string{
		"pm.victim.results.0-0",
		"pm.victim.answers.large",
		proto.WorkSubject("victim", "m", "0-9"),
		"$KV.promptmill_runs.victim",
		"$KV.promptmill_presence.collector.victim",
		"$KV.promptmill_presence.worker.forged",
		"$KV.promptmill_readers.victim.other",
		"$O.pm_victim_objects.C.forged",
		"$O.pm_victim_objects.M.aW5wdXQtMA==",
		"$JS.API.STREAM.DELETE.pm_victim_work",
		"$JS.API.STREAM.PURGE.pm_victim_results",
		"$JS.API.CONSUMER.DELETE.pm_victim_work." + proto.ConsumerName("m"),
		ack,
		"_R_.forged.x",
		"_INBOX_collector.forged.x",
	}
}

// aimed are requests that a role may make, whose answer is to go to a target.
func aimed(role proto.Role, target string) (list []attempt) {
	add := func(what, subject, data string) {
		list = append(list, attempt{
			what:    what + ", answered to " + target,
			subject: subject,
			data:    data,
			reply:   target,
		})
	}

	add("get by sequence", "$JS.API.DIRECT.GET.KV_promptmill_readers", `{"seq":1}`)
	add("get the last", "$JS.API.DIRECT.GET.KV_promptmill_readers",
		`{"last_by_subj":"$KV.promptmill_readers.victim.mine"}`)
	add("get the last, by subject", "$JS.API.DIRECT.GET.KV_promptmill_readers.$KV.promptmill_readers.victim.mine", "")
	add("get the next", "$JS.API.DIRECT.GET.KV_promptmill_readers", `{"seq":1,"next_by_subj":">"}`)
	add("get a batch", "$JS.API.DIRECT.GET.KV_promptmill_readers", `{"seq":1,"batch":10}`)
	add("get the last of many", "$JS.API.DIRECT.GET.KV_promptmill_runs", `{"multi_last":["$KV.promptmill_runs.*"]}`)
	add("get a result", "$JS.API.DIRECT.GET.pm_victim_results.pm.victim.results.0-1", "")
	add("look at a stream", "$JS.API.STREAM.INFO.pm_victim_work", "")
	add("look at the account", "$JS.API.INFO", "")

	switch role {
	case proto.RoleReader:
		add("store a position", "$KV.promptmill_readers.victim.mine", "x")
	case proto.RoleWorker:
		add("announce itself", "$KV.promptmill_presence.worker.mine", "{}")
		add("look at a consumer", "$JS.API.CONSUMER.INFO.pm_victim_work."+proto.ConsumerName("m"), "")
		add("get a message from the leader", "$JS.API.STREAM.MSG.GET.KV_promptmill_readers", `{"seq":1}`)
	}

	return list
}

// forbidden are messages that a reader and a worker may not send.
func forbidden() (list []attempt) {
	add := func(what, subject, data string, header ...string) {
		h := nats.Header{}
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		list = append(list, attempt{what: what, subject: subject, data: data, header: h})
	}

	model := proto.ConsumerName("m")
	for _, stream := range []string{
		"KV_promptmill_readers", "KV_promptmill_runs", "KV_promptmill_presence", "pm_victim_results",
		"pm_victim_answers", "pm_victim_work", "OBJ_pm_victim_objects",
	} {
		push := fmt.Sprintf(`{"stream_name":%q,"config":{"name":"x","durable_name":"x","deliver_policy":"all","ack_policy":"none","deliver_subject":"pm.victim.results.0-0"}}`,
			stream)
		add("make a push consumer", "$JS.API.CONSUMER.CREATE."+stream+".x", push)
		add("make a push consumer with a filter", "$JS.API.CONSUMER.CREATE."+stream+".x.>", push)
		add("make a nameless push consumer", "$JS.API.CONSUMER.CREATE."+stream, push)
		add("make a durable push consumer", "$JS.API.CONSUMER.DURABLE.CREATE."+stream+".x", push)
		add("copy it", "$JS.API.STREAM.SNAPSHOT."+stream, `{"deliver_subject":"_INBOX_reader.x"}`)
		add("put it back", "$JS.API.STREAM.RESTORE."+stream, `{}`)
		add("change it", "$JS.API.STREAM.UPDATE."+stream, `{"name":"`+stream+`","max_msgs":1}`)
		add("empty it", "$JS.API.STREAM.PURGE."+stream, "")
		add("delete it", "$JS.API.STREAM.DELETE."+stream, "")
		add("delete a message", "$JS.API.STREAM.MSG.DELETE."+stream, `{"seq":1}`)
		add("move its leader", "$JS.API.STREAM.LEADER.STEPDOWN."+stream, "")
		add("list its consumers", "$JS.API.CONSUMER.LIST."+stream, "")
	}

	add("make a stream of all", "$JS.API.STREAM.CREATE.forged",
		`{"name":"forged","subjects":["forged"],"sources":[{"name":"pm_victim_work"}]}`)
	add("make a stream that republishes", "$JS.API.STREAM.CREATE.forged",
		`{"name":"forged","subjects":["forged"],"republish":{"dest":"pm.victim.results.0-0"}}`)
	add("delete a consumer", "$JS.API.CONSUMER.DELETE.pm_victim_work."+model, "")
	add("pause a consumer", "$JS.API.CONSUMER.PAUSE.pm_victim_work."+model, `{"pause_until":"2100-01-01T00:00:00Z"}`)
	add("unpin a consumer", "$JS.API.CONSUMER.UNPIN.pm_victim_work."+model, `{"group":"x"}`)
	add("purge the account", "$JS.API.ACCOUNT.PURGE.PROMPTMILL", "")
	add("step down", "$JS.API.META.LEADER.STEPDOWN", "")
	add("ask by a domain", "$JS.hub.API.STREAM.DELETE.pm_victim_work", "")
	add("ask the system", "$SYS.REQ.SERVER.PING.CONNZ", "")
	add("change its rights", "$SYS.REQ.CLAIMS.UPDATE", "")
	add("publish a shard", proto.WorkSubject("victim", "m", "0-9"), "forged")
	add("change a manifest", "$KV.promptmill_runs.victim", "{}")
	add("delete a manifest", "$KV.promptmill_runs.victim", "", "KV-Operation", "DEL")
	add("announce a collector", "$KV.promptmill_presence.collector.victim", "{}")
	add("replace the input", "$O.pm_victim_objects.M.aW5wdXQtMA==", "{}", "Nats-Rollup", "sub")
	add("store a part of the input", "$O.pm_victim_objects.C.x", "x")
	add("answer to another role", "_INBOX_collector.x.y", "x")
	add("answer in the server's name", "_R_.x.y", "x")

	return list
}

// bent are messages on subjects that a role may use, with headers that it may not.
func bent(role proto.Role) (list []attempt) {
	subject := "$KV.promptmill_readers.victim.mine"
	if role == proto.RoleWorker {
		subject = "$KV.promptmill_presence.worker.mine"
	}

	for _, header := range [][2]string{
		{"Nats-Rollup", "all"},
		{"Nats-Rollup", "sub"},
		{"Nats-TTL", "1s"},
		{"Nats-Trace-Dest", "$KV.promptmill_runs.victim"},
		{"Nats-Trace-Dest", "pm.victim.work.m.0-9"},
		{"Nats-Schedule", "@every 1s"},
		{"Nats-Schedule-Target", "pm.victim.work.m.0-9"},
		{"Nats-Batch-Id", "x"},
		{"Nats-Request-Info", `{"acc":"PROMPTMILL","svc":"PROMPTMILL"}`},
		{"Nats-Incr", "1"},
		{"Nats-Expected-Stream", "pm_victim_work"},
	} {
		list = append(list, attempt{
			what:    "store with " + header[0] + ": " + header[1],
			subject: subject,
			data:    "x",
			header:  nats.Header{header[0]: {header[1]}},
		})
	}

	return list
}

// With any message and any reply subject, a reader or a worker changes only the parts of a run
// that its role allows, and a reader sees no prompt.
func TestRolesHold(t *testing.T) {
	t.Parallel()

	own := map[proto.Role][]string{ // streams that a role may write to
		proto.RoleReader: {"KV_promptmill_readers"},
		proto.RoleWorker: {"KV_promptmill_presence", "pm_victim_results", "pm_victim_answers"},
	}
	for role, mine := range own {
		t.Run(string(role), func(t *testing.T) {
			t.Parallel()

			v := newVictim(t)
			before := v.state(t)

			list := slices.Concat(forbidden(), bent(role))
			for _, target := range targets(v.ack) {
				list = append(list, aimed(role, target)...)
			}

			for _, a := range list {
				if hidden := hides(before, v.state(t), mine); hidden != "" {
					t.Fatal("something has changed by itself:", hidden)
				}

				l, heard := v.as(t, role)
				store(t, role, l)

				msg := &nats.Msg{Subject: a.subject, Reply: a.reply, Header: a.header, Data: []byte(a.data)}
				if msg.Reply == "" {
					msg.Reply = role.InboxPrefix() + ".mine.1"
				}

				if err := l.Conn.PublishMsg(msg); err != nil {
					t.Errorf("%s: %v", a.what, err)
				}

				settle(t, l)
				if changed := hides(before, v.state(t), mine); changed != "" {
					t.Fatalf("the %s can %s (%s):\n%s", role, a.what, a.subject, changed)
				}

				if role == proto.RoleReader && strings.Contains(heard(), secretPrompt) {
					t.Errorf("the %s reads prompts: %s (%s)", role, a.what, a.subject)
				}

				l.Close()
			}

			t.Logf("%d attempts", len(list))
		})
	}
}

// store puts something there that a role could have sent elsewhere.
func store(t *testing.T, role proto.Role, l *busconn.Connection) {
	t.Helper()
	if role == proto.RoleReader {
		msg := proto.EncodeResults("victim", "0-0", []uint32{0}, []byte("{}\n"))
		msg.Subject = "$KV.promptmill_readers.victim.mine"
		_, err := l.JS.PublishMsg(t.Context(), msg)
		must(t, err)
	}
}

// settle waits until the server has processed the messages of a connection: it answers the last
// request last.
func settle(t *testing.T, l *busconn.Connection) {
	t.Helper()
	for range 2 { // also the results of the first
		if _, err := l.JS.Stream(t.Context(), "KV_promptmill_runs"); err != nil &&
			!errors.Is(err, nats.ErrConnectionClosed) {
			t.Fatal(err)
		}
	}
}

// hides returns the changes, beside some streams.
func hides(before, after map[string]string, but []string) string {
	before, after = pick(before, but), pick(after, but)
	return cmp.Diff(before, after)
}

func pick(state map[string]string, but []string) map[string]string {
	rest := map[string]string{}
	for name, text := range state {
		if !slices.Contains(but, name) {
			rest[name] = text
		}
	}
	return rest
}

// A request that a reader may not send gets no answer, not even an empty one.
func TestReaderSeesNoPrompts(t *testing.T) {
	t.Parallel()

	v := newVictim(t)
	l, heard := v.as(t, proto.RoleReader)
	for _, a := range []attempt{
		{subject: "$JS.API.DIRECT.GET.pm_victim_work", data: `{"seq":1}`},
		{subject: "$JS.API.DIRECT.GET.pm_victim_work", data: `{"seq":1,"next_by_subj":">"}`},
		{subject: "$JS.API.DIRECT.GET.pm_victim_work", data: `{"multi_last":[">"]}`},
		{subject: "$JS.API.DIRECT.GET.OBJ_pm_victim_objects", data: `{"seq":1,"next_by_subj":"$O.*.C.*"}`},
		{subject: "$JS.API.DIRECT.GET.pm_victim_work." + proto.WorkSubject("victim", "m", "0-0")},
		{subject: "$JS.API.STREAM.MSG.GET.pm_victim_work", data: `{"seq":1}`},
		{subject: "$JS.API.STREAM.MSG.GET.OBJ_pm_victim_objects", data: `{"seq":1}`},
		{subject: "$JS.API.CONSUMER.MSG.NEXT.pm_victim_work." + proto.ConsumerName("m"), data: `{"batch":1}`},
	} {
		must(t, l.Conn.PublishMsg(&nats.Msg{
			Subject: a.subject,
			Reply:   proto.RoleReader.InboxPrefix() + ".mine.1",
			Data:    []byte(a.data),
		}))
		settle(t, l)
	}

	for _, subject := range []string{"pm.>", "pm.victim.work.>", ">", "$O.>", "_INBOX_worker.>"} {
		_, err := l.Conn.Subscribe(subject, func(m *nats.Msg) { t.Errorf("the reader hears %s", m.Subject) })
		must(t, err)
	}

	_, err := v.JS.Publish(t.Context(), proto.WorkSubject("victim", "m", "0-2"), []byte(secretPrompt))
	must(t, err)
	settle(t, l)

	if text := heard(); strings.Contains(text, secretPrompt) {
		t.Errorf("the reader reads prompts:\n%s", text)
	}
}

// The attempts above do work where a server has no account for each role: should they stop
// to, they show nothing.
func TestAimsWorkWithinAnAccount(t *testing.T) {
	t.Parallel()

	v := newVictim(t)
	store(t, proto.RoleReader, v.Connection)

	before := v.state(t)
	for _, a := range aimed(proto.RoleReader, "pm.victim.results.0-0")[:5] {
		must(t, v.Conn.PublishMsg(&nats.Msg{Subject: a.subject, Reply: a.reply, Data: []byte(a.data)}))
		settle(t, v.Connection)
		poll(t, pollTime, a.what, func() bool { return v.state(t)["pm_victim_results"] != before["pm_victim_results"] })
		before = v.state(t)
	}
}

// A role's connections are counted.
func TestRolesAreBounded(t *testing.T) {
	t.Parallel()

	v := newVictim(t)
	l, _ := v.as(t, proto.RoleReader)
	ctx, cancel := context.WithTimeout(t.Context(), pollTime)
	defer cancel()

	for ctx.Err() == nil && l.Conn.LastError() == nil {
		for range 100 {
			if _, err := l.Conn.SubscribeSync(proto.RoleReader.InboxPrefix() + ".x"); err != nil {
				break
			}
		}
		l.Conn.Flush()
	}

	if err := l.Conn.LastError(); err == nil || !strings.Contains(err.Error(), "maximum subscriptions exceeded") {
		t.Errorf("subscriptions without end: %v", err)
	}
}

// A bus of a version whose roles were users of one account keeps its runs, and gets the
// bounds of this one.
func TestStoreOfEarlierVersion(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	opts := &server.Options{
		DontListen: true,
		NoSigs:     true,
		NoLog:      true,
		JetStream:  true,
		StoreDir:   filepath.Join(dir, "nats"),
	}

	s, err := server.NewServer(opts)
	must(t, err)
	s.Start()
	if !s.ReadyForConnections(pollTime) {
		t.Fatal("the server does not get ready")
	}

	conn, err := nats.Connect("", nats.InProcessServer(s))
	must(t, err)
	js, err := jetstream.New(conn)
	must(t, err)

	for _, bucket := range []string{proto.RunsBucket, proto.ReadersBucket} {
		_, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: bucket})
		must(t, err)
	}

	_, err = js.Publish(t.Context(), "$KV.promptmill_runs.old",
		[]byte(`{"schema":1,"run":"old","state":"in_progress"}`))
	must(t, err)
	conn.Close()
	s.Shutdown()
	s.WaitForShutdown()

	for range 2 {
		b, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Shared: true, Log: zerolog.Nop()})
		must(t, err)
		must(t, bus.CreateBuckets(t.Context(), b.JS, b.Limits))
		must(t, bus.UpgradeBuckets(t.Context(), b.JS, b.Limits))
		opened, err := bus.Open(t.Context(), b.JS)
		must(t, err)

		runs := opened.Runs
		if _, err := runs.Get(t.Context(), "old"); errors.Is(err, proto.ErrNoRun) { // its format may be another
			t.Error(err)
		}

		stream, err := b.JS.Stream(t.Context(), "KV_"+proto.ReadersBucket)
		must(t, err)
		if cfg := stream.CachedInfo().Config; cfg.AllowRollup || cfg.MaxBytes <= 0 {
			t.Errorf("positions of readers: %+v", cfg)
		}

		stream, err = b.JS.Stream(t.Context(), "KV_"+proto.RunsBucket)
		must(t, err)
		if cfg := stream.CachedInfo().Config; cfg.RePublish == nil || cfg.RePublish.Destination != "stored.>" {
			t.Errorf("manifests: %+v, and workers get no notice of the changes of other roles", cfg)
		}

		b.Stop()
	}
}
