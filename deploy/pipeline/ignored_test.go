package pipeline

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto"
)

func TestListIgnored(t *testing.T) {
	t.Parallel()

	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.Local)
	later := at.Add(time.Hour)
	plain := proto.Settings{ShardSize: 32}

	for _, tt := range []struct {
		name string
		has  proto.Manifest
		cfg  Config
		want []string
	}{
		{
			name: "nothing is given",
			has: proto.Manifest{
				Settings: proto.Settings{ShardSize: 8},
				Policy:   proto.RunPolicy{Priority: 5, KeepSeconds: 60},
			},
		},
		{
			name: "the same is given",
			has:  proto.Manifest{Settings: plain, Policy: proto.RunPolicy{Priority: 5, KeepResults: true}},
			cfg:  Config{Settings: plain, Policy: proto.RunPolicy{Priority: 5, KeepResults: true}},
		},
		{
			name: "another cut",
			has:  proto.Manifest{Settings: plain},
			cfg:  Config{Settings: proto.Settings{ShardSize: 8, GroupByPrefix: true}},
			want: []string{
				"--shard-size 8 is ignored: the run was cut with 32 at its first start",
				"--group-by-prefix is ignored: the run was cut without it at its first start",
			},
		},
		{
			name: "without groups, in the usual encoding",
			has:  proto.Manifest{Settings: proto.Settings{GroupByPrefix: true, ShardEncoding: proto.Zstd}},
			want: []string{
				"the run keeps --group-by-prefix, as its first start set it",
				"the run keeps --shard-encoding zstd, as its first start set it",
			},
		},
		{
			name: "another policy",
			has:  proto.Manifest{Policy: proto.RunPolicy{KeepSeconds: 3600}},
			cfg: Config{
				Bus:    busconn.Options{URL: "nats://bus"},
				Policy: proto.RunPolicy{Priority: 5, KeepSeconds: 60, KeepResults: true, ExpiresAt: &later},
			},
			want: []string{
				"--priority 5 is ignored: the run keeps 0, as its first start set it",
				"--expires is ignored: the run began without it",
				"the run stays on the bus for 1h0m0s after its end, as its first start set it",
				"--keep-results is ignored: the run began without it",
			},
		},
		{
			name: "an expiry",
			has:  proto.Manifest{Policy: proto.RunPolicy{ExpiresAt: &at}},
			cfg:  Config{Policy: proto.RunPolicy{ExpiresAt: &later}},
			want: []string{"the run expires at 2026-11-28 12:00:00: --expires counts from its first start"},
		},
		{
			name: "a retry of an incomplete run",
			cfg:  Config{Retry: true},
			want: []string{
				"--retry is ignored: the run is not complete yet; " +
					"the same command runs its failed requests again once it is",
			},
		},
		{
			name: "a retry that resumes",
			has:  proto.Manifest{Retries: 1},
			cfg:  Config{Retry: true, Policy: proto.RunPolicy{ExpiresAt: &later}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if diff := cmp.Diff(tt.want, listIgnored(tt.has, tt.cfg)); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestListIgnoredFormat(t *testing.T) {
	t.Parallel()

	has := metadata.Config{Ordered: true}
	if lines := listIgnoredFormat(has, output.Format{Ordered: true}); len(lines) > 0 {
		t.Errorf("the format that the output has: %q", lines)
	}

	want := []string{
		"--seekable is ignored: the output was written without it, and is complete",
		"--plain is ignored: the output was written without it, and is complete",
	}
	if diff := cmp.Diff(want, listIgnoredFormat(has, output.Format{Seekable: true, Plain: true})); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestDescribeUnusedModel(t *testing.T) {
	t.Parallel()

	named := proto.Input{Requests: 3, Invalid: 1, Models: map[string]int{"a": 2}}
	const want = "--model m is not used: each request names a model; --override-model m replaces them"
	if got := describeUnusedModel(named, "m"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	for _, model := range []string{"", "a"} {
		if got := describeUnusedModel(named, model); got != "" {
			t.Errorf("model %q: got %q, want nothing", model, got)
		}
	}

	if got := describeUnusedModel(proto.Input{Requests: 1, Invalid: 1}, "m"); got != "" {
		t.Errorf("refused lines: got %q, want nothing", got)
	}
}
