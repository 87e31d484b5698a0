package estimate

import (
	"math"
	"math/rand/v2"
)

const (
	// fewestBlocks must fit into the steady part to measure how much they differ.
	fewestBlocks = 5
	// mostBlocks limits the blocks of the steady part. More would be shorter and miss slow
	// changes; more than 10 to 30 gain next to nothing (Schmeiser 1982).
	mostBlocks = 16
	// mostMemory leaves something learnt however alike neighbouring blocks are.
	mostMemory = 0.9
	// reach is the longest job that the run speaks for, in lengths of the run, which is
	// as far as the tests measure how often the interval holds the truth.
	reach = 4
	// slowest bounds how slow a server is taken to be at the beginning.
	slowest = 0.1
)

// measureSpread sets the values of the steady part that the draws need. Its variance is
// estimated by a block bootstrap (Künsch 1989), with blocks that go around the end so that each
// point is drawn as often (Politis and Romano 1992).
func (s *series) measureSpread() {
	done, seconds := sumPoints(s.steady)
	if done == 0 {
		return
	}

	n := len(s.steady)
	s.rate, s.length = done/seconds, seconds

	s.done, s.secs = make([]float64, 2*n+1), make([]float64, 2*n+1)
	for i := range 2 * n {
		p := s.steady[i%n]
		s.done[i+1], s.secs[i+1] = s.done[i]+p.Done, s.secs[i]+p.Seconds
	}

	// Intervals nearer than the time a request takes share requests: if one has
	// too many, the next has too few. So a block is twice that long where
	// there is room, and never shorter than that.
	share := s.latency * float64(n) / seconds
	s.block = max(int(math.Ceil(2*share)), n/mostBlocks, 1)
	if n/s.block < fewestBlocks {
		s.block = max(int(math.Ceil(share)), n/fewestBlocks, 1)
	}

	if k := s.countBlocks(); k >= fewestBlocks {
		s.spread, s.memory = s.fitSpread()
		s.noise = s.spread * math.Sqrt(done/float64(n)*float64(s.block))
		s.unsure = min(1, s.spread*tFactor(k)*math.Sqrt((1+s.memory)/(1-s.memory)/float64(k)))
	}
}

// countBlocks returns how many blocks fit into the steady part.
func (s *series) countBlocks() int {
	if s.block == 0 {
		return 0
	}
	return len(s.steady) / s.block
}

// neededBlocks returns how many requests give a steady part of the fewest blocks, had
// the start-up taken half of the run.
func (s *series) neededBlocks() int {
	var point float64 // requests in one, since blocks are of whole points
	if len(s.steady) > 0 {
		point = s.rate * s.length / float64(len(s.steady))
	}
	steady := fewestBlocks * (max(s.latency*s.rate, s.concurrency) + point)
	return int(math.Ceil(min(2*steady+s.concurrency, most)))
}

// fitSpread returns by how much blocks differ, over their mean, and how much one is
// like the next: their correlation, which a drift leaves and a bootstrap
// that takes blocks for strangers would miss. Estimated from k blocks it is too
// small by (1+4r)/k (Marriott and Pope 1954).
func (s *series) fitSpread() (spread, memory float64) {
	last := len(s.steady) - s.block
	off := make([]float64, last+1)
	var squares, products float64
	for i := range off {
		to := i + s.block
		off[i] = (s.done[to]-s.done[i])/(s.secs[to]-s.secs[i])/s.rate - 1
		squares += off[i] * off[i] / float64(last+1)
		if i >= s.block {
			products += off[i] * off[i-s.block] / float64(last+1-s.block)
		}
	}

	if squares == 0 {
		return 0, 0
	}

	r := products / squares
	r += (1 + 4*r) / float64(s.countBlocks())

	return math.Sqrt(squares), min(max(r, 0), mostMemory)
}

// tFactor makes up for the few blocks that the spread is judged by: the degree of
// freedom that went into the mean, and Student's 95% point over the normal one, as the first
// terms of [StudentT] have it.
func tFactor(blocks int) float64 {
	const z = 1.6449
	k, v := float64(blocks), freedom(blocks)
	t := z + (z*z*z+z)/(4*v) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*v*v)
	return t / z * math.Sqrt(k/(k-1))
}

// freedom is the number of degrees of freedom of the spread of blocks. Blocks that overlap are worth half as
// many again (Meketon and Schmeiser 1984).
func freedom(blocks int) float64 { return 1.5 * float64(blocks-1) }

// blockWalk draws blocks one after the other, and the same one again as often as they
// remember.
type blockWalk struct {
	*series
	rng  *rand.Rand
	from int // -1 before the first
}

func (w *blockWalk) next() (done, seconds float64) {
	if again := w.rng.Float64() < w.memory; !again || w.from < 0 {
		w.from = w.rng.IntN(len(w.steady))
	}
	to := w.from + w.block
	return w.done[to] - w.done[w.from], w.secs[to] - w.secs[w.from]
}

// drawReplicate draws the time of one job of a number of requests, as chance may have
// it, with workers whose rates are unsure by spread. The draws are the same for
// every job, so that a longer one never takes less time.
func (s *series) drawReplicate(i uint64, job, spread float64) float64 {
	rng := rand.New(rand.NewPCG(s.seed, i))
	tail := s.drain.drawTail(rng, job)

	// What the rate would have been, had the run been another.
	w := blockWalk{series: s, rng: rng, from: -1}
	var done, seconds float64
	for range s.countBlocks() {
		d, t := w.next()
		done, seconds = done+d, seconds+t
	}

	off := math.Log(max(done/seconds/s.rate, 1e-3)) * tFactor(s.countBlocks())
	speed := math.Exp(off + spread*rng.NormFloat64())

	// It cannot take less than the run took for as many with more behind them,
	// which counts for a job that is over before the start-up is.
	least := s.requestsAfter(^i, job, speed)
	took := max(least, s.drainTime(s.requestsAfter(^i, job-s.drain.requests, speed), tail))

	// The time of an event within an interval is unknown.
	return max(took/2, took+s.steady[0].Seconds*(rng.Float64()-0.5))
}

// drainTime returns when a tail that begins at a time is over. In the start-up, requests take as
// much longer as the server is slower with as many of them in flight.
func (s *series) drainTime(at, tail float64) float64 {
	var from float64
	for i, p := range s.start {
		to := from + p.Seconds
		if left := (to - at) * s.pace[i]; left > 0 {
			if tail <= left {
				return at + tail/s.pace[i]
			}
			at, tail = to, tail-left
		}

		from = to
	}

	return at + tail
}

// findSlowness sets how fast the server was in each point of the start-up, 1 as later on,
// by Little's law over as many points as a request takes.
func (s *series) findSlowness() {
	s.pace = make([]float64, len(s.start))
	for i := range s.start {
		var done, inFlight, seconds float64
		for _, p := range s.start[i:] {
			done, inFlight, seconds = done+p.Done, inFlight+p.InFlight*p.Seconds, seconds+p.Seconds
			if seconds >= s.latency {
				break
			}
		}

		s.pace[i] = 1
		if done > 0 && inFlight > 0 {
			s.pace[i] = min(1, max(slowest, s.latency*done/inFlight))
		}
	}
}

// requestsAfter returns when a number of requests is done while there are more to send.
func (s *series) requestsAfter(i uint64, requests, speed float64) float64 {
	if requests <= 0 {
		return 0
	}

	rng := rand.New(rand.NewPCG(s.seed, i))
	var at float64
	for _, p := range s.start {
		// Another start-up does as many more or fewer in a time as chance may have
		// it, the more so the fewer they are.
		var done float64
		if chance := rng.NormFloat64(); p.Done > 0 { // nothing times infinity is no number
			done = p.Done * math.Exp(s.noise/math.Sqrt(max(p.Done, 1))*chance)
		}

		if requests <= done {
			return at + p.Seconds*requests/done
		}

		at, requests = at+p.Seconds, requests-done
	}

	w := blockWalk{series: s, rng: rng, from: -1}
	for range reach * s.countBlocks() {
		done, seconds := w.next()
		if done *= speed; requests <= done {
			return at + seconds*requests/done
		}
		at, requests = at+seconds, requests-done
	}

	// The run cannot show changes that are slower than its length. Each doubling
	// may bring as much of them as the uncertainty of the run's own rate, as with
	// flicker noise (Voss and Clarke 1975).
	for seconds := reach * s.length; ; seconds *= 2 {
		speed *= math.Exp(s.unsure * rng.NormFloat64())
		done := s.rate * speed * seconds
		if !(requests > done) { // NaN must not keep the loop running
			return at + seconds*requests/done
		}
		at, requests = at+seconds, requests-done
	}
}
