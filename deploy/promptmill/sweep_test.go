package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/pipeline"
	"github.com/promptmill/promptmill/deploy/statedir"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// A sweep asks no more of the bus for the runs that were deleted long ago.
func TestSweepOfManyDeleted(t *testing.T) {
	t.Parallel()

	_, url := startNATS(t)
	l, err := busconn.Dial(url, zerolog.Nop())
	must(t, err)
	defer l.Close()

	must(t, bus.CreateBuckets(t.Context(), l.JS, bus.Limits{}))

	runs := openRuns(t, l.JS)
	for i := range 100 {
		run := fmt.Sprintf("r%d", i)
		must(t, runs.Create(t.Context(), proto.Manifest{Schema: proto.ManifestSchema, Run: run}))
		must(t, runs.Delete(t.Context(), run))
	}

	sent := l.Conn.Stats().OutMsgs
	must(t, pipeline.SweepDeleted(t.Context(), l.JS, runs, 0, pipeline.Hooks{}))
	if n := l.Conn.Stats().OutMsgs - sent; n > 10 {
		t.Errorf("a sweep asks the bus %d times", n)
	}
}

// The paths that are bounded hold the streams of the bus.
func TestLongestStoreIsTheBus(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	folder, _, _ := strings.Cut(statedir.LongestPath, "pm_")
	if _, err := os.Stat(filepath.Join(v.folder, folder, proto.ResultsStream("victim"))); err != nil {
		t.Error(err)
	}
}
