package collector

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/internal/testrun"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// loseShard publishes a shard, and takes it from its consumer without a word.
func (b *bench) loseShard(id string) {
	b.T.Helper()

	_, err := b.JS.Publish(b.T.Context(), proto.WorkSubject("r", "m", id), []byte("shard"))
	fixture.Must(b.T, err)
	consumer, err := b.JS.Consumer(b.T.Context(), proto.WorkStream("r"), proto.ConsumerName("m"))
	fixture.Must(b.T, err)
	batch, err := consumer.Fetch(1, jetstream.FetchMaxWait(testrun.Patience))
	fixture.Must(b.T, err)

	n := 0
	for range batch.Messages() {
		n++
	}

	if n != 1 {
		b.T.Fatalf("%d shards came (%v), want 1", n, batch.Error())
	}
}

// publishWaiting publishes a shard that no worker takes. The server acks it a moment before it
// counts it as pending at the consumer, so publishWaiting waits for that, too.
func (b *bench) publishWaiting(id string) {
	b.T.Helper()

	_, err := b.JS.Publish(b.T.Context(), proto.WorkSubject("r", "m", id), []byte("shard"))
	fixture.Must(b.T, err)
	prototest.Poll(b.T, testrun.Patience, "a pending shard", func() bool {
		consumer, err := b.JS.Consumer(b.T.Context(), proto.WorkStream("r"), proto.ConsumerName("m"))
		return err == nil && consumer.CachedInfo().NumPending == 1
	})
}

// A shard that was lost on its way to a worker is published again long before its ack wait
// is over.
func TestStrayShardIsPublishedAgain(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.loseShard("0-1")
	b.Publish("0-0", 0, 1)
	c := b.start()
	c.waitDurable(2)
	b.announce(proto.WorkerInfo{Name: "w0", Ready: true, Shards: new(int64)})
	b.setPublished(nil)
	lost := time.Now()
	prototest.Poll(t, testrun.Patience, "a round of publishing", func() bool {
		b.announce(proto.WorkerInfo{Name: "w0", Ready: true, Shards: new(int64)})
		m, err := b.Bus.Runs.Get(t.Context(), "r")
		return err == nil && m.Publish.Round == 1
	})

	if took := time.Since(lost); took < strayTime {
		t.Errorf("it counted as lost after %s, and workers may not have announced themselves", took)
	}

	b.setPublished(nil)
	b.Publish("1-0", 2, 3)
	b.waitCompleted(c)
}

// A shard that is out counts as lost only if all workers say that they have none, and could
// have it.
func TestUnheldShards(t *testing.T) {
	t.Parallel()

	none, one := int64(0), int64(1)
	for _, tt := range []struct {
		name    string
		workers []proto.WorkerInfo
		waiting bool // a shard waits for a worker
		want    bool
	}{
		{"lost", []proto.WorkerInfo{{Name: "w0", Ready: true, Shards: &none}}, false, true},
		{"no worker is there", nil, false, false},
		{"a worker does not report its shards", []proto.WorkerInfo{
			{Name: "w0", Ready: true, Shards: &none},
			{Name: "w1", Ready: true},
		}, false, false},
		{"a worker has one", []proto.WorkerInfo{
			{Name: "w0", Ready: true, Shards: &none},
			{Name: "w1", Ready: true, Shards: &one},
		}, false, false},
		{"the model server is down", []proto.WorkerInfo{{Name: "w0", Shards: &none}}, false, false},
		{"the model server refuses all", []proto.WorkerInfo{{
			Name:    "w0",
			Ready:   true,
			Problem: "401",
			Shards:  &none,
		}}, false, false},
		{"no worker serves its model", []proto.WorkerInfo{{
			Name:   "w0",
			Ready:  true,
			Models: []string{"other"},
			Shards: &none,
		}}, false, false},
		{"others wait to be taken", []proto.WorkerInfo{{Name: "w0", Ready: true, Shards: &none}}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, 4, 16<<20)
			b.loseShard("0-0")

			if tt.waiting {
				b.publishWaiting("0-1")
			}

			b.announce(tt.workers...)
			c := newCollector(Config{JS: b.JS, Journal: openJournal(t, b.out.Journal())})

			got, err := c.newSession().republisher.areUnheld(t.Context(), b.Manifest)
			if err != nil || got != tt.want {
				t.Errorf("no worker has it: %t (%v), want %t", got, err, tt.want)
			}
		})
	}
}

// The shard of a worker that vanished is out until its ack wait is over: it may have killed
// the worker.
func TestVanishedWorkerMayHaveAShard(t *testing.T) {
	t.Parallel()

	now := time.Now()
	f := newWorkerRegistry("r", nil)
	f.observe([]proto.WorkerInfo{{ID: "a", Name: "a", ReceivedAt: now}, {ID: "b", Name: "b", ReceivedAt: now}})
	if f.hasVanished(now.Add(-time.Minute)) {
		t.Error("both are there")
	}

	f.observe([]proto.WorkerInfo{{ID: "b", Name: "b", ReceivedAt: now}})
	if !f.hasVanished(now.Add(-time.Minute)) {
		t.Error("a worker has vanished")
	}

	if f.hasVanished(now.Add(time.Second)) {
		t.Error("it vanished long ago")
	}
}

// A result shows that a worker got a shard since it announced itself: its neighbours may
// also be under way.
func TestStrayTimeBeginsAgainWithAResult(t *testing.T) {
	t.Parallel()

	b := newBench(t, 4, 16<<20)
	b.loseShard("0-0")
	b.announce(proto.WorkerInfo{Name: "w0", Ready: true, Shards: new(int64)})
	c := newCollector(Config{JS: b.JS, Journal: openJournal(t, b.out.Journal())})

	for _, tt := range []struct{ came, want bool }{{false, true}, {true, false}} {
		r := c.newSession().republisher
		r.strayingSince = time.Now().Add(-strayTime - time.Second)

		if tt.came {
			r.noteResults()
		}

		got, err := r.areStray(t.Context(), b.Manifest)
		if err != nil || got != tt.want {
			t.Errorf("results have come: %t; lost %t (%v), want %t", tt.came, got, err, tt.want)
		}
	}
}
