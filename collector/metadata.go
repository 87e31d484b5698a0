package collector

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// DescribeSoFar returns the metadata that a run would have if it ended at a time, by the state of its journal. What is
// known of output files alone is left out. It shares maps and lists with the state.
func DescribeSoFar(s *journal.State, now time.Time) metadata.Run {
	sessions := slices.Collect(maps.Values(s.WorkerSessions))
	slices.SortFunc(sessions, func(a, b journal.WorkerSession) int { return cmp.Compare(a.Key(), b.Key()) })

	return describeRun(&Config{}, s, sessions, metadata.Series{}, s.Manifest.State, now)
}

// buildMetadata returns the metadata of a run that ends now, in a state, with its output
// files written. observed is the load of the workers that is not in the journal.
func buildMetadata(
	cfg *Config, s *journal.State, sessions []journal.WorkerSession, observed metadata.Series, state proto.State,
	now time.Time,
) (metadata.Run, error) {
	meta := describeRun(cfg, s, sessions, observed, state, now)
	if err := hashOutput(&meta, cfg.Output); err != nil {
		return metadata.Run{}, err
	}

	return meta, nil
}

// describeRun is buildMetadata without the checksums and sizes of the output files.
func describeRun(
	cfg *Config, s *journal.State, sessions []journal.WorkerSession, observed metadata.Series, state proto.State,
	now time.Time,
) metadata.Run {
	m := s.Manifest
	m.State, m.EndedAt, m.Counts, m.Failures = state, &now, s.Counts, topFailures(s)
	m.StoppedBy = nil

	meta := metadata.Run{
		SchemaVersion: metadata.Version,
		TestID:        m.Run,
		Label:         m.Label,
		Timestamp:     m.CreatedAt,
		Status:        m.State,
		Manifest:      &m,
		Platform:      cfg.Info.Platform,
		Model:         strings.Join(m.Models(), ", "),
		Config: metadata.Config{
			Concurrency:   nullIfZero(cfg.Info.Concurrency),
			Sampling:      m.Input.Parameters,
			ShardSize:     m.Settings.ShardSize,
			GroupByPrefix: m.Settings.GroupByPrefix,
			Ordered:       cfg.Format.Ordered,
			Seekable:      cfg.Format.Seekable,
			Plain:         cfg.Format.Plain,
		},
		Test: metadata.Test{
			NumRequests: m.Input.Requests,
			InputFile:   m.Input.FirstFile(),
			InputSHA256: m.Input.SHA256,
			InputBytes:  &m.Input.Bytes,
			OutputFile:  cfg.Output.Results(),
		},
		Results:  buildResults(s, now),
		Series:   buildSeries(s, observed),
		Versions: metadata.Versions{Promptmill: cfg.Info.Version, Go: runtime.Version()},
	}
	if cfg.Format.Plain {
		meta.Results.OutputBytesUncompressed = s.Sizes.OKPlain + s.Sizes.FailedPlain
	}

	for _, f := range m.Input.Files {
		meta.Test.InputFiles = append(meta.Test.InputFiles, f.Path)
	}

	addTokens(&meta.Results, s)
	addMeasures(&meta.Results, s, meta.Series, sessions)
	addServerLatency(&meta.Results, sessions, m.CreatedAt)
	addWorkers(&meta, sessions, s)
	meta.Results.Departures = buildDepartures(m.Run, sessions, s.Stats, now)

	return meta
}

// buildSeries returns the series of a run. observed is the load of the workers that is not in the journal.
func buildSeries(s *journal.State, observed metadata.Series) *metadata.Series {
	series := s.Series.Clone()
	series.Merge(&observed)
	s.Latencies.FillSeries(series)

	return series
}

// buildResults returns the counts, sizes and times of a run that ends now.
func buildResults(s *journal.State, now time.Time) metadata.Results {
	worked := s.Worked.Seconds()

	// The run began by the clock of its producer, and clocks can be put back. But the whole
	// is no less than its parts.
	lost := max(0, s.Lost) // what a session did before it was killed may count as worked twice
	total := max(now.Sub(s.Manifest.CreatedAt), s.Worked+s.Idle+lost)

	return metadata.Results{
		SuccessCount:             s.Counts.Done - s.Counts.Failed,
		FailureCount:             s.Counts.Failed,
		NotSentCount:             s.Counts.Skipped,
		InferenceTimeSeconds:     worked,
		TotalTimeSeconds:         total.Seconds(),
		IdleTimeSeconds:          new(s.Idle.Seconds()),
		LostTimeSeconds:          new(lost.Seconds()),
		Attempts:                 s.Counts.Attempts,
		DuplicatesDropped:        s.Counts.Duplicates,
		Dropped:                  s.Counts.Dropped,
		Interruptions:            s.Sessions - 1,
		InterruptedAt:            s.Interruptions,
		Stops:                    s.Stops,
		OutputBytesUncompressed:  s.Sizes.OK + s.Sizes.Failed,
		ThroughputRequestsPerSec: metadata.Per(float64(s.Counts.Done-s.Counts.Skipped), worked),
	}
}

// hashOutput adds the checksums and sizes of the output files.
func hashOutput(meta *metadata.Run, out output.Prefix) error {
	sum, size, err := output.HashFile(out.Results())
	if err != nil {
		return err
	}

	meta.Test.OutputSHA256, meta.Results.OutputBytes = sum, size

	if meta.Results.FailureCount > 0 {
		sum, size, err := output.HashFile(out.Errors())
		if err != nil {
			return err
		}

		meta.Test.ErrorFile, meta.Test.ErrorSHA256 = new(out.Errors()), sum
		meta.Results.OutputBytes += size
	}

	meta.Results.CompressionRatio = metadata.Per(
		float64(meta.Results.OutputBytesUncompressed), float64(meta.Results.OutputBytes))

	return nil
}

// addTokens adds the tokens of the answers, if any of them reports its usage.
func addTokens(r *metadata.Results, s *journal.State) {
	in, out := s.Counts.PromptTokens, s.Counts.CompletionTokens
	if in+out == 0 {
		return
	}

	total, worked := in+out, s.Worked.Seconds()
	r.PromptTokens, r.CompletionTokens, r.TotalTokens = &in, &out, &total
	r.ThroughputTokensPerSec = metadata.Per(float64(total), worked)
	r.InputTokensPerSec = metadata.Per(float64(in), worked)
	r.OutputTokensPerSec = metadata.Per(float64(out), worked)
}

// addMeasures adds the figures of the series and of the frames' statistics.
func addMeasures(
	r *metadata.Results, s *journal.State, series *metadata.Series, sessions []journal.WorkerSession,
) {
	for i := range series.Len() {
		p, seconds := series.At(i), float64(series.IntervalSeconds)
		r.PeakRequestsPerSec = metadata.Most(r.PeakRequestsPerSec, new(float64(p.Requests)/seconds))

		if s.Counts.CompletionTokens > 0 {
			r.PeakOutputTokensPerSec = metadata.Most(r.PeakOutputTokensPerSec, new(float64(p.CompletionTokens)/seconds))
		}

		r.PeakConcurrentRequests = metadata.Most(r.PeakConcurrentRequests, p.InFlight)
	}

	stats := s.Stats
	if stats == nil {
		return
	}

	addDistributions(r, stats)
	addFailures(r, stats)

	r.AttemptsHistogram, r.AttemptFailures = emptyIfNil(stats.Attempts), emptyIfNil(stats.Retried)
	r.FinishReasons = emptyIfNil(stats.Finish)

	if r.Wasted = buildWasted(r, s, sessions); r.Wasted != nil {
		atServer := float64(stats.Costs.LastMS)/second + r.Wasted.DiscardedSeconds
		r.MeanConcurrentRequests = metadata.Per(atServer, r.InferenceTimeSeconds)
	}

	// The run may have been over before the collector began, or before workers that do not sample their
	// load reported. The mean is within a fifth: the worked time of a short run is not exact.
	if peak := r.PeakConcurrentRequests; peak != nil &&
		(*peak == 0 || float64(*peak) < 0.8*metadata.OrZero(r.MeanConcurrentRequests) || !hasLoads(series)) {
		r.PeakConcurrentRequests = nil
	}

	if stats.CachedTokens > 0 {
		r.CachedPromptTokens = &stats.CachedTokens
	}
	r.ReasoningTokens = stats.ReasoningTokens
}

// hasLoads reports whether the load was read throughout a run, so that its peak is known: at most a
// tenth of the intervals with results are further than [metadata.Quiet] from a reading. Of a run that is
// collected later, workers still have the readings of the end.
func hasLoads(series *metadata.Series) bool {
	reach := max(1, int(metadata.Quiet.Seconds())/max(1, series.IntervalSeconds))

	worked, unread := 0, 0
	for i := range series.Len() {
		if series.At(i).Requests == 0 {
			continue
		}

		worked++
		from, to := max(0, i-reach), min(series.Len(), i+reach+1)
		if !slices.ContainsFunc(series.InFlight[from:to], func(n *int64) bool { return n != nil }) {
			unread++
		}
	}

	return 10*unread <= worked
}

// second is a second in the unit of the latencies of a journal.
const second = 1000

// addDistributions adds how the answered requests are spread. Where some answers do not report their
// usage, the others are no fair sample.
func addDistributions(r *metadata.Results, stats *journal.FrameStats) {
	n := r.SuccessCount
	r.LatencySeconds, r.LatencyHistogram = stats.Total.Distribution(second, n), stats.Total.Histogram(second, n)
	r.LastAttemptSeconds = stats.Latency.Distribution(second, n)

	r.PromptTokensPerRequest, r.PromptTokensHistogram = stats.Prompt.Distribution(1, n), stats.Prompt.Histogram(1, n)
	r.CompletionTokensPerRequest = stats.Completion.Distribution(1, n)
	r.CompletionTokensHistogram = stats.Completion.Histogram(1, n)

	r.Slowest, r.Longest = stats.Slowest, stats.Longest
}

// maxFailureDetails is the most causes of failures that metadata describe.
const maxFailureDetails = 100

// addFailures adds the failed requests by cause.
func addFailures(r *metadata.Results, stats *journal.FrameStats) {
	r.Failures, r.FailureExamples = emptyIfNil(stats.Failures), stats.Examples
	for cause, n := range stats.Failures {
		r.FailureDetails = append(r.FailureDetails, metadata.FailureDetail{
			Cause:    cause,
			Count:    n,
			Message:  stats.Messages[cause],
			CustomID: stats.Examples[cause],
		})
	}

	slices.SortFunc(r.FailureDetails, func(a, b metadata.FailureDetail) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Cause, b.Cause))
	})

	r.FailureDetails = r.FailureDetails[:min(len(r.FailureDetails), maxFailureDetails)]
}

// nullIfZero returns a pointer to a value, or nil if the value is empty.
func nullIfZero[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}
