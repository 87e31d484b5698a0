package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker"
	"github.com/promptmill/promptmill/worker/gpu"
)

// Metrics of the parts of this process.
var (
	metricRequests = newDesc("worker_requests_total", "Requests that got their result.", "worker", "outcome")
	metricFailures = newDesc("worker_failed_attempts_total",
		"Attempts that failed, or whose answer was requested again.", "worker", "reason")
	metricAttempt     = newDesc("worker_attempt_seconds", "Time of an attempt at the model server.", "worker")
	metricInFlight    = newDesc("worker_in_flight", "Requests at the model server.", "worker")
	metricLimit       = newDesc("worker_limit", "Requests that may be at the model server at once.", "worker")
	metricReady       = newDesc("worker_ready", "1 if the model server takes requests.", "worker")
	metricTokens      = newDesc("worker_tokens_total", "Tokens, as the answers report.", "worker", "direction")
	metricAcks        = newDesc("worker_shards_acked_total", "Shards acknowledged.", "worker")
	metricRedelivered = newDesc("worker_shards_redelivered_total",
		"Shards that another worker had before.", "worker")
	metricRerun = newDesc("worker_rerun_requests_total",
		"Requests that were sent again, since a worker that died had sent them before.", "worker")
	metricDiscarded = newDesc("worker_discarded_attempts_total",
		"Attempts whose answers were thrown away.", "worker")
	metricDiscardedTokens = newDesc("worker_discarded_tokens_total",
		"Tokens that discarded attempts generated, as far as their answers report them.", "worker")

	metricPublished = newDesc("producer_shards_published_total", "Shards published by this process.", "run")
	metricFull      = newDesc("producer_waiting", "1 while the work stream is full.", "run")

	metricTotal      = newDesc("collector_requests", "Requests of the run.", "run")
	metricLines      = newDesc("collector_lines_total", "Output lines received, of all sessions.", "run", "outcome")
	metricDurable    = newDesc("collector_durable_lines", "Lines in the synced output.", "run")
	metricStopped    = newDesc("collector_stopped", "1 while a limit has stopped the run.", "run")
	metricDuplicates = newDesc("collector_duplicates_total", "Lines dropped, since their requests had one.", "run")
	metricRunTokens  = newDesc("collector_tokens_total", "Tokens, as the answers report.", "run", "direction")

	metricCard       = newDesc("gpu_info", "1, with the name and the id of a card of this host.", "gpu", "name", "uuid")
	metricCardMemory = newDesc("gpu_memory_bytes", "Memory of the card.", "gpu")
	metricCardUsed   = newDesc("gpu_memory_used_bytes", "Memory of the card that is used.", "gpu")
	metricCardUse    = newDesc("gpu_utilization_ratio", "Part of the time in which the card works, 0 to 1.", "gpu")
	metricCardPower  = newDesc("gpu_power_watts", "Power that the card takes.", "gpu")
	metricCardHeat   = newDesc("gpu_temperature_celsius", "Temperature of the card.", "gpu")
	metricCardJoules = newDesc("gpu_energy_joules_total", "Energy that the card took since this process began.", "gpu")
)

// knownReasons are the reasons of failed attempts that are exported from the start: a rate needs a zero to begin
// with. Further statuses, which servers seldom answer, follow when they are met.
var knownReasons = []string{
	"400", "401", "403", "404", "408", "413", "422", "429", "500", "502", "503", "504",
	proto.CodeAborted, proto.CodeConnection, proto.CodeCutOff, proto.CodeInvalidResponse, proto.CodeSchemaMismatch,
	proto.CodeTimeout, "doubted", "length", "server_died", "stall",
}

// putWorker puts the counts of a worker.
func (s sink) putWorker(w progress.LocalWorker) {
	stats := w.Worker.Stats()
	failed := stats.Failed.Load()
	s.counter(metricRequests, float64(max(0, stats.Done.Load()-failed)), w.Name, "answered")
	s.counter(metricRequests, float64(failed), w.Name, "failed")

	reasons := map[string]int64{}
	for _, reason := range knownReasons {
		reasons[reason] = 0
	}
	for reason, n := range stats.Reasons() {
		reasons[reason] = n
	}
	for reason, n := range reasons {
		s.counter(metricFailures, float64(n), w.Name, reason)
	}

	s.out <- latencyMetric(stats.Latency(), w.Name)
	s.gauge(metricInFlight, float64(stats.InFlight.Load()), w.Name)
	s.gauge(metricLimit, float64(w.Limiter.Limit()), w.Name)
	s.gauge(metricReady, boolValue(!w.Worker.Down()), w.Name)
	s.counter(metricTokens, float64(stats.TokensIn.Load()), w.Name, "in")
	s.counter(metricTokens, float64(stats.TokensOut.Load()), w.Name, "out")
	s.counter(metricAcks, float64(stats.Shards.Load()), w.Name)
	s.counter(metricRedelivered, float64(stats.Redelivered.Load()), w.Name)
	s.counter(metricRerun, float64(stats.Rerun.Load()), w.Name)
	s.counter(metricDiscarded, float64(stats.DiscardedAttempts.Load()), w.Name)
	s.counter(metricDiscardedTokens, float64(stats.DiscardedTokens.Load()), w.Name)
}

// latencyMetric returns the histogram of attempts.
func latencyMetric(h worker.Histogram, labels ...string) prometheus.Metric {
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range worker.LatencyBounds {
		sum += h.Counts[i]
		buckets[bound] = sum
	}

	return prometheus.MustNewConstHistogram(metricAttempt, h.Count, h.Sum.Seconds(), buckets, labels...)
}

// putCards puts the cards of this host, each once: several workers may see one.
func (s sink) putCards(workers []progress.LocalWorker) {
	seen := map[int]bool{}
	for _, w := range workers {
		for _, c := range w.Worker.Cards() {
			if !seen[c.Index] {
				seen[c.Index] = true
				s.putCard(c)
			}
		}
	}
}

// putCard puts the readings of a card that are known.
func (s sink) putCard(c gpu.Card) {
	index := strconv.Itoa(c.Index)
	s.gauge(metricCard, 1, index, proto.Printable(c.Name), proto.Printable(c.UUID))

	if c.MemoryBytes > 0 {
		s.gauge(metricCardMemory, float64(c.MemoryBytes), index)
	}
	if c.MemoryUsedBytes > 0 {
		s.gauge(metricCardUsed, float64(c.MemoryUsedBytes), index)
	}
	if c.UtilizationPercent != nil {
		s.gauge(metricCardUse, *c.UtilizationPercent/100, index)
	}
	if c.PowerWatts != nil {
		s.gauge(metricCardPower, *c.PowerWatts, index)
	}
	if c.TemperatureC != nil {
		s.gauge(metricCardHeat, *c.TemperatureC, index)
	}
	if c.Joules != nil {
		s.counter(metricCardJoules, *c.Joules, index)
	}
}

// putRun puts the counts of a run that this process publishes or collects.
func (s sink) putRun(r namedRun) {
	if r.producer != nil {
		s.counter(metricPublished, float64(r.producer.Stats().Shards.Load()), r.id)
		s.gauge(metricFull, boolValue(r.producer.Stats().Full.Load()), r.id)
	}

	p := r.collector.Progress()
	s.gauge(metricTotal, float64(p.Total), r.id)
	s.counter(metricLines, float64(p.Received.Done-p.Received.Failed), r.id, "answered")
	s.counter(metricLines, float64(p.Received.Failed), r.id, "failed")
	s.gauge(metricDurable, float64(p.Durable), r.id)
	s.gauge(metricStopped, boolValue(p.Stopped), r.id)
	s.counter(metricDuplicates, float64(p.Received.Duplicates), r.id)
	s.counter(metricRunTokens, float64(p.Received.PromptTokens), r.id, "in")
	s.counter(metricRunTokens, float64(p.Received.CompletionTokens), r.id, "out")
}
