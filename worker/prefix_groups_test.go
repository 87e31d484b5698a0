package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// questionBody returns the body of a question about a document.
func questionBody(document string, question int) []byte {
	return fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"%s, question %d"}]}`,
		strings.Repeat(document, 2000), question)
}

// groupedQueue is the queue of a run whose requests are grouped by prefix.
type groupedQueue struct {
	*requestQueue
	t     *testing.T
	shard *shardJob
	took  time.Duration // of each request
}

func newGroupedQueue(t *testing.T, how cacheSharing, slots int) *groupedQueue {
	t.Helper()
	g := &groupedQueue{requestQueue: newRequestQueue(), t: t, shard: &shardJob{model: "m", run: &activeRun{id: "r"}}}
	g.setSharing(how, slots)
	return g
}

// add queues the tasks of a shard. The name of each is its document and its number.
func (g *groupedQueue) add(names ...string) {
	g.t.Helper()

	tasks := make([]*task, len(names))
	for i, name := range names {
		tasks[i] = &task{
			Request: proto.Request{CustomID: []byte(name), Body: questionBody(name[:1], int(name[1]-'0'))},
			shard:   g.shard,
		}
	}

	g.registerTasks(tasks)
	if !g.push(tasks...) {
		g.t.Fatal("the queue is closed")
	}
}

// send takes the next task and sends it to the server.
func (g *groupedQueue) send(want string) *task {
	g.t.Helper()

	t, ok := g.pop(g.t.Context())
	if !ok {
		g.t.Fatal("pop ends")
	}

	t = g.pickForSlot(g.t.Context(), t)
	g.markSent(t)
	if string(t.CustomID) != want {
		g.t.Errorf("%s goes, want %s", t.CustomID, want)
	}

	return t
}

// end ends a task at the server.
func (g *groupedQueue) end(t *task, answered bool) {
	g.markEnded(t, answered, g.took)
	if answered {
		g.unregisterTask(t)
	}
}

func TestGroupsOneGoesFirst(t *testing.T) {
	t.Parallel()

	g := newGroupedQueue(t, sharesComputedPrefixes, 0)
	g.add("a1", "a2", "b1", "a3", "b2", "c1")
	a := g.send("a1")
	g.send("b1")
	g.send("c1")
	if n := g.parkedCount(); n != 3 {
		t.Errorf("%d wait, want 3", n)
	}

	g.end(a, true)
	g.send("a2") // its prefix is computed
	g.send("a3")
	g.add("a4") // likewise
	g.send("a4")
	g.send("b2") // there is no other
}

func TestGroupsOneAfterTheOtherInSlots(t *testing.T) {
	t.Parallel()

	g := newGroupedQueue(t, sharesIdleSlots, 4)
	g.add("a1", "a2", "a3", "b1", "b2", "c1", "d1")
	a := g.send("a1")
	b := g.send("b1")
	g.send("c1")
	g.end(a, true)
	a = g.send("a2") // in the slot of a1, before d1
	g.end(b, true)
	g.send("b2")
	g.send("d1")
	g.end(a, true)
	g.send("a3")
	if g.parkedCount() != 0 {
		t.Errorf("%d wait", g.parkedCount())
	}
}

// A group that got a second slot, since there was no other request, keeps it.
func TestGroupsFillWithTheLargest(t *testing.T) {
	t.Parallel()

	g := newGroupedQueue(t, sharesIdleSlots, 4)
	g.add("a1", "a2", "b1", "b2", "b3", "b4", "b5")
	g.send("a1")
	first := g.send("b1")
	second := g.send("b2")
	g.end(second, true)
	g.send("b3")
	g.end(first, true)
	g.send("b4")
}

// A group gets no further slot for requests that its own slots will have answered before that.
func TestGroupsIsSoonServed(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		first, follower time.Duration
		waiting, busy   int
		want            bool
	}{
		{0, 0, 1, 1, false}, // not known
		{0, 10, 1, 1, false},
		{14, 10, 1, 1, false}, // half a request and one more take 15
		{15, 10, 1, 1, true},
		{24, 10, 2, 1, false},
		{25, 10, 2, 1, true},
		{15, 10, 2, 2, true},
		{90, 10, 1, 0, false}, // no request goes before it
	} {
		g := prefixGroups{firstTime: tt.first, followerTime: tt.follower}
		if got := g.isSoonServed(&promptPrefix{busy: tt.busy, waiting: make([]*task, tt.waiting)}); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}

func TestGroupsAfterAFailure(t *testing.T) {
	t.Parallel()

	for _, how := range []cacheSharing{sharesComputedPrefixes, sharesIdleSlots} {
		g := newGroupedQueue(t, how, 0)
		g.add("a1", "a2", "a3")
		a := g.send("a1")
		g.add("b1")
		g.send("b1")
		g.end(a, false)
		g.send("a2") // it leads now
		if n := g.parkedCount(); n != 1 {
			t.Errorf("%d wait for it, want 1", n)
		}

		g.push(a)
		g.add("c1")
		g.send("c1")

		if n := g.parkedCount(); n != 2 {
			t.Errorf("%d wait for it, want the failed one among them", n)
		}
	}
}

// A request that is handed back before it was sent leads no group.
func TestGroupsAfterOneWasHandedBack(t *testing.T) {
	t.Parallel()

	g := newGroupedQueue(t, sharesComputedPrefixes, 0)
	g.add("a1", "a2", "a3", "b1")
	a, _ := g.pop(t.Context())
	g.send("b1")
	g.unregisterTask(a)
	g.send("a2")

	out := g.removeTasks(func(t *task) bool { return string(t.CustomID) == "a3" })
	if len(out) != 1 || g.parkedCount() != 0 {
		t.Errorf("%d taken out, %d wait", len(out), g.parkedCount())
	}
}

// The task for a slot is chosen when the slot is free.
func TestGroupsDecideLate(t *testing.T) {
	t.Parallel()

	g := newGroupedQueue(t, sharesIdleSlots, 4)
	g.add("a1", "a2")
	a := g.send("a1")

	filler, _ := g.pop(t.Context())
	if string(filler.CustomID) != "a2" {
		t.Fatalf("the filler is %s", filler.CustomID)
	}

	g.add("b1", "b2")
	if got := g.pickForSlot(t.Context(), filler); string(got.CustomID) != "b1" || g.parkedCount() != 1 {
		t.Errorf("%s goes, want the first of another group; %d wait", got.CustomID, g.parkedCount())
	}

	g.add("c1")
	leads, _ := g.pop(t.Context())
	g.end(a, true)
	if got := g.pickForSlot(t.Context(), leads); string(got.CustomID) != "a2" {
		t.Errorf("%s goes, want the one that follows a1", got.CustomID)
	}

	g.send("c1")
}

// A free slot waits for the next requests from the bus, but not for long.
func TestGroupsWaitForTheFetchLoop(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		g := newGroupedQueue(t, sharesComputedPrefixes, 0)
		asked := 0
		g.prefixes.onPark = func() { asked++ }
		g.add("a1", "a2", "a3", "a4")
		g.send("a1")
		begin := time.Now()
		g.send("a2")
		if took := time.Since(begin); took != 0 {
			t.Errorf("it goes after %v, want at once: the bus has no more", took)
		}

		g.noteFetched(true)
		before := asked

		go func() {
			time.Sleep(fillerWait / 2)
			g.add("b1")
		}()

		g.send("b1")
		if asked == before {
			t.Error("the fetch loop is not woken")
		}

		go func() {
			parks := g.parkCount()
			time.Sleep(fillerWait / 2)
			g.noteFull(parks)
		}()

		begin = time.Now()
		g.send("a3")
		if took := time.Since(begin); took != fillerWait/2 {
			t.Errorf("it goes after %v, want as soon as there is no room for more", took)
		}

		begin = time.Now()
		g.send("a4")
		if took := time.Since(begin); took != fillerWait {
			t.Errorf("it goes after %v, want %v", took, fillerWait)
		}
	})
}

// A request that waits at the server takes the next slot, whatever prompt that has.
func TestGroupsAwaitSlot(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		g := newGroupedQueue(t, sharesIdleSlots, 1)
		g.add("a1", "b1")
		a := g.send("a1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		if g.awaitSlot(ctx) {
			t.Error("there is a slot")
		}

		go func() {
			time.Sleep(time.Second)
			g.end(a, true)
		}()

		if !g.awaitSlot(t.Context()) {
			t.Error("there is no slot")
		}
	})
}

func TestGroupsNeedALongPrefix(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("x", 4*prefixBytes)
	for _, tt := range []struct {
		name   string
		a, b   string
		parked int
	}{
		{"the same document", `{"messages":"` + long + `1"}`, `{"messages":"` + long + `2"}`, 1},
		{"wherever it stands", `{"messages":"` + long + `1"}`, `{"top_p":1,"messages":"` + long + `2"}`, 1},
		{"tools", `{"messages":"1","tools":"` + long + `"}`, `{"tools":"` + long + `","messages":"2"}`, 1},
		{"less than half", `{"messages":"` + long + strings.Repeat("a", 5*prefixBytes) + `"}`,
			`{"messages":"` + long + strings.Repeat("b", 5*prefixBytes) + `"}`, 0},
		{"short", `{"messages":"1"}`, `{"messages":"1"}`, 0},
		{"none", `{}`, ``, 0},
	} {
		g := newGroupedQueue(t, sharesComputedPrefixes, 0)
		tasks := []*task{
			{Request: proto.Request{Body: []byte(tt.a)}, shard: g.shard},
			{Request: proto.Request{Body: []byte(tt.b)}, shard: g.shard},
		}

		g.registerTasks(tasks)
		g.push(tasks...)
		g.push(newTask(3))

		for range 2 - tt.parked + 1 {
			g.pop(t.Context())
		}

		if n := g.parkedCount(); n != tt.parked {
			t.Errorf("%s: %d wait, want %d", tt.name, n, tt.parked)
		}
	}
}

// Whatever happens to the tasks, each gets its turn, and no state of them is left.
func TestGroupsLoseNothing(t *testing.T) {
	t.Parallel()

	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		g := newGroupedQueue(t, cacheSharing(random.IntN(2)), random.IntN(5))
		var there []*task
		in, out := 0, 0
		for in < 60 || out < in {
			switch n := random.IntN(10); {
			case n < 3 && in < 60:
				var names []string
				for range 1 + random.IntN(5) {
					names = append(names, fmt.Sprintf("%c%d", 'a'+rune(random.IntN(4)), random.IntN(10)))
				}
				in += len(names)
				g.add(names...)
			case n < 6 && g.waits() && len(there) < 5:
				task, _ := g.pop(t.Context())
				task = g.pickForSlot(t.Context(), task)
				if random.IntN(5) == 0 { // its run is paused
					g.unregisterTask(task)
					out++
					continue
				}

				g.markSent(task)
				there = append(there, task)
			case n < 9 && len(there) > 0:
				i := random.IntN(len(there))
				task := there[i]
				there = slices.Delete(there, i, i+1)
				ok := random.IntN(3) > 0
				g.took = time.Duration(random.IntN(1000))
				if g.end(task, ok); ok {
					out++
				} else {
					g.push(task)
				}
			case n == 9 && random.IntN(10) == 0:
				for _, task := range g.removeTasks(func(*task) bool { return random.IntN(2) == 0 }) {
					g.unregisterTask(task)
					out++
				}
			}

			if len(there) == 0 && in >= 60 && out < in && !g.waits() {
				t.Fatalf("seed %d: %d of %d are lost", seed, in-out, in)
			}
		}

		if gr := &g.prefixes; len(gr.known) != 0 || len(gr.waiting) != 0 || gr.parked != 0 || gr.atServer != 0 ||
			len(g.first) != 0 {
			t.Fatalf("seed %d: left: %d prefixes, %d groups, %d waiting, %d at the server, %d followers",
				seed, len(gr.known), len(gr.waiting), gr.parked, gr.atServer, len(g.first))
		}
	}
}

// waits reports whether there is a task to take, and puts it back.
func (g *groupedQueue) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()

	t := g.next()
	if t != nil {
		g.prefixes.unmarkBusy(t, false)
		g.first, t.follows = slices.Insert(g.first, 0, t), true
		g.prefixes.markBusy(t)
		return true
	}

	if t = g.prefixes.takeFiller(); t != nil {
		g.putBack(t)
	}

	return t != nil
}

// Ten questions about a document are answered after it was computed once, whichever way the
// server shares its prompt cache.
func TestGroupedRunHitsTheCache(t *testing.T) {
	t.Parallel()

	const documents, questions, slots = 24, 10, 8
	for _, tt := range []struct {
		flavour sim.Flavour
		cache   int
	}{
		{sim.VLLM, 1 << 20},
		{sim.SGLang, 1 << 20},
		{sim.LlamaCPP, 1}, // nothing in the host's memory
		{sim.LlamaCPP, 8 * 600},
		{sim.Ollama, 1},
	} {
		t.Run(fmt.Sprint(tt.flavour, tt.cache), func(t *testing.T) {
			t.Parallel()

			server := sim.New(sim.Config{
				Flavour: tt.flavour,
				Models:  []string{"m"},
				Slots:   slots,
				Prefix:  tt.cache,
				TTFT:    60 * time.Millisecond,
				TPOT:    3 * time.Millisecond,
				Tokens:  20,
			})

			s := httptest.NewServer(server)
			defer s.Close()

			b := newTestBed(t, s.URL)
			b.cfg.Run, b.cfg.Limiter = "r", limit.Fixed(slots)
			m := b.createStreams("r", 0, "m")
			m.Settings = proto.Settings{GroupByPrefix: true, ShardSize: 32}
			b.createRun(m)

			var requests []proto.Request
			for i := range documents * questions {
				requests = append(requests, proto.Request{
					Index: uint32(i), CustomID: fmt.Appendf(nil, `"c%d"`, i), URL: "/v1/chat/completions",
					Body: questionBody(string(rune('A'+i/questions)), i%questions),
				})
			}

			for i := 0; i < len(requests); i += 32 {
				b.publishShard(proto.ShardID(0, uint64(i/32)), requests[i:min(i+32, len(requests))]...)
			}

			w, stop := b.startWorker()
			b.finishRun(w, stop, len(requests))
			load := server.Engine().Load()
			// 0.88 if each document is computed once. A busy machine costs some more. Requests sent
			// together, or one after the other in any slot, would find 0.1 in slots.
			if share := float64(load.CacheHits) / float64(load.CacheQueries); share < 0.6 {
				t.Errorf("%.3f of the prompts came from the cache", share)
			} else {
				t.Logf("%.3f of the prompts came from the cache", share)
			}
		})
	}
}
