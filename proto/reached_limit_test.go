package proto

import "testing"

// counts returns the counts of requests that have ended, of which some failed, were truncated, or
// were never sent.
func counts(ended, failed, truncated, skipped int) Counts {
	return Counts{Done: ended + skipped, Failed: failed + skipped, Truncated: truncated, Skipped: skipped}
}

func TestFindReachedLimit(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		limit string
		since Counts
		want  string
	}{
		{"failed>1%", counts(99, 99, 0, 0), ""}, // too few requests for a percentage
		{"failed>1%", counts(100, 1, 0, 0), ""}, // exactly the limit
		{"failed>1%", counts(100, 2, 0, 0), "the limit failed>1% is reached: 2 of 100 requests failed since the last start"},
		{"failed>=1%", counts(100, 1, 0, 0), "the limit failed>=1% is reached: 1 of 100 requests failed since the last start"},
		{"failed>=1%", counts(101, 1, 0, 0), ""},
		{"failed>0%", counts(500, 0, 0, 0), ""},
		{"failed>0%", counts(500, 1, 0, 0), "the limit failed>0% is reached: 1 of 500 requests failed since the last start"},
		{"failed>=0.07%", counts(10_000, 7, 0, 0),
			"the limit failed>=0.07% is reached: 7 of 10,000 requests failed since the last start"},
		{"failed>0.07%", counts(10_000, 7, 0, 0), ""},
		{"failed>100%", counts(500, 500, 0, 0), ""},
		{"failed>1%", counts(50, 0, 0, 500), ""},  // refused lines were not sent
		{"failed>1%", counts(100, 0, 0, 500), ""}, // and did not fail
		{"failed>50", counts(50, 50, 0, 0), ""},
		{"failed>50", counts(51, 51, 0, 0), "the limit failed>50 is reached: 51 of 51 requests failed since the last start"},
		{"failed>=50", counts(60, 50, 0, 0), "the limit failed>=50 is reached: 50 of 60 requests failed since the last start"},
		{"failed>0", counts(1, 1, 0, 0), "the limit failed>0 is reached: 1 of 1 requests failed since the last start"},
		{"failed>0", counts(1, 0, 1, 3), ""},
		{"truncated>5%", counts(200, 100, 10, 0), ""},
		{"truncated>5%", counts(200, 0, 11, 0),
			"the limit truncated>5% is reached: 11 of 200 answers were cut off at their token limit since the last start"},
	} {
		threshold, err := ParseThreshold(tt.limit)
		if err != nil {
			t.Fatal(err)
		}

		got := ""
		if reached := (RunPolicy{FailIf: []Threshold{threshold}}).FindReachedLimit(tt.since, Counts{}); reached != nil {
			got = reached.String()
		}

		if got != tt.want {
			t.Errorf("%s, %+v: %q, want %q", tt.limit, tt.since, got, tt.want)
		}
	}
}

// Of several limits the first that is reached counts. Tokens are of the whole run.
func TestFindReachedLimitOfSeveral(t *testing.T) {
	t.Parallel()

	p := RunPolicy{
		MaxTokens: 1000,
		FailIf:    []Threshold{{Metric: MetricFailed, Value: 10, Percent: true}, {Metric: MetricFailed, Value: 5}},
	}
	whole := Counts{PromptTokens: 600, CompletionTokens: 399}

	if reached := p.FindReachedLimit(counts(50, 5, 0, 0), whole); reached != nil {
		t.Errorf("no limit is reached: %v", reached)
	}

	reached := p.FindReachedLimit(counts(50, 6, 0, 0), whole)
	if reached == nil || reached.Limit != "failed>5" || reached.Count != 6 || reached.Ended != 50 {
		t.Errorf("six failed: %+v", reached)
	}

	whole.CompletionTokens++
	reached = p.FindReachedLimit(counts(50, 6, 0, 0), whole)
	if want := "the limit of 1,000 tokens is reached: the run has used 1,000"; reached == nil || reached.String() != want {
		t.Errorf("all tokens are used: %v, want %s", reached, want)
	}

	if reached := (RunPolicy{}).FindReachedLimit(counts(500, 500, 500, 0), whole); reached != nil {
		t.Errorf("a run without limits: %v", reached)
	}
}

// A complete run is judged as a whole, however few its requests are, and not by its tokens.
func TestFindReachedAtEnd(t *testing.T) {
	t.Parallel()

	p := RunPolicy{MaxTokens: 1, FailIf: []Threshold{{Metric: MetricFailed, Value: 10, Percent: true}}}
	whole := counts(10, 1, 0, 90)
	whole.PromptTokens = 5

	if reached := p.FindReachedAtEnd(whole); reached != nil {
		t.Errorf("1 of 10 failed: %v", reached)
	}

	whole.Failed++
	reached := p.FindReachedAtEnd(whole)
	if want := "the limit failed>10% is reached: 2 of 10 requests failed"; reached == nil || reached.String() != want {
		t.Errorf("2 of 10 failed: %v, want %s", reached, want)
	}

	if reached := p.FindReachedAtEnd(counts(0, 0, 0, 3)); reached != nil {
		t.Errorf("nothing was sent: %v", reached)
	}
}

// Tokens count that a stopped run has used, whether or not they are in the synced output.
func TestFindTokensUsedUp(t *testing.T) {
	t.Parallel()

	m := Manifest{Counts: Counts{PromptTokens: 400, CompletionTokens: 500}}
	if m.FindTokensUsedUp() != nil {
		t.Error("a run without a limit has used it up")
	}

	m.Policy.MaxTokens = 1000
	if m.FindTokensUsedUp() != nil {
		t.Error("900 of 1000 tokens are all")
	}

	m.StoppedBy = &ReachedLimit{Tokens: 1010, MaxTokens: 1000}
	if got := m.FindTokensUsedUp(); got == nil || got.Tokens != 1010 {
		t.Errorf("1010 of 1000 tokens: %+v", got)
	}

	m.Policy.MaxTokens = 2000
	if m.FindTokensUsedUp() != nil {
		t.Error("1010 of 2000 tokens are all")
	}
}

// Counts that the bus has from before the stop do not contain it.
func TestCountsOfAStop(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		reached ReachedLimit
		counts  Counts
		want    bool
	}{
		{ReachedLimit{Metric: MetricFailed, Count: 3, Ended: 9}, Counts{Done: 10, Failed: 4, Skipped: 1}, true},
		{ReachedLimit{Metric: MetricFailed, Count: 3, Ended: 9}, Counts{Done: 10, Failed: 3, Skipped: 1}, false},
		{ReachedLimit{Metric: MetricFailed, Count: 3, Ended: 9}, Counts{Done: 8, Failed: 3}, false},
		{ReachedLimit{Metric: MetricTruncated, Count: 3, Ended: 9}, Counts{Done: 9, Truncated: 3}, true},
		{ReachedLimit{Metric: MetricTruncated, Count: 3, Ended: 9}, Counts{Done: 9, Failed: 3}, false},
		{ReachedLimit{Tokens: 20, MaxTokens: 20}, Counts{PromptTokens: 9, CompletionTokens: 11}, true},
		{ReachedLimit{Tokens: 20, MaxTokens: 20}, Counts{PromptTokens: 9, CompletionTokens: 10}, false},
	} {
		if got := tt.reached.IsCounted(tt.counts); got != tt.want {
			t.Errorf("%v counted in %+v: %t, want %t", tt.reached, tt.counts, got, tt.want)
		}
	}
}
