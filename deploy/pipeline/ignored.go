package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// listIgnored returns a line for each setting of a configuration that is ignored, since the run of
// a manifest began with another. A setting that is not given is not one of them.
func listIgnored(has proto.Manifest, cfg Config) []string {
	lines := listIgnoredCut(has.Settings.WithDefaults(), cfg.Settings)
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }

	policy := has.Policy
	if cfg.Policy.Priority != 0 && cfg.Policy.Priority != policy.Priority {
		add("--priority %d is ignored: the run keeps %d, as its first start set it",
			cfg.Policy.Priority, policy.Priority)
	}

	switch {
	case policy.ExpiresAt != nil && has.Retries == 0:
		add("the run expires at %s: --expires counts from its first start",
			policy.ExpiresAt.Local().Format(time.DateTime))
	case cfg.Policy.ExpiresAt != nil && has.Retries == 0: // a retry sets it again
		add("--expires is ignored: the run began without it")
	}

	if cfg.Bus.External() && cfg.Policy.KeepSeconds != policy.KeepSeconds {
		add("the run stays on the bus for %s after its end, as its first start set it",
			time.Duration(policy.KeepSeconds)*time.Second)
	}

	if cfg.Policy.KeepResults && !policy.KeepResults {
		add("--keep-results is ignored: the run began without it")
	}

	if cfg.Retry && has.Retries == 0 {
		add("--retry is ignored: the run is not complete yet; the same command runs its failed requests again once it is")
	}

	return lines
}

// listIgnoredCut returns the lines for settings of the shards.
func listIgnoredCut(has, want proto.Settings) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }

	if want.ShardSize > 0 && want.ShardSize != has.ShardSize {
		add("--shard-size %d is ignored: the run was cut with %d at its first start", want.ShardSize, has.ShardSize)
	}

	switch {
	case want.GroupByPrefix && !has.GroupByPrefix:
		add("--group-by-prefix is ignored: the run was cut without it at its first start")
	case has.GroupByPrefix && !want.GroupByPrefix:
		add("the run keeps --group-by-prefix, as its first start set it")
	}

	if encoding := cmp.Or(has.ShardEncoding, proto.Snappy); cmp.Or(want.ShardEncoding, proto.Snappy) != encoding {
		add("the run keeps --shard-encoding %s, as its first start set it", encoding)
	}

	return lines
}

// describeUnusedModel returns a line if the model for requests that name none is used by none.
func describeUnusedModel(in proto.Input, model string) string {
	if model == "" || in.Models[model] > 0 || in.Requests == in.Invalid {
		return ""
	}
	return fmt.Sprintf("--model %[1]s is not used: each request names a model; --override-model %[1]s replaces them",
		model)
}

// describeReplicas returns a line if the streams of a run, which an earlier start made, do not have
// as many copies as wanted.
func describeReplicas(ctx context.Context, js jetstream.JetStream, run string, want int) string {
	stream, err := bus.FindStream(ctx, js, proto.WorkStream(run))
	if err != nil || want <= 1 {
		return ""
	}

	if has := stream.CachedInfo().Config.Replicas; has != want {
		return fmt.Sprintf("--replicas %d is ignored: the streams of the run have %d", want, has)
	}

	return ""
}

// listIgnoredFormat returns a line for each flag of a format that is ignored, since the output was
// complete before.
func listIgnoredFormat(has metadata.Config, want output.Format) (lines []string) {
	for _, f := range []struct {
		name      string
		has, want bool
	}{
		{"--ordered", has.Ordered, want.Ordered},
		{"--seekable", has.Seekable, want.Seekable},
		{"--plain", has.Plain, want.Plain},
	} {
		if f.want && !f.has {
			lines = append(lines, fmt.Sprintf("%s is ignored: the output was written without it, and is complete", f.name))
		}
	}

	return lines
}
