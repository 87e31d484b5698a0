package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/progress"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/worker/sim"
)

// The bus of a run refuses another one. If one is there all the same, from an earlier version, its
// store stays, also after the next call.
func TestRunKeepsOtherRuns(t *testing.T) {
	t.Parallel()

	var log strings.Builder
	cfg := newConfig(t, 20, sim.Config{Slots: 8, TTFT: 20 * time.Millisecond})
	cfg.Log = zerolog.New(&log).Level(zerolog.WarnLevel)

	var once sync.Once
	cfg.Hooks.Progress = func(progress.Sample) {
		once.Do(func() {
			l, err := busconn.Connect(busconn.Options{State: cfg.State}, proto.RoleProducer, zerolog.Nop())
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Close()

			_, err = Submit(t.Context(), SubmitConfig{Bus: l, Inputs: cfg.Inputs, Settings: proto.Settings{Model: "m"}})
			if exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), "belongs to promptmill run") {
				t.Errorf("a submit there: %v", err)
			}

			m := proto.Manifest{
				Schema:    proto.SchemaFor(proto.Settings{}),
				Run:       "other",
				State:     proto.StateInProgress,
				CreatedAt: time.Now().UTC(),
			}
			if err := bus.New(l.JS).Runs.Create(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}

	res, err := Run(t.Context(), cfg)
	must(t, err)

	kept := filepath.Join(cfg.State, "kept-"+res.Run)
	if got := log.String(); !strings.Contains(got, `"runs":["other"]`) || !strings.Contains(got, kept) {
		t.Errorf("the log does not name the run and the store %s:\n%s", kept, got)
	}

	cfg.Hooks.Progress = nil
	res, err = Run(t.Context(), cfg)
	must(t, err)
	if !res.WasComplete {
		t.Error("the second call ran it again")
	}

	if _, err := os.Stat(filepath.Join(kept, "nats", "jetstream")); err != nil {
		t.Error(err)
	}
}
