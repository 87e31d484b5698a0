package worker

// sharedParts belong to several parts of a worker, and to none alone.
type sharedParts struct {
	latency   *latencyEstimate
	latencies *runLatencies
	sampler   *loadSampler
	held      *heldCounter

	// wakeFetch wakes the fetcher when there may be room for another shard.
	wakeFetch signal
}

func newSharedParts(cfg Config) sharedParts {
	wakeFetch := newSignal()

	return sharedParts{
		latency:   &latencyEstimate{},
		latencies: &runLatencies{},
		sampler:   newLoadSampler(cfg.Limiter.Limit),
		held:      newHeldCounter(wakeFetch),
		wakeFetch: wakeFetch,
	}
}

// addServer adds the dispatcher and the server side, which need each other, and gives the plan the
// ages of the requests at the server.
func (w *Worker) addServer(shared sharedParts) {
	w.dispatch = &dispatcher{queue: w.queue, limiter: w.cfg.Limiter, plan: w.plan}
	w.server = newServerSide(w.cfg, serverSideDeps{
		sharedParts:  shared,
		queue:        w.queue,
		stats:        &w.stats,
		costs:        w.costs,
		stop:         func(err error) { w.stop(err) },
		startAttempt: w.dispatch.startAttempt,
	})

	w.dispatch.server = w.server
	w.plan.ages = w.server.failures.ages
}

// addJobs adds the shards in hand, and the runs that they are of.
func (w *Worker) addJobs(shared sharedParts) {
	w.jobs = &shardJobs{
		js:         w.cfg.JS,
		log:        w.cfg.Log,
		workerName: w.cfg.Name,
		stats:      &w.stats,
		observer:   w.cfg.Observer,
		usage:      newUsage(),
		costs:      w.costs,
		queue:      w.queue,
		held:       shared.held,
		latency:    shared.latency,
		freed:      shared.wakeFetch,
		isolate: func(t *task) {
			w.server.quarantine.add(t)
			w.queue.wake()
		},
		handBackWaiting: w.handBackWaiting,
		taskEnded:       w.server.cutoffs.recordEnd,
		lookups:         make(chan struct{}, maxLookups),
	}

	w.runs = &activeRuns{
		js:              w.cfg.JS,
		log:             w.cfg.Log,
		usage:           w.jobs.usage,
		budgets:         w.server.budgets,
		latencies:       shared.latencies,
		costs:           w.costs,
		only:            w.cfg.Run,
		changed:         shared.wakeFetch,
		handBackWaiting: w.handBackWaiting,
		byID:            map[string]*activeRun{},
	}
}

// addFetcher adds the fetcher, which ends the worker once it has left.
func (w *Worker) addFetcher(shared sharedParts) {
	w.fetch = newFetcher(w.cfg, w.id, w.runs, w.jobs, w.server, shared.latency)
	w.fetch.plan = w.plan
	w.fetch.leave = func() { w.stop(nil) }
}
