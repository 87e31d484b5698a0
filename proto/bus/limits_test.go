package bus_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// Zero would be no bound for a NATS server, and be below every limit that the bus has.
func TestLimitsDefaults(t *testing.T) {
	t.Parallel()

	_, js := openRuns(t)
	must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), bus.Limits{}))

	for _, name := range []string{proto.WorkStream("r"), proto.ResultsStream("r")} {
		stream, err := js.Stream(t.Context(), name)
		must(t, err)

		if cfg := stream.CachedInfo().Config; cfg.MaxBytes != bus.DefaultStreamBytes || cfg.Replicas != 1 {
			t.Errorf("%s has %d bytes in %d copies", name, cfg.MaxBytes, cfg.Replicas)
		}
	}

	runs := bus.New(js).Runs
	must(t, runs.SetLimits(t.Context(), bus.Limits{WorkBytes: 2 << 20, ResultsBytes: 3 << 20}))
	must(t, bus.EnsureStreams(t.Context(), js, manifest("clamped"), bus.Limits{}))

	stream, err := js.Stream(t.Context(), proto.WorkStream("clamped"))
	must(t, err)

	if got := stream.CachedInfo().Config.MaxBytes; got != 2<<20 {
		t.Errorf("%d bytes under a limit of 2 MiB", got)
	}
}

func TestSetLimits(t *testing.T) {
	t.Parallel()

	own := bus.Limits{WorkBytes: 4 << 20, ResultsBytes: 8 << 20}
	for _, tt := range []struct {
		name string
		set  []bus.Limits // one after the other
		want bus.Limits
	}{
		{"none", nil, own},
		{"lower ones hold", []bus.Limits{{WorkBytes: 1 << 20, ResultsBytes: 2 << 20}},
			bus.Limits{WorkBytes: 1 << 20, ResultsBytes: 2 << 20}},
		{"higher ones raise nothing", []bus.Limits{{WorkBytes: 1 << 30, ResultsBytes: 1 << 30}}, own},
		{"the last ones hold", []bus.Limits{
			{WorkBytes: 1 << 20, ResultsBytes: 1 << 20},
			{WorkBytes: 2 << 20, ResultsBytes: 3 << 20},
		}, bus.Limits{WorkBytes: 2 << 20, ResultsBytes: 3 << 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			runs, js := openRuns(t)
			create(t, runs, manifest("before"))
			config := func(name string) jetstream.StreamConfig {
				stream, err := js.Stream(t.Context(), name)
				must(t, err)
				return stream.CachedInfo().Config
			}

			before := config("KV_" + proto.RunsBucket)
			for _, l := range tt.set {
				must(t, runs.SetLimits(t.Context(), l))
			}

			if diff := cmp.Diff(
				before, config("KV_"+proto.RunsBucket), cmpopts.IgnoreFields(before, "Metadata"),
			); diff != "" {
				t.Errorf("the bucket is another (-before +after):\n%s", diff)
			}

			if _, err := runs.Get(t.Context(), "before"); err != nil {
				t.Error(err)
			}

			must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), own))

			got := bus.Limits{
				WorkBytes:    config(proto.WorkStream("r")).MaxBytes,
				ResultsBytes: config(proto.ResultsStream("r")).MaxBytes,
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("limits of the streams (-want +got):\n%s", diff)
			}
		})
	}
}
