package pipeline

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// Shards are cut for the workers of the run, and for more where others may join.
func TestRunCountsWorkers(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name    string
		servers int
		shared  bool
		want    int
	}{
		{"one server", 1, false, 1},
		{"three servers", 3, false, 3},
		{"one server, and others may join", 1, true, sharedWorkers},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cfg := newConfig(t, 5, sim.Config{})
			cfg.Servers.URLs = []string{cfg.ServerURL}
			cfg.ServerURL, cfg.Shared = "", tt.shared
			for range tt.servers - 1 {
				cfg.Servers.URLs = append(cfg.Servers.URLs, newConfig(t, 1, sim.Config{}).ServerURL)
			}

			res, err := Run(t.Context(), cfg)
			must(t, err)

			want := proto.Settings{
				Model:      "m",
				ShardSize:  proto.DefaultShardSize,
				ShardBytes: DefaultShardBytes,
				Workers:    tt.want,
			}
			if diff := cmp.Diff(want, res.Metadata.Manifest.Settings); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

// A run that began when slots were counted keeps its settings, and so its cut.
func TestRunKeepsTheCutForSlots(t *testing.T) {
	t.Parallel()

	const requests = 300
	cfg := newConfig(t, requests, sim.Config{})
	settings := proto.Settings{Model: "m", ShardSize: 32, ShardBytes: DefaultShardBytes, Capacity: 16}
	in, _, err := producer.Validate(t.Context(), producer.Source{Files: cfg.Inputs}, settings, nil)
	must(t, err)

	j, err := createJournal(output.Prefix(filepath.Join(filepath.Dir(cfg.Output), "out")), proto.Manifest{
		Schema:    proto.ManifestSchema,
		Run:       "earlier",
		State:     proto.StateInProgress,
		CreatedAt: time.Now().UTC(),
		Input:     in,
		Settings:  settings,
	})
	must(t, err)
	must(t, j.Close())

	res, err := Run(t.Context(), cfg)
	must(t, err)

	if res.Run != "earlier" || res.Answered != requests {
		t.Errorf("run %s: %d answered, want %d of the run that began before", res.Run, res.Answered, requests)
	}

	if diff := cmp.Diff(settings, res.Metadata.Manifest.Settings); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}
