package remaining

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// law describes simulated servers: each of their slots takes the next request as soon as it has done
// the last.
type law struct {
	slots    int
	requests int
	// length draws the lengths, in seconds, of the requests that begin at a time.
	length func(r *rand.Rand) func(begin float64) float64
	// more slots join at joins seconds, or the last ones leave where it is negative.
	more  int
	joins float64
	// The run is paused from stop until on: requests in flight end, none begin.
	stop, on float64
}

// moment is the shown interval at a time.
type moment struct {
	at, end float64
	shown   *proto.Interval
	working bool
}

// slotQueue has the times at which slots are free, the first one on top.
type slotQueue []slot

type slot struct{ free, leaves float64 }

func (q slotQueue) Len() int           { return len(q) }
func (q slotQueue) Less(i, j int) bool { return q[i].free < q[j].free }
func (q slotQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *slotQueue) Push(x any)        { *q = append(*q, x.(slot)) }
func (q *slotQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]

	return last
}

// ends returns the times at which the requests end, the first one first.
func (l law) ends(r *rand.Rand) []float64 {
	q := &slotQueue{}
	for range l.slots {
		heap.Push(q, slot{0, math.Inf(1)})
	}

	for i := range max(l.more, -l.more) {
		if l.more > 0 {
			heap.Push(q, slot{l.joins, math.Inf(1)})
		} else {
			(*q)[i].leaves = l.joins
		}
	}

	length := l.length(r)
	ends := make([]float64, 0, l.requests)
	for len(ends) < l.requests {
		s := heap.Pop(q).(slot)
		if s.free >= s.leaves {
			continue
		}

		begin := s.free
		if begin >= l.stop && begin < l.on {
			begin = l.on
		}

		s.free = begin + length(begin)
		ends = append(ends, s.free)
		heap.Push(q, s)
	}

	slices.Sort(ends)

	return ends
}

// inFlight returns the most requests in flight at a time.
func (l law) inFlight(at float64) int {
	if l.more != 0 && at >= l.joins {
		return l.slots + l.more
	}
	return l.slots
}

// workers returns their number at a time.
func (l law) workers(at float64) int {
	switch changed := at >= l.joins; {
	case l.more > 0 && changed, l.more < 0 && !changed:
		return 2
	}
	return 1
}

// follow lets the servers do the requests, and takes a sample each second.
func (l law) follow(seed uint64, found int) []moment {
	ends := l.ends(rand.New(rand.NewPCG(seed, 1)))
	end := ends[len(ends)-1]

	var e Estimator
	var list []moment
	done := 0
	start := time.Unix(0, 0)
	for second := 0; float64(second) < end; second++ {
		m := moment{at: float64(second), end: end}
		for ends[done] <= m.at {
			done++
		}

		m.working = m.at < l.stop || m.at >= l.on
		left := l.requests - done
		e.Add(Sample{
			At:       start.Add(time.Duration(second) * time.Second),
			Done:     found + done,
			Left:     left,
			InFlight: min(left, l.inFlight(m.at)),
			Working:  m.working,
			Workers:  l.workers(m.at),
		})

		m.shown = e.Interval()
		list = append(list, m)
	}

	return list
}

// always makes a law of lengths of one that has no memory.
func always(draw func(r *rand.Rand, begin float64) float64) func(*rand.Rand) func(float64) float64 {
	return func(r *rand.Rand) func(float64) float64 {
		return func(begin float64) float64 { return draw(r, begin) }
	}
}

func exponential(mean float64) func(*rand.Rand) func(float64) float64 {
	return always(func(r *rand.Rand, _ float64) float64 { return mean * r.ExpFloat64() })
}

// drifting lengths are exponential, of a mean that wanders by that much in the log and forgets
// where it was after a number of seconds (an Ornstein-Uhlenbeck process).
func drifting(mean, by, seconds float64) func(*rand.Rand) func(float64) float64 {
	return func(r *rand.Rand) func(float64) float64 {
		path := []float64{by * r.NormFloat64()} // by the second
		keep := math.Exp(-1 / seconds)

		return func(begin float64) float64 {
			for len(path) <= int(begin) {
				path = append(path, keep*path[len(path)-1]+by*math.Sqrt(1-keep*keep)*r.NormFloat64())
			}
			return mean * math.Exp(path[int(begin)]) * r.ExpFloat64()
		}
	}
}
