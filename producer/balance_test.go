package producer

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/promptmill/promptmill/proto"
)

// simBox is a simulated worker. A request takes 1 on average at speed 1.
type simBox struct {
	slots int
	speed float64

	// joins is the time at which the box comes.
	joins float64
}

// simFleet has the boxes of a run.
type simFleet struct {
	name  string
	boxes []simBox

	// known is the number of workers that the run counts with, and capacity that of their slots, by
	// which shards were cut before.
	known, capacity int
}

func boxes(n, slots int, speed, joins float64) []simBox {
	return slices.Repeat([]simBox{{slots, speed, joins}}, n)
}

// simFleets are the fleets for which shards are cut. Where boxes may join, a run counts with
// 8 workers at least, and counted with 256 slots.
var simFleets = []simFleet{
	{"1 box of 8 slots", boxes(1, 8, 1, 0), 1, 64},
	{"1 box of 64", boxes(1, 64, 1, 0), 1, 64},
	{"1 box of 256", boxes(1, 256, 1, 0), 1, 64},
	{"4 boxes of 16", boxes(4, 16, 1, 0), 8, 256},
	{"10 boxes of 8, 5 four times as fast", slices.Concat(boxes(5, 8, 1, 0), boxes(5, 8, 0.25, 0)), 10, 256},
	{"10 boxes of 64, 5 four times as fast", slices.Concat(boxes(5, 64, 1, 0), boxes(5, 64, 0.25, 0)), 10, 640},
	{"100 boxes of 32", boxes(100, 32, 1, 0), 100, 3200},
	{"100 boxes of 1", boxes(100, 1, 1, 0), 100, 256},
	{"1 box of 8, 9 more join at 30", slices.Concat(boxes(1, 8, 1, 0), boxes(9, 8, 1, 30)), 8, 256},
	{"no box known, 20 of 16", boxes(20, 16, 1, 0), 8, 256},
}

// simState is the state of a simulated box.
type simState struct {
	simBox
	waiting []float64
	running int

	// pulling is set while a pull is under way.
	pulling bool

	// shardRequests is the number of requests in the largest of the latest shards.
	shardRequests int
}

// room returns how many more requests the box wants: enough for all slots, and one more.
func (s *simState) room() int { return s.slots + 1 - s.running - len(s.waiting) }

// simEvent is the end of a request, or of a pull.
type simEvent struct {
	at   float64
	box  int
	pull bool
}

type simEvents []simEvent

func (e simEvents) Len() int           { return len(e) }
func (e simEvents) Less(i, j int) bool { return e[i].at < e[j].at }
func (e simEvents) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)        { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() (x any) {
	last := len(*e) - 1
	x, *e = (*e)[last], (*e)[:last]
	return x
}

const (
	simRoundTrip = 0.002 // of a pull
	simPause     = 0.1   // after a pull that was left to faster boxes
)

// simulation is a run of shards on a fleet.
type simulation struct {
	states  []simState
	events  simEvents
	sizes   []int
	lengths []float64
	ends    []float64
}

// simulateFleet runs shards of these sizes, with requests of these lengths, and returns the times at
// which the requests end, sorted. Boxes pull as the fetcher of a worker does.
func simulateFleet(boxes []simBox, sizes []int, lengths []float64) (ends []float64) {
	s := simulation{states: make([]simState, len(boxes)), sizes: sizes, lengths: lengths}
	for i, b := range boxes {
		s.states[i].simBox = b
		s.startPull(i, b.joins+simRoundTrip*float64(i)/float64(len(boxes)))
	}

	for s.events.Len() > 0 {
		e := heap.Pop(&s.events).(simEvent)
		if e.pull {
			s.states[e.box].pulling = false
			if s.isLeftToFaster(e.box) {
				s.startPull(e.box, e.at+simPause)
			} else {
				s.takeShards(e.box)
			}
		} else {
			s.states[e.box].running--
			s.ends = append(s.ends, e.at)
		}

		s.fillSlots(e.box, e.at)
		if b := &s.states[e.box]; !b.pulling && len(s.sizes) > 0 && b.room() > 0 {
			s.startPull(e.box, e.at)
		}
	}

	slices.Sort(s.ends)

	return s.ends
}

func (s *simulation) startPull(box int, at float64) {
	s.states[box].pulling = true
	heap.Push(&s.events, simEvent{at + simRoundTrip, box, true})
}

// takeShards takes the shards of a pull.
func (s *simulation) takeShards(box int) {
	b, shards := &s.states[box], 1
	if b.shardRequests > 0 {
		shards = max(1, (b.room()+b.shardRequests-1)/b.shardRequests)
	}

	if b.shardRequests < proto.DefaultShardSize/2 {
		shards = min(shards, 4)
	}

	for ; shards > 0 && len(s.sizes) > 0; shards-- {
		n := s.sizes[0]
		b.waiting = append(b.waiting, s.lengths[:n]...)
		b.shardRequests = max(n, b.shardRequests-1)
		s.sizes, s.lengths = s.sizes[1:], s.lengths[n:]
	}
}

func (s *simulation) fillSlots(box int, now float64) {
	b := &s.states[box]
	for b.running < b.slots && len(b.waiting) > 0 {
		heap.Push(&s.events, simEvent{now + b.waiting[0]/b.speed, box, false})
		b.waiting = b.waiting[1:]
		b.running++
	}
}

// isLeftToFaster reports whether faster boxes finish all that is left before a box finishes one shard.
func (s *simulation) isLeftToFaster(box int) bool {
	b, perSecond, slowest := &s.states[box], 0., 0.
	for _, other := range s.states {
		if other.speed > b.speed {
			perSecond += float64(other.slots) * other.speed
			slowest = max(slowest, 1/other.speed)
		}
	}

	queueing := max(0, float64(b.shardRequests-b.room())) / float64(b.slots)

	return len(s.lengths) > 0 && perSecond > 0 && float64(len(s.lengths))/perSecond+slowest < (1+queueing)/b.speed
}

// simResult has the figures of a run, the times as means over several runs.
type simResult struct {
	shards int

	// finish is the time of the last end, and tail that of the last tenth of the requests.
	finish, tail float64
}

// simulateRuns runs requests in shards of these sizes several times.
func simulateRuns(f simFleet, sizes []int, seeds int) simResult {
	result := simResult{shards: len(sizes)}
	for seed := range uint64(seeds) {
		random := rand.New(rand.NewPCG(seed, 1))
		lengths := make([]float64, 0, len(sizes))
		for _, n := range sizes {
			for range n {
				const sigma = 0.8 // a 90th percentile of 2.8 medians
				lengths = append(lengths, math.Exp(sigma*random.NormFloat64()-sigma*sigma/2))
			}
		}

		ends := simulateFleet(f.boxes, sizes, lengths)
		last := ends[len(ends)-1]
		result.finish += last / float64(seeds)
		result.tail += (last - ends[len(ends)*9/10]) / float64(seeds)
	}

	return result
}

// cutFor returns the sizes of the shards of a run.
func cutFor(t testing.TB, s proto.Settings, requests int) (sizes []int) {
	t.Helper()

	one := func(int) string { return "m" }
	for _, s := range cutAll(t, s, requests, func(int) int { return 1 }, one) {
		sizes = append(sizes, len(s.shard.Requests))
	}

	return sizes
}

// compareCuts runs requests on a fleet by the cut for slots and by the cut for workers.
func compareCuts(t testing.TB, f simFleet, requests, seeds int) (bySlots, byWorkers simResult) {
	t.Helper()

	return simulateRuns(f, cutFor(t, proto.Settings{Capacity: f.capacity}, requests), seeds),
		simulateRuns(f, cutFor(t, proto.Settings{Workers: f.known}, requests), seeds)
}

// Fewer shards do not make the end of a run longer, whatever the fleet: by at most 2%, and a tenth
// of a request.
func TestCutterBalancesFleets(t *testing.T) {
	t.Parallel()

	for _, f := range simFleets {
		for _, requests := range []int{100, 500, 3000} {
			t.Run(fmt.Sprintf("%s, %d requests", f.name, requests), func(t *testing.T) {
				t.Parallel()

				then, now := compareCuts(t, f, requests, 40_000/requests)
				t.Logf("by slots: %+.4v; by workers: %+.4v", then, now)

				if most := 1.02*then.finish + 0.1; now.finish > most {
					t.Errorf("it ends after %.2f, want %.2f at most", now.finish, most)
				}

				if most := 1.02*then.tail + 0.1; now.tail > most {
					t.Errorf("the last tenth takes %.2f, want %.2f at most", now.tail, most)
				}

				if now.shards > then.shards {
					t.Errorf("%d shards, want %d at most", now.shards, then.shards)
				}
			})
		}
	}
}

// BenchmarkCutterBalance logs shards and times with -v.
func BenchmarkCutterBalance(b *testing.B) {
	for b.Loop() {
		for _, f := range simFleets {
			for _, requests := range []int{100, 500, 3000, 20_000, 200_000} {
				seeds := max(3, min(400, 400_000/requests))
				ideal := simulateRuns(f, cutFor(b, proto.Settings{ShardSize: 1}, requests), seeds)
				then, now := compareCuts(b, f, requests, seeds)
				b.Logf("%-37s %6d | %5d shards, %.3f of ideal, tail %.2f | %5d shards, %.3f, tail %.2f", f.name, requests,
					then.shards, then.finish/ideal.finish, then.tail, now.shards, now.finish/ideal.finish, now.tail)
			}
		}
	}
}
