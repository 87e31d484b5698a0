package sim

import (
	"container/heap"
	"container/list"
	"math"
	"slices"
	"time"
)

// cacheCheckTime is the time between checks of a cache that is about full.
const cacheCheckTime = 10 * time.Millisecond

// scheduler decides which requests of an engine run, and how far they are. All of them run at
// one speed, so that progress is a single number, the time that a request at full speed would
// have run for, and a request is known to be done when progress reaches its end. It has no
// lock, no timer and no goroutine: its owner advances it.
type scheduler struct {
	cfg   EngineConfig
	cache promptCache // nil: none
	hung  bool
	dead  bool

	running jobHeap
	reading []*job     // those of the running that have no token yet
	waiting *list.List // of *job

	at       time.Time // until when the fields are up to date
	progress float64   // at that time, in ns
	checkAt  time.Time // when the cache may be full

	admitted int64 // jobs

	// Counters, without those of the running jobs.
	preemptions, promptTokens, cachedTokens, tokens int64
	cacheQueries, cacheHits                         int64

	// firstToken has the times from the arrival of a request to its first token, interToken those of
	// each further token: of a request that does not run any more, since its tokens all count with
	// their mean.
	firstToken, interToken histogram
}

func newScheduler(cfg EngineConfig) scheduler {
	return scheduler{
		cfg:        cfg,
		waiting:    list.New(),
		firstToken: newHistogram(firstTokenBounds),
		interToken: newHistogram(interTokenBounds),
	}
}

// canFit reports whether a job can ever fit the cache.
func (s *scheduler) canFit(j *job) bool { return s.cfg.KV <= 0 || j.prompt+j.completion <= s.cfg.KV }

// takesNoTime reports whether a job that comes now is done at once.
func (s *scheduler) takesNoTime() bool {
	isIdle := len(s.running) == 0 && s.waiting.Len() == 0
	return s.cache == nil && isIdle && s.cfg.TTFT <= 0 && s.cfg.TPOT <= 0 && !s.hung
}

// advanceTo brings all fields up to now, event by event, so that they are as exact when the
// timer is late. It returns the time of the next event, if there is one.
func (s *scheduler) advanceTo(now time.Time) (next time.Time, ok bool) {
	for {
		s.finishDone()
		s.admitWaiting()

		next, ok = s.nextEvent()
		if !ok || next.After(now) {
			s.passTime(now)
			return next, ok
		}

		s.passTime(next)
	}
}

// passTime lets time pass in which nothing happens.
func (s *scheduler) passTime(to time.Time) {
	if len(s.running) > 0 && !s.hung {
		before, speed := s.progress, s.speed()
		s.progress += float64(to.Sub(s.at)) * speed
		s.noteFirstTokens(before, speed)
	}
	s.at = to
}

// noteFirstTokens notes when the jobs got their first token in the time that passes, at a speed,
// since the progress was before.
func (s *scheduler) noteFirstTokens(before, speed float64) {
	s.reading = slices.DeleteFunc(s.reading, func(j *job) bool {
		first := j.begin + j.ttft
		if first > s.progress+0.5 {
			return false
		}

		j.firstAt = s.at.Add(time.Duration(max(0, first-before) / speed))
		if !j.seenFirst {
			j.seenFirst = true
			s.firstToken.add(j.firstAt.Sub(j.arrived), 1)
		}

		return true
	})
}

// speed returns the part of full speed at which each job runs.
func (s *scheduler) speed() float64 {
	n, knee, speed := float64(len(s.running)), float64(s.cfg.Knee), 1.0
	if s.waiting.Len() > 0 {
		speed -= s.cfg.Jam
	}
	if knee > 0 && n > knee {
		speed *= knee / n * math.Pow(1-s.cfg.Thrash, (n-knee)/knee)
	}

	return max(speed, 1e-4) // so that every job ends some day
}

// nextEvent returns when something happens: the first job is done, or the cache may be full.
func (s *scheduler) nextEvent() (time.Time, bool) {
	if len(s.running) == 0 || s.hung {
		return time.Time{}, false
	}

	left := math.Ceil((s.running[0].end - s.progress) / s.speed())
	next := s.at.Add(time.Duration(max(0, left)))
	if s.cfg.KV > 0 && s.checkAt.Before(next) {
		next = s.checkAt
	}

	return next, true
}

// finishDone ends the jobs that are done, to half a nanosecond.
func (s *scheduler) finishDone() {
	for !s.hung && len(s.running) > 0 && s.running[0].end <= s.progress+0.5 {
		j := s.running[0]
		s.removeJob(j)
		j.finish(nil)
	}
}

// admitWaiting makes room in the cache, and fills the free slots if there was room.
func (s *scheduler) admitWaiting() {
	held, preempted := s.preemptJobs()

	for (!preempted || len(s.running) == 0) && s.waiting.Len() > 0 && len(s.running) < s.cfg.Slots {
		j := s.waiting.Front().Value.(*job)
		if !s.canFit(j) { // the cache has shrunk
			s.removeJob(j)
			j.finish(ErrTooLong)
			continue
		}

		if s.cfg.KV > 0 && held+j.prompt+1 > s.cfg.KV {
			break
		}

		s.removeJob(j)
		held += j.prompt + 1
		s.startJob(j)
	}

	if s.cfg.KV == 0 || len(s.running) == 0 {
		return
	}

	// All jobs grow by a token at a time, so the cache cannot be full before.
	wait := time.Duration(float64(s.cfg.KV-held) / float64(len(s.running)) * float64(s.cfg.TPOT) / s.speed())
	if preempted {
		wait = 0
	}

	s.checkAt = s.at.Add(max(wait, cacheCheckTime))
}

// preemptJobs puts the newest jobs back into the queue until the others fit the cache. It
// returns the tokens that these hold, and whether it preempted any.
func (s *scheduler) preemptJobs() (held int, preempted bool) {
	if s.cfg.KV <= 0 {
		return 0, false
	}

	held = s.heldTokens()
	for held > s.cfg.KV {
		j := s.newestJob()
		held -= j.prompt + max(1, s.generatedTokens(j))
		s.removeJob(j)
		j.place = s.waiting.PushFront(j)
		s.preemptions++
		preempted = true
	}

	return held, preempted
}

// startJob runs a job that was taken out of the queue.
func (s *scheduler) startJob(j *job) {
	if s.cache != nil {
		// Never the whole prompt is cached, since the first token of the answer follows from
		// the last of the prompt.
		cached, wait := s.cache.startJob(j, s.progress)
		j.cached, j.wait = min(cached, j.prompt-1), wait
		s.cacheQueries += int64(j.prompt)
		s.cacheHits += int64(j.cached)
	}

	s.setTimes(j)
	j.begin = s.progress
	j.end += j.begin

	s.admitted++
	j.order, j.firstAt = s.admitted, time.Time{}
	s.reading = append(s.reading, j)
	heap.Push(&s.running, j)
}

// setTimes sets a job's times, its end as if it began at 0.
func (s *scheduler) setTimes(j *job) {
	unread := 1 - float64(j.cached)/float64(max(1, j.prompt))
	j.ttft, j.tpot = max(j.wait, j.factor*unread*float64(s.cfg.TTFT)), j.factor*float64(s.cfg.TPOT)
	j.end = j.ttft + float64(j.completion-1)*j.tpot
}

// rescaleJobs sets the times of the running jobs again, after a change of the configuration.
// Each keeps the part of its prompt and the tokens of its answer that it has.
func (s *scheduler) rescaleJobs() {
	for _, j := range s.running {
		done := s.progress - j.begin
		read, further := min(1, done/max(j.ttft, 1)), max(0, done-j.ttft)/max(j.tpot, 1)
		s.setTimes(j)
		j.begin = s.progress - read*j.ttft - further*j.tpot
		j.end += j.begin
	}

	heap.Init(&s.running)
}

// removeJob takes a job out of the queue or off the GPU.
func (s *scheduler) removeJob(j *job) {
	if j.place != nil {
		s.waiting.Remove(j.place)
		j.place = nil
		return
	}

	if !s.hung {
		s.noteFirstTokens(s.progress, 1) // also of a job that takes no time
	}
	if j.firstAt.IsZero() {
		s.reading = slices.DeleteFunc(s.reading, func(other *job) bool { return other == j })
	}

	j.answered = s.generatedTokens(j)
	s.countJob(j, j.answered)
	if j.answered > 1 && !j.firstAt.IsZero() {
		s.interToken.add(s.at.Sub(j.firstAt)/time.Duration(j.answered-1), j.answered-1)
	}

	heap.Remove(&s.running, j.index)

	if s.cache != nil {
		s.cache.endJob(j)
	}
}

// killJobs ends all jobs.
func (s *scheduler) killJobs() {
	s.dead = true

	for len(s.running) > 0 {
		j := s.running[0]
		s.removeJob(j)
		j.finish(errDead)
	}

	for s.waiting.Len() > 0 {
		j := s.waiting.Front().Value.(*job)
		s.removeJob(j)
		j.finish(errDead)
	}
}

// countJob counts the tokens of a job that does not run any more.
func (s *scheduler) countJob(j *job, generated int) {
	j.generated += generated
	if generated > 0 {
		s.promptTokens += int64(j.prompt)
		s.cachedTokens += int64(j.cached)
		s.tokens += int64(generated)
	}
}

// generatedTokens returns how many tokens of its answer a running job has.
func (s *scheduler) generatedTokens(j *job) int {
	after := s.progress + 0.5 - j.begin - j.ttft
	switch {
	case s.hung && j.end <= s.progress+0.5: // it takes no time, but the engine hangs
		return 0
	case after < 0:
		return 0
	case j.tpot <= 0:
		return j.completion
	}

	return min(j.completion, 1+int(after/j.tpot))
}

// heldTokens returns the number of tokens in the cache.
func (s *scheduler) heldTokens() int {
	n := 0
	for _, j := range s.running {
		n += j.prompt + max(1, s.generatedTokens(j))
	}
	return n
}

// newestJob returns the running job that was admitted last.
func (s *scheduler) newestJob() *job {
	last := s.running[0]
	for _, j := range s.running {
		if j.order > last.order {
			last = j
		}
	}
	return last
}

// load returns how busy the engine is.
func (s *scheduler) load() Load {
	load := Load{
		Running:      len(s.running),
		Waiting:      s.waiting.Len(),
		KVUsage:      float64(len(s.running)) / float64(2*s.cfg.Slots),
		Preemptions:  s.preemptions,
		PromptTokens: s.promptTokens,
		CachedTokens: s.cachedTokens,
		Tokens:       s.tokens,
		CacheQueries: s.cacheQueries,
		CacheHits:    s.cacheHits,
	}
	for _, j := range s.running {
		if n := s.generatedTokens(j); n > 0 {
			load.PromptTokens += int64(j.prompt)
			load.CachedTokens += int64(j.cached)
			load.Tokens += int64(n)
		}
	}

	if s.cfg.KV > 0 {
		load.KVUsage = min(1, float64(s.heldTokens())/float64(s.cfg.KV))
	}

	return load
}
