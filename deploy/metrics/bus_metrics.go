package metrics

import (
	"time"

	"github.com/promptmill/promptmill/deploy/status"
	"github.com/promptmill/promptmill/proto"
)

// Metrics of the bus: of the runs and workers of all processes.
var (
	metricBusUp      = newDesc("bus_up", "1 if the bus answers.")
	metricBusRuns    = newDesc("bus_runs", "Runs on the bus.", "state")
	metricBusWorkers = newDesc("bus_workers",
		"Workers on the bus: those whose model server takes requests (ready), and others (waiting).", "state")
	metricStoreBytes = newDesc("bus_store_bytes", "Bytes on the disk of all streams of the bus.")
	metricStoreLimit = newDesc("bus_store_limit_bytes", "The most bytes that all streams may take.")

	metricStreamBytes    = newDesc("bus_stream_bytes", "Bytes of a stream of a run.", "run", "stream")
	metricStreamLimit    = newDesc("bus_stream_limit_bytes", "The most bytes that the stream may have.", "run", "stream")
	metricStreamMessages = newDesc("bus_stream_messages", "Messages in a stream of a run.", "run", "stream")

	metricWorkerInfo = newDesc("bus_worker_info", "1, with what the worker announces of itself and its model server.",
		"worker", "host", "server", "flavour", "version")
	metricWorkerHeard = newDesc("bus_worker_heard_age_seconds",
		"Time since the bus got the worker's last announcement. Workers send one every 3 s.", "worker")
	metricWorkerReady    = newDesc("bus_worker_ready", "1 if the worker's model server takes requests.", "worker")
	metricWorkerInFlight = newDesc("bus_worker_in_flight", "Requests at the worker's model server.", "worker")
	metricWorkerLimit    = newDesc("bus_worker_limit",
		"Requests that may be at the worker's model server at once.", "worker")
	metricWorkerRequests = newDesc("bus_worker_requests_total",
		"Requests that got their result since the worker began.", "worker")

	metricRunInfo     = newDesc("run_info", "1, with the label and the input of the run.", "run", "label", "input")
	metricRunState    = newDesc("run_state", "1 for the state that the run is in, 0 for the others.", "run", "state")
	metricRunRequests = newDesc("run_requests", "Requests of the run.", "run")
	metricRunLines    = newDesc("run_lines",
		"Requests of the run that have ended. A retry takes the failed ones off.", "run", "outcome")
	metricRunDurable  = newDesc("run_durable_lines", "Lines of the run in the synced output.", "run")
	metricRunFailures = newDesc("run_failures",
		"Failed requests of the run in the synced output, by the code of their error; the most frequent codes.",
		"run", "code")
	metricRunRate = newDesc("run_requests_per_second",
		"Requests that end each second, over the last 30 s; absent while it is unknown.", "run")
	metricRunRemaining = newDesc("run_remaining_seconds",
		"Estimated time until the run is done; absent while it is unknown.", "run", "bound")
	metricRunCreated = newDesc("run_created_timestamp_seconds", "Time at which the run was created.", "run")
	metricRunEnded   = newDesc("run_ended_timestamp_seconds", "Time at which the run ended; absent before.", "run")
	metricRunExpires = newDesc("run_deadline_timestamp_seconds",
		"Time at which the rest of the run fails; absent without one.", "run")
	metricRunCollected = newDesc("run_collected", "1 if a process collects the run; absent once it has ended.", "run")
	metricRunMissing   = newDesc("run_missing_models",
		"Models of the run that no ready worker serves; absent once the run has ended.", "run")
)

// runStates are the states of a run.
var runStates = []proto.State{
	proto.StateValidating, proto.StateInProgress, proto.StatePaused, proto.StateFinalizing, proto.StateCancelling,
	proto.StateCompleted, proto.StateCancelled, proto.StateExpired, proto.StateFailed,
}

// putBus puts the state of the bus; nil: it does not answer.
func (s sink) putBus(b *busState) {
	s.gauge(metricBusUp, boolValue(b != nil))
	if b == nil {
		return
	}

	for _, state := range runStates {
		s.gauge(metricBusRuns, float64(b.byState[state]), string(state))
	}

	s.gauge(metricStoreBytes, float64(b.storeBytes))
	if b.storeLimit > 0 {
		s.gauge(metricStoreLimit, float64(b.storeLimit))
	}

	for _, stream := range b.streams {
		s.gauge(metricStreamBytes, stream.bytes, stream.run, stream.kind)
		s.gauge(metricStreamMessages, stream.messages, stream.run, stream.kind)
		if stream.limit > 0 {
			s.gauge(metricStreamLimit, stream.limit, stream.run, stream.kind)
		}
	}

	s.putBusWorkers(b.Workers)
	for _, r := range b.Runs {
		s.putBusRun(r)
	}
}

// putLastBus puts the state that a bus has now, and nothing if it does not answer any more.
func (s sink) putLastBus(v *busView) {
	v.forget()
	if state := v.look(); state != nil {
		s.putBus(state)
	}
}

// putBusWorkers puts the workers that have announced themselves.
func (s sink) putBusWorkers(workers []status.Worker) {
	labels := proto.Labels(len(workers), func(i int) (name, id string) { return workers[i].Name, workers[i].ID })
	ready := 0

	known := map[string]bool{}
	for i, w := range workers {
		if w.Ready {
			ready++
		}

		name := labels[i]
		if known[name] { // a worker of another program may choose any name; a series stands once on a page
			continue
		}
		known[name] = true

		s.gauge(metricWorkerInfo, 1, name, w.Host, w.Server, w.Flavour, w.Version)
		s.gauge(metricWorkerHeard, max(0, time.Since(w.HeardAt).Seconds()), name)
		s.gauge(metricWorkerReady, boolValue(w.Ready), name)
		s.gauge(metricWorkerInFlight, float64(w.InFlight), name)
		s.gauge(metricWorkerLimit, float64(w.Concurrency), name)
		s.counter(metricWorkerRequests, float64(w.Done), name)
	}

	s.gauge(metricBusWorkers, float64(ready), "ready")
	s.gauge(metricBusWorkers, float64(len(workers)-ready), "waiting")
}

// putBusRun puts a run.
func (s sink) putBusRun(r status.Run) {
	s.gauge(metricRunInfo, 1, r.Run, r.Label, r.InputName)
	for _, state := range runStates {
		s.gauge(metricRunState, boolValue(r.State == state), r.Run, string(state))
	}

	p := r.Progress
	s.gauge(metricRunRequests, float64(p.Total), r.Run)
	s.gauge(metricRunLines, float64(p.Done-p.Failed), r.Run, "answered")
	s.gauge(metricRunLines, float64(p.Failed), r.Run, "failed")
	s.gauge(metricRunDurable, float64(p.Durable), r.Run)
	for code, n := range r.Failures {
		s.gauge(metricRunFailures, float64(n), r.Run, code)
	}

	s.gauge(metricRunCreated, timestamp(r.CreatedAt), r.Run)
	if r.EndedAt != nil {
		s.gauge(metricRunEnded, timestamp(*r.EndedAt), r.Run)
	}
	if r.State.Ended() {
		return
	}

	if p.RequestsPerS != nil {
		s.gauge(metricRunRate, *p.RequestsPerS, r.Run)
	}
	for bound, seconds := range map[string]*float64{
		"low":      p.RemainingLowS,
		"expected": p.RemainingS,
		"high":     p.RemainingHighS,
	} {
		if seconds != nil {
			s.gauge(metricRunRemaining, *seconds, r.Run, bound)
		}
	}
	if r.Policy.ExpiresAt != nil {
		s.gauge(metricRunExpires, timestamp(*r.Policy.ExpiresAt), r.Run)
	}

	s.gauge(metricRunMissing, float64(len(r.Missing)), r.Run)
	if r.State != proto.StateValidating { // it is collected once its input is stored
		s.gauge(metricRunCollected, boolValue(r.Collector != nil), r.Run)
	}
}

// timestamp returns a time as Prometheus has it: in seconds since 1970.
func timestamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
