package collector

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/journal"
	"github.com/promptmill/promptmill/collector/metadata"
)

// checkStats compares the statistics in the metadata.
func checkStats(t *testing.T, want *journal.FrameStats, meta metadata.Run) {
	t.Helper()

	r := meta.Results
	got := &journal.FrameStats{
		Attempts:        r.AttemptsHistogram,
		Retried:         r.AttemptFailures,
		Finish:          r.FinishReasons,
		Failures:        r.Failures,
		Workers:         map[string]int64{},
		CachedTokens:    metadata.OrZero(r.CachedPromptTokens),
		ReasoningTokens: r.ReasoningTokens,
	}
	for _, w := range meta.Workers {
		if *w.Requests > 0 {
			got.Workers[w.Name] += *w.Requests
		}
	}

	counts := cmpopts.IgnoreFields(journal.FrameStats{}, "Latency", "Prompt", "Completion", "Slowest",
		"Longest", "Examples", "Messages", "Total", "Costs")
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), counts); diff != "" {
		t.Errorf("statistics of the metadata (-want +got):\n%s", diff)
	}

	for what, both := range map[string][2]*metadata.Distribution{
		"latency":           {want.Total.Distribution(1000, r.SuccessCount), r.LatencySeconds},
		"last attempt":      {want.Latency.Distribution(1000, r.SuccessCount), r.LastAttemptSeconds},
		"prompt tokens":     {want.Prompt.Distribution(1, r.SuccessCount), r.PromptTokensPerRequest},
		"completion tokens": {want.Completion.Distribution(1, r.SuccessCount), r.CompletionTokensPerRequest},
	} {
		if diff := cmp.Diff(both[0], both[1], cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("%s of the metadata (-want +got):\n%s", what, diff)
		}
	}

	if len(r.FailureExamples) != len(want.Examples) || len(r.Slowest) != len(want.Slowest) ||
		len(r.Longest) != len(want.Longest) {
		t.Errorf("%d examples of failures, %d slow and %d long answers; want %d, %d and %d",
			len(r.FailureExamples), len(r.Slowest), len(r.Longest), len(want.Examples), len(want.Slowest),
			len(want.Longest))
	}
}

// A collector that is killed while it writes has the figures of one that was not.
func TestStatsAfterCrash(t *testing.T) {
	t.Parallel()

	b := newBench(t, 12, 16<<20)
	b.Publish("0-0", 0, 1)
	c := b.start()
	c.waitDurable(2)
	b.Publish("0-0", 2, 3, 4)
	c.waitDurable(5)
	c.stopped()
	b.tearJournal(1) // the latest frame is not whole

	b.Publish("0-1", 4, 5, 6)
	b.Publish("0-2", 7, 8, 9, 10, 11)
	meta := b.waitCompleted(b.start())
	checkStats(t, statsOf(fixture.Indexes(12)...), meta)
	if meta.Results.DuplicatesDropped != 1 {
		t.Errorf("%d duplicates, want request 4", meta.Results.DuplicatesDropped)
	}
}

// tear cuts the last bytes off the journal.
func (b *bench) tearJournal(bytes int64) {
	b.T.Helper()
	j := openJournal(b.T, b.out.Journal())
	info, err := os.Stat(b.out.Journal())
	fixture.Must(b.T, err)
	fixture.Must(b.T, os.Truncate(b.out.Journal(), info.Size()-bytes))
	fixture.Must(b.T, j.Close())
}

// Figures that an earlier program did not count stay unknown.
func TestStatsOfOldJournal(t *testing.T) {
	t.Parallel()

	b := newBench(t, 6, 16<<20)
	j := openJournal(t, b.out.Journal())
	appendLines(t, j, 0)
	fixture.Must(t, j.Close())

	// uncounted opens the journal as one of which a frame has no statistics.
	uncounted := func(cfg *Config) { cfg.Journal.State().Stats = nil }

	b.Publish("0-0", 1, 2, 3)
	c := b.start(uncounted)
	c.waitDurable(4)
	c.stopped() // and opened again
	b.Publish("0-0", 4, 5)

	r := b.waitCompleted(b.start(uncounted)).Results
	if r.AttemptsHistogram != nil || r.AttemptFailures != nil || r.FinishReasons != nil || r.Failures != nil ||
		r.EnergyJoules != nil {
		t.Errorf("figures %+v, want those of the statistics unknown", r)
	}
}
