package modelserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/worker/limit"
	"github.com/promptmill/promptmill/worker/sim"
)

// seen is a page, one second after the one before.
type seen struct {
	after   time.Duration // 0: a second
	away    bool          // there was no page
	started float64
	engines string
	tokens  float64

	answers, answered, inFlight int64
}

func TestIdentity(t *testing.T) {
	t.Parallel()

	const (
		back      = "the start time went back"
		jumps     = "counters jump back and forth"
		lacks     = "fewer tokens are counted than the answers have"
		oneServer = ""
	)
	for _, tt := range []struct {
		name  string
		pages []seen
		want  string
	}{
		{"one server", []seen{{tokens: 100}, {tokens: 200}, {tokens: 200}, {tokens: 300}}, oneServer},
		{"one that reports its start", []seen{
			{started: 50, tokens: 100},
			{started: 50, tokens: 200},
			{started: 50.3, tokens: 300},
			{started: 50, tokens: 400},
		}, oneServer},
		{"a restart", []seen{
			{started: 50, tokens: 900},
			{started: 80, tokens: 0},
			{started: 80, tokens: 100},
			{started: 80, tokens: 1000},
		}, oneServer},
		{"many restarts", []seen{
			{started: 50, tokens: 900},
			{started: 80, tokens: 1},
			{started: 90, tokens: 0},
			{started: 100, tokens: 2},
		}, oneServer},
		{"a restart of one that does not report its start", []seen{
			{tokens: 900},
			{tokens: 0},
			{tokens: 500},
			{tokens: 1000},
		}, oneServer},
		{"two of them, with loading between", []seen{
			{tokens: 900},
			{tokens: 0},
			{after: 2 * time.Minute, tokens: 500},
			{tokens: 1},
		}, oneServer},
		{"two of them, that were seen", []seen{
			{tokens: 900},
			{away: true},
			{tokens: 0},
			{tokens: 500},
			{away: true},
			{tokens: 1},
			{tokens: 2},
		}, oneServer},
		{"another machine takes over, with a clock that is behind", []seen{
			{started: 50, tokens: 900},
			{away: true},
			{started: 20, tokens: 0},
			{started: 20, tokens: 9},
		}, oneServer},
		{"another number of engines after a restart", []seen{
			{engines: "0", tokens: 9},
			{engines: "0,1", tokens: 1},
			{engines: "0,1", tokens: 5},
		}, oneServer},
		{"engines that come with their first requests", []seen{
			{tokens: 1},
			{engines: "0", tokens: 2},
			{engines: "0,2", tokens: 3},
			{engines: "0,1,2", tokens: 4},
		}, oneServer},
		{"no counters", []seen{{tokens: -1}, {tokens: -1, answers: 900, answered: 9000}, {tokens: -1}}, oneServer},

		{"start times that alternate", []seen{
			{started: 50, tokens: 100},
			{started: 80, tokens: 100},
			{started: 50, tokens: 100},
		}, back},
		{"an older one at once", []seen{{started: 80, tokens: 100}, {started: 50, tokens: 200}}, back},
		{"one of three is asked seldom", []seen{
			{started: 50},
			{started: 50},
			{started: 50},
			{started: 80},
			{started: 80},
			{started: 80},
			{started: 60},
		}, back},
		{"counters that alternate", []seen{{tokens: 900}, {tokens: 300}, {tokens: 950}, {tokens: 350}}, jumps},
		{"counters that fall now and then", []seen{
			{tokens: 900},
			{tokens: 300},
			{tokens: 350},
			{tokens: 950},
			{tokens: 990},
			{tokens: 400},
		}, jumps},
		{"engines that alternate", []seen{
			{engines: "0", tokens: 1},
			{engines: "1", tokens: 2},
			{engines: "0", tokens: 3},
		}, jumps},
		{"a restart is remembered", []seen{
			{started: 80},
			{started: 50},
			{away: true},
			{started: 50},
			{started: 50},
		}, back},

		{"all that was answered is counted", []seen{
			{tokens: 0},
			{tokens: 10_000, answers: 100, answered: 9000},
		}, oneServer},
		{"half of it is", []seen{{tokens: 0}, {tokens: 5000, answers: 100, answered: 9500}}, lacks},
		{"too few answers to say so", []seen{{tokens: 0}, {tokens: 50, answers: 20, answered: 2000}}, oneServer},
		{"requests in flight were counted before", []seen{
			{tokens: 6000, inFlight: 60},
			{tokens: 10_000, answers: 100, answered: 9500},
		}, oneServer},
		{"since the restart all is counted", []seen{
			{tokens: 9000, answers: 100, answered: 9000},
			{tokens: 0, answers: 100, answered: 9000},
			{tokens: 9000, answers: 200, answered: 18_000},
		}, oneServer},
	} {
		var i replicaDetector
		got, at := "", time.Now()
		for _, p := range tt.pages {
			at = at.Add(max(p.after, time.Second))
			if p.away {
				i.forgetProcess()
				continue
			}

			got = i.observe(processSample{
				at:       at,
				started:  p.started,
				engines:  p.engines,
				counters: [3]float64{p.tokens, -1, -1},
				answered: p.answered,
				answers:  p.answers,
				inFlight: p.inFlight,
			})
		}

		if got != tt.want || i.isReplicated() != (tt.want != "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Slots that are free while there are requests for all of them are not all slots.
func TestSlotsOfSeveral(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name     string
		busy     []int // of four slots, again and again
		inFlight int64
		answers  int64 // between two looks, half a second apart
		several  bool
	}{
		{"one server", []int{4}, 5, 4, false},
		{"one that has a free slot now and then", []int{4, 3, 4}, 5, 4, false},
		{"one without requests for all", []int{2}, 3, 4, false},
		{"one whose answers take no time", []int{2}, 5, 100, false},
		{"two servers", []int{2, 3}, 5, 4, true},
		{"three servers", []int{1, 2, 2}, 5, 4, true},
	} {
		var i replicaDetector
		at := time.Now()
		for n := range 3 * minSlotSamples {
			at = at.Add(500 * time.Millisecond)
			i.observeSlots(processSample{at: at, inFlight: tt.inFlight, answers: tt.answers * int64(n)},
				tt.busy[n%len(tt.busy)], 4)
		}

		if i.isReplicated() != tt.several {
			t.Errorf("%s: it is several: %t", tt.name, i.isReplicated())
		}

		if i.wantsSlots() != (tt.inFlight < 4) {
			t.Errorf("%s: it is asked for its slots for ever", tt.name)
		}
	}
}

// FuzzReplicaDetector has one server that restarts at any time, with a start time that it may
// report. It never counts as several.
func FuzzReplicaDetector(f *testing.F) {
	f.Add(uint64(1), true)
	f.Add(uint64(2), false)
	f.Fuzz(func(t *testing.T, seed uint64, tells bool) {
		random := rand.New(rand.NewPCG(seed, 0))
		var i replicaDetector
		at, g := time.Unix(1000, 0), processSample{counters: [3]float64{0, 0, -1}}
		for range 300 {
			at = at.Add(500 * time.Millisecond)
			tokens := random.Int64N(1000)
			g.counters[0] += float64(tokens)
			g.counters[1] += float64(random.Int64N(1000))
			g.answered += tokens * 9 / 10
			g.answers += random.Int64N(10)

			if random.IntN(40) == 0 {
				at = at.Add(time.Minute) // it loads
				g.counters = [3]float64{0, 0, -1}
				if tells {
					g.started = float64(at.Unix())
				}
			}

			g.at = at
			if why := i.observe(g); why != "" {
				t.Fatalf("one server counts as several: %s", why)
			}
		}
	})
}

// balancedEngines are engines behind one load balancer, which get requests and readings in turn.
type balancedEngines struct {
	engines []*sim.Engine
	started []float64
	policy  string // turns, random or least busy
	asked   int    // by turns
	asking  *rand.Rand

	mu     sync.Mutex
	random *rand.Rand
	sent   int
	busy   []int // requests at each engine
}

// run runs a request at one of the engines.
func (b *balancedEngines) run(n int) error {
	b.mu.Lock()
	if b.busy == nil {
		b.busy, b.random = make([]int, len(b.engines)), rand.New(rand.NewPCG(3, 4))
	}

	b.sent++
	at := b.sent % len(b.engines)
	switch b.policy {
	case "random":
		at = b.random.IntN(len(b.engines))
	case "least busy":
		at = slices.Index(b.busy, slices.Min(b.busy))
	}

	b.busy[at]++
	b.mu.Unlock()
	err := b.engines[at].Run(context.Background(), 100, n)
	b.mu.Lock()
	defer b.mu.Unlock()

	b.busy[at]--

	return err
}

// sample returns the page of one of them.
func (b *balancedEngines) sample(answers, answered, inFlight int64) (processSample, sim.Load) {
	if b.asking == nil {
		b.asking = rand.New(rand.NewPCG(5, 6))
	}

	b.asked++
	n := b.asked % len(b.engines)
	if b.policy == "random" {
		n = b.asking.IntN(len(b.engines))
	}

	load := b.engines[n].Load()

	return processSample{
		at:       time.Now(),
		started:  b.started[n],
		engines:  "0",
		counters: [3]float64{float64(load.Tokens), float64(load.PromptTokens), float64(load.Preemptions)},
		answered: answered,
		answers:  answers,
		inFlight: inFlight,
	}, load
}

// drive keeps the engines busy through a limiter, and returns the tokens per second after the
// first seconds, the limit then, and when they were found to be several.
func (b *balancedEngines) drive(
	t *testing.T, l *limit.Limiter, seconds, settle int,
) (rate, limits float64, after time.Duration) {
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var answers, answered atomic.Int64
	random := rand.New(rand.NewPCG(1, 2))
	all.Go(func() {
		for {
			slot, err := l.Acquire(ctx)
			if err != nil {
				return
			}

			n := 10 + random.IntN(51)
			all.Go(func() {
				if b.run(n) != nil {
					t.Error("a request failed")
				}
				answers.Add(1)
				answered.Add(int64(n))
				l.Release(slot, limit.Outcome{Work: float64(n)})
			})
		}
	})

	var i replicaDetector
	begin, first := time.Now(), int64(0)
	for half := range 2 * seconds {
		time.Sleep(500 * time.Millisecond)
		if half == 2*settle {
			first = answered.Load()
		}
		if half >= 2*settle {
			limits += float64(l.Limit()) / float64(2*(seconds-settle))
		}

		g, load := b.sample(answers.Load(), answered.Load(), int64(l.InFlight()))
		if i.observe(g) == "" {
			l.Observe(limit.Gauges{
				Running:     load.Running,
				Waiting:     load.Waiting,
				KVUsage:     -1,
				Preemptions: float64(load.Preemptions),
				Tokens:      float64(load.Tokens),
			})

			continue
		}

		if after == 0 {
			after = time.Since(begin)
		}

		l.IgnoreGauges()
	}

	rate = float64(answered.Load()-first) / float64(seconds-settle)
	stop()
	all.Wait()

	return rate, limits, after
}

// Two servers behind a load balancer do nearly as much as when each has a worker of its own,
// whichever sign shows that they are two.
func TestBalanced(t *testing.T) {
	t.Parallel()

	const seconds, settle = 150, 30
	engines := func() []*sim.Engine {
		cfg := sim.EngineConfig{Slots: 8, TTFT: 50 * time.Millisecond, TPOT: 5 * time.Millisecond}
		return []*sim.Engine{sim.NewEngine(cfg), sim.NewEngine(cfg)}
	}
	for _, tt := range []struct {
		name    string
		started []float64
		policy  string
		before  int // requests that the first has done before
	}{
		{"start times, in turns", []float64{50, 80}, "turns", 0},
		{"start times, at random", []float64{50, 80}, "random", 0},
		{"start times, the least busy one", []float64{50, 80}, "least busy", 0},
		{"counters, in turns", []float64{0, 0}, "turns", 500},
		{"counters, at random", []float64{0, 0}, "random", 500},
		{"counted tokens, in turns", []float64{0, 0}, "turns", 0},
		{"counted tokens, at random", []float64{0, 0}, "random", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				direct := 0.0
				for _, e := range engines() {
					one := &balancedEngines{engines: []*sim.Engine{e}, started: []float64{50}}
					rate, _, after := one.drive(t, limit.New(limit.Config{}), seconds, settle)
					if after != 0 {
						t.Errorf("one server counts as several after %v", after)
					}
					direct += rate
				}

				b := &balancedEngines{engines: engines(), started: tt.started, policy: tt.policy}
				for range tt.before {
					b.engines[0].Run(t.Context(), 1, 100)
				}

				rate, limits, after := b.drive(t, limit.New(limit.Config{}), seconds, settle)
				text := fmt.Sprintf("%.3f of both by themselves, limit %.1f, several after %v",
					rate/direct, limits, after)
				t.Log(text)
				if rate < 0.95*direct || limits < 15 || after == 0 || after > 30*time.Second {
					t.Error(text)
				}
			})
		})
	}
}
