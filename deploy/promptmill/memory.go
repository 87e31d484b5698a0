package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memoryLimit is the soft limit of a run's memory in bytes. The bus keeps blocks of its files
// in memory while there is room, which would make a long run larger than a short one, and no
// faster.
const memoryLimit = 320 << 20

// limitMemory keeps the soft limit until ctx ends. Work that needs more (large bodies) raises
// it, so that the garbage collector never works against the limit. A GOMEMLIMIT of the user
// takes precedence.
func limitMemory(ctx context.Context, getenv func(string) string) {
	if getenv("GOMEMLIMIT") != "" {
		return
	}

	before := debug.SetMemoryLimit(memoryLimit)
	defer debug.SetMemoryLimit(before)

	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()

	for {
		select {
		case <-tick.C:
			metrics.Read(live)
			debug.SetMemoryLimit(max(memoryLimit, int64(live[0].Value.Uint64())*8/5))
		case <-ctx.Done():
			return
		}
	}
}
