//go:build !race

// The package starts no goroutine, and the simulations take the race detector minutes.

package trial

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/promptmill/promptmill/collector/metadata"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// machine is a simulated server: each of its slots takes the next request of the sample as soon as it has done the last.
// All times are in seconds of the trial.
type machine struct {
	slots int
	// each is how many tokens a request gets in a second, as long as all together get no more than knee.
	each, knee float64
	speed      func(at int) float64 // of all slots in that second; 1 is full

	sample []float64 // the lengths of the requests in tokens, in the order in which they are sent
	begin  float64   // when it began with the first
	sent   int
	work   []float64 // work done by the beginning of each second

	ends, starts []float64 // of the requests
	rounds       []Round
}

// pace is the tokens per second of one of its slots, all being taken.
func (m *machine) pace() float64 { return min(m.each, m.knee/float64(m.slots)) }

// workAt is the work that a slot has done by a time.
func (m *machine) workAt(at float64) float64 {
	i := int(at)
	m.simulateUntil(func() bool { return len(m.work) > i+1 })

	return m.work[i] + (at-float64(i))*(m.work[i+1]-m.work[i])
}

// timeOf is when a slot has done some work.
func (m *machine) timeOf(work float64) float64 {
	m.simulateUntil(func() bool { return m.work[len(m.work)-1] > work })
	i, _ := slices.BinarySearch(m.work, work)
	i = max(i, 1)

	return float64(i) - (m.work[i]-work)/(m.work[i]-m.work[i-1])
}

func (m *machine) simulateUntil(enough func() bool) {
	if len(m.work) == 0 {
		m.work = append(m.work, 0)
	}
	for !enough() {
		n := len(m.work) - 1
		m.work = append(m.work, m.work[n]+m.pace()*m.speed(n))
	}
}

// run sends requests in a time, and returns when the last of them has ended.
func (m *machine) run(from, to float64) (end float64) {
	free := make([]float64, m.slots)
	for i := range free {
		free[i] = from + 0.01*float64(i)/float64(m.slots)
	}

	end = from
	for m.sent < len(m.sample) {
		at := 0
		for i := range free {
			if free[i] < free[at] {
				at = i
			}
		}

		if free[at] >= to {
			break
		}

		done := m.timeOf(m.workAt(free[at]) + m.sample[m.sent])
		m.starts, m.ends = append(m.starts, free[at]), append(m.ends, done)
		m.sent++
		free[at] = done
		end = max(end, done)
	}

	return end
}

// takeRound runs for a round and notes it.
func (m *machine) takeRound(number int, from, to float64) (end float64) {
	end = m.run(from, to)
	m.rounds = append(m.rounds, Round{number, began.Add(seconds(from + 1)), began.Add(seconds(to))})

	return end
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

// film has the metadata of a run at each second.
type film struct {
	whole     *metadata.Run
	requests  []int     // done by the end of each second
	latencies []float64 // the sum of theirs
}

// film returns the metadata of its run until a time.
func (m *machine) film(until float64) *film {
	n := int(math.Ceil(until - m.begin))
	f := &film{requests: make([]int, n), latencies: make([]float64, n)}
	done, load := make([]int64, n), make([]int64, n)
	for i, end := range m.ends {
		from, to := int(m.starts[i]-m.begin), int(end-m.begin)
		if to < n {
			done[to]++
			f.requests[to]++
			f.latencies[to] += end - m.starts[i]
		}
		for at := from; at < min(to, n); at++ {
			load[at]++
		}
	}

	series := &metadata.Series{}
	for i := range n {
		at := began.Add(seconds(m.begin) + time.Duration(i)*time.Second)
		series.Add(at, metadata.Point{Requests: done[i], InFlight: &load[i]})
		if i > 0 {
			f.requests[i] += f.requests[i-1]
			f.latencies[i] += f.latencies[i-1]
		}
	}

	f.whole = &metadata.Run{
		Timestamp: began.Add(seconds(m.begin)),
		Test:      metadata.Test{NumRequests: len(m.sample)},
		Series:    series,
	}

	return f
}

// at is the metadata after some seconds of the run.
func (f *film) at(second int) *metadata.Run {
	run, s := *f.whole, *f.whole.Series
	second = min(second, len(f.requests))
	n := (second + s.IntervalSeconds - 1) / s.IntervalSeconds
	s.Requests, s.Failed, s.InFlight = s.Requests[:n], s.Failed[:n], s.InFlight[:n]
	s.PromptTokens, s.CompletionTokens, s.MemoryUsedBytes = s.PromptTokens[:n], s.CompletionTokens[:n],
		s.MemoryUsedBytes[:n]
	run.Series = &s

	done := f.requests[second-1]
	run.Results = metadata.Results{SuccessCount: done, InferenceTimeSeconds: float64(second)}
	run.Results.PeakConcurrentRequests = slices.MaxFunc(s.InFlight, compareReadings)
	if done > 0 {
		run.Results.LatencySeconds = &metadata.Distribution{Mean: f.latencies[second-1] / float64(done)}
	}

	return &run
}

func compareReadings(a, b *int64) int { return int(metadata.OrZero(a) - metadata.OrZero(b)) }

// newSample draws the lengths of a sample in tokens, lognormal and of a mean.
func newSample(rng *rand.Rand, requests int, mean, sigma float64) []float64 {
	sample := make([]float64, requests)
	for i := range sample {
		sample[i] = mean * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2)
	}

	return sample
}

// law is how the speed of a machine changes.
type law struct {
	warm  float64 // seconds that it takes to warm up, from a third of the full speed
	drift float64 // change of the speed over length, as a part of it
	over  float64 // seconds
	noise float64 // standard deviation of the log of the speed
	keeps float64 // seconds after which the noise has forgotten where it was
}

// newSpeed returns the speed at each second, for a machine that begins at a time.
func (l law) newSpeed(rng *rand.Rand, begin float64) func(int) float64 {
	at, keep := l.noise*rng.NormFloat64(), math.Exp(-1/max(l.keeps, 1))

	return func(second int) float64 {
		at = keep*at + l.noise*math.Sqrt(1-keep*keep)*rng.NormFloat64()
		speed := math.Exp(at)
		if l.warm > 0 {
			speed *= 1 - 2.0/3*math.Exp(-max(0, float64(second)-begin)/l.warm)
		}
		if l.over > 0 {
			speed *= 1 - l.drift*min(1, float64(second)/l.over)
		}

		return speed
	}
}
