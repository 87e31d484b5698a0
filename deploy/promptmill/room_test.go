package main

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// An ended run leaves the room on the bus to others: runs stay there for a day, and there may
// be hundreds. It has room again when its failed requests run once more.
func TestEndedRunLeavesRoom(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	c.serve()
	link, err := busconn.Connect(busconn.Options{
		Join: strings.TrimSpace(c.must("join", "collector")),
	}, proto.RoleCollector, zerolog.Nop())

	must(t, err)
	t.Cleanup(func() { link.Close() })

	room := func() int64 {
		t.Helper()
		stream, err := link.JS.Stream(t.Context(), proto.ResultsStream("out"))
		must(t, err)
		return stream.CachedInfo().Config.MaxBytes
	}

	c.must("submit", c.input("in.jsonl", 20), "--model", "sim", "--run", "out")

	before := room()
	if before < 1<<20 {
		t.Fatalf("the results have room for %d bytes", before)
	}

	c.must("cancel", "out")
	c.ended("out", pollTime)
	poll(t, pollTime, "the room of the ended run", func() bool { return room() == -1 })

	c.start("worker", "--url", newModel(t, sim.Config{TTFT: time.Second}).url)
	c.must("retry", "out")
	poll(t, pollTime, "room for the retried run", func() bool { return room() == before })

	c.ended("out", pollTime)
	poll(t, pollTime, "the room of the run that ended again", func() bool { return room() == -1 })
}
