package pipeline

import (
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// The refusal of a run that is on the bus already names its state and the command for that state.
func TestRefuseSameRun(t *testing.T) {
	t.Parallel()

	const begin = "there is a run r on the bus already, with the same input and settings, which is "
	for _, tt := range []struct {
		name      string
		m         proto.Manifest
		err, hint string
	}{
		{
			name: "at work",
			m:    proto.Manifest{State: proto.StateInProgress},
			err:  "running",
			hint: "promptmill status r --watch shows its progress; the same command with --wait waits for its end",
		},
		{
			name: "for the command that made it",
			m:    proto.Manifest{State: proto.StateInProgress, Policy: proto.RunPolicy{Attended: true}},
			err:  "running",
			hint: "promptmill status r shows which process collects it; if none does, the same command with " +
				"--wait -o OUT continues it",
		},
		{
			name: "paused",
			m:    proto.Manifest{State: proto.StatePaused},
			err:  "paused",
			hint: "promptmill resume r continues it",
		},
		{
			name: "stopped",
			m: proto.Manifest{
				State:     proto.StatePaused,
				StoppedBy: &proto.ReachedLimit{MaxTokens: 10, Tokens: 12},
			},
			err:  "stopped: the limit of 10 tokens is reached: the run has used 12",
			hint: "promptmill resume r --max-tokens N continues it, with N above 12",
		},
		{
			name: "refused",
			m:    proto.Manifest{State: proto.StateFailed, Problem: "x.part.zst is of run s"},
			err:  "refused by its collector: x.part.zst is of run s",
			hint: "promptmill delete r, then submit it again with another --run, or with this one once the files " +
				"are moved away",
		},
		{
			name: "complete",
			m:    proto.Manifest{State: proto.StateCompleted},
			err:  "completed",
			hint: "promptmill status r shows where its results are; promptmill delete r makes its id free",
		},
		{
			name: "cancelled",
			m:    proto.Manifest{State: proto.StateCancelled, Counts: proto.Counts{Done: 9000, Failed: 8000}},
			err:  "cancelled, with 8,000 failed requests",
			hint: "promptmill retry r runs the failed ones again; promptmill delete r makes its id free",
		},
	} {
		tt.m.Run = "r"
		err := refuseSameRun(tt.m)
		if err.Error() != begin+tt.err || exit.Hint(err) != tt.hint || exit.Code(err) != exit.CodeError {
			t.Errorf("%s: %v; hint %q; exit code %d", tt.name, err, exit.Hint(err), exit.Code(err))
		}
	}
}

// A setting that differs is named, though it does not change the results.
func TestDescribePolicyChange(t *testing.T) {
	t.Parallel()

	then := proto.Manifest{
		Label:    "nightly",
		Settings: proto.Settings{ShardSize: 8},
		Policy: proto.RunPolicy{
			FailIf:      []proto.Threshold{{Metric: "failed", Value: 1, Percent: true}},
			MaxTokens:   10_000,
			KeepSeconds: 60,
			ExpiresAt:   new(time.Now()),
		},
	}

	for _, tt := range []struct {
		want   string
		change func(*proto.Manifest)
	}{
		{"", func(m *proto.Manifest) { m.Label, m.Policy.ExpiresAt, m.Policy.Attended = "", nil, true }},
		{"--label was nightly and is x now", func(m *proto.Manifest) { m.Label = "x" }},
		{"--shard-size was 8 and is 9 now", func(m *proto.Manifest) { m.Settings.ShardSize = 9 }},
		{"--shard-encoding was snappy and is zstd now", func(m *proto.Manifest) { m.Settings.ShardEncoding = "zstd" }},
		{"--priority was 0 and is 3 now", func(m *proto.Manifest) { m.Policy.Priority = 3 }},
		{"--fail-if was failed>1% and is none now", func(m *proto.Manifest) { m.Policy.FailIf = nil }},
		{"--max-tokens was 10,000 and is none now", func(m *proto.Manifest) { m.Policy.MaxTokens = 0 }},
		{"--keep in seconds was 60 and is 70 now", func(m *proto.Manifest) { m.Policy.KeepSeconds = 70 }},
	} {
		now := then
		tt.change(&now)
		if got := describePolicyChange(then, now); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
