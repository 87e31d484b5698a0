package worker

import (
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// The worker looks up the results of a bounded number of shards at a time, however many shards it
// has and however slow the bus is.
func TestWorkerBoundsLookups(t *testing.T) {
	t.Parallel()

	const shards = maxLookups + 40
	b := newTestBed(t, startServer(t, sim.New(sim.Config{})))
	conn := b.js.Conn()
	var mu sync.Mutex
	asked := map[string]bool{} // by subject: a lookup without a reply asks again
	var kept []func()
	released := false
	askedCount := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(asked)
	}
	sub, err := conn.Subscribe("proxy.>", func(msg *nats.Msg) {
		pass := func() {
			conn.PublishRequest("$JS.API."+strings.TrimPrefix(msg.Subject, "proxy."), msg.Reply, msg.Data)
		}

		mu.Lock()
		defer mu.Unlock()

		if !released && strings.HasPrefix(msg.Subject, "proxy.DIRECT.GET."+proto.ResultsStream("r")) {
			asked[msg.Subject] = true
			kept = append(kept, pass)
			return
		}

		pass()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()

	if b.cfg.JS, err = jetstream.NewWithAPIPrefix(conn, "proxy"); err != nil {
		t.Fatal(err)
	}

	b.cfg.Limiter = limit.Fixed(2 * shards)
	m := b.createStreams("r", 0, "m")
	m.Settings.ShardSize = 1 // so that all shards are pulled at once, before a lookup gives up
	b.publishRange("r", "m", 0, shards, 1)
	b.createRun(m)
	w, stop := b.startWorker()
	prototest.Poll(t, patience, "all shards to be taken", func() bool { return w.jobs.held.load() == shards })
	prototest.Poll(t, patience, "lookups", func() bool { return askedCount() >= maxLookups })

	if n := askedCount(); n != maxLookups {
		t.Errorf("%d lookups at a time, want %d", n, maxLookups)
	}

	mu.Lock()
	released = true

	for _, pass := range kept {
		pass()
	}

	mu.Unlock()
	b.finishRun(w, stop, shards)
}
