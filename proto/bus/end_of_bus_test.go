package bus_test

import (
	"testing"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// The note of the end and the limits do not remove each other.
func TestSetEndsWith(t *testing.T) {
	t.Parallel()

	runs, js := openRuns(t)
	create(t, runs, manifest("before"))

	expect := func(want string) {
		t.Helper()

		run, err := bus.New(js).Runs.EndsWith(t.Context())
		must(t, err)
		if run != want {
			t.Errorf("the bus ends with run %q, want %q", run, want)
		}
	}

	expect("")
	must(t, runs.SetEndsWith(t.Context(), "before"))
	expect("before")
	must(t, runs.SetLimits(t.Context(), bus.Limits{WorkBytes: 2 << 20, ResultsBytes: 2 << 20}))
	expect("before")
	must(t, runs.SetEndsWith(t.Context(), "after"))
	expect("after")
	must(t, runs.SetEndsWith(t.Context(), ""))
	expect("")

	if _, err := runs.Get(t.Context(), "before"); err != nil {
		t.Error(err)
	}

	must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), bus.Limits{}))
	stream, err := js.Stream(t.Context(), proto.WorkStream("r"))
	must(t, err)
	if got := stream.CachedInfo().Config.MaxBytes; got != 2<<20 {
		t.Errorf("%d bytes under a limit of 2 MiB", got)
	}
}
