package producer

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// cutAll cuts n requests; size and model return the size and the model of each.
func cutAll(t testing.TB, s proto.Settings, n int, size func(i int) int, model func(i int) string) []modelShard {
	t.Helper()

	var cuts []modelShard
	c := newCutter(s, 2, n)
	for i := range n {
		r := proto.Request{Index: uint32(i), CustomID: []byte(`"x"`), Body: make([]byte, size(i))}
		c.add(r, model(i))
		cuts = append(cuts, c.takeClosed()...)
	}

	c.closeAll()

	if !c.isEmpty() {
		t.Error("shards are open after all are closed")
	}

	cuts = append(cuts, c.takeClosed()...)
	if more := c.takeClosed(); len(more) > 0 {
		t.Errorf("%d shards are given out twice", len(more))
	}

	return cuts
}

func TestCutter(t *testing.T) {
	t.Parallel()

	one := func(int) string { return "m" }
	for _, tt := range []struct {
		name     string
		settings proto.Settings
		n        int
		size     func(int) int
		model    func(int) string
	}{
		{"one model", proto.Settings{ShardSize: 32, ShardBytes: 1 << 20, Capacity: 10}, 10_000,
			func(int) int { return 100 }, one},
		{"bytes bind", proto.Settings{ShardSize: 1000, ShardBytes: 5000, Capacity: 1}, 9_000,
			func(i int) int { return i % 997 }, one},
		{"some requests are larger than a shard", proto.Settings{ShardSize: 32, ShardBytes: 500, Capacity: 1}, 5_000,
			func(i int) int { return i % 800 }, one},
		{"several models", proto.Settings{ShardSize: 32, ShardBytes: 3000, Capacity: 4}, 9_000,
			func(i int) int { return i % 300 }, func(i int) string { return fmt.Sprint("m", i%7*i%11) }},
		{"one request", proto.Settings{ShardSize: 32, ShardBytes: 1, Capacity: 4}, 1, func(int) int { return 0 }, one},
		{"cut for workers", proto.Settings{ShardSize: 32, ShardBytes: 1 << 20, Workers: 10}, 10_000,
			func(int) int { return 100 }, one},
		{"several models, cut for workers", proto.Settings{ShardSize: 32, ShardBytes: 3000, Workers: 2}, 9_000,
			func(i int) int { return i % 300 }, func(i int) string { return fmt.Sprint("m", i%7*i%11) }},
		{"no known capacity", proto.Settings{ShardSize: 8, ShardBytes: 1000}, 100, func(int) int { return 0 }, one},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cuts := cutAll(t, tt.settings, tt.n, tt.size, tt.model)
			if diff := cmp.Diff(
				cuts, cutAll(t, tt.settings, tt.n, tt.size, tt.model), cmp.AllowUnexported(modelShard{}),
				cmp.Comparer(bytes.Equal),
			); diff != "" {
				t.Errorf("a second cutter cuts otherwise:\n%.2000s", diff)
			}

			seen := make([]int, tt.n)
			for i, c := range cuts {
				if c.index != uint64(i) || c.shard.ID != proto.ShardID(2, uint64(i)) {
					t.Fatalf("shard %d has index %d and id %s", i, c.index, c.shard.ID)
				}

				total := 0
				for j, r := range c.shard.Requests {
					seen[r.Index]++
					total += len(r.Body) + len(r.CustomID)

					if j > 0 && r.Index <= c.shard.Requests[j-1].Index {
						t.Errorf("shard %d does not ascend", i)
					}

					if c.model != tt.model(int(r.Index)) {
						t.Errorf("request %d went to %s", r.Index, c.model)
					}
				}

				switch n := len(c.shard.Requests); {
				case n == 0, n > tt.settings.ShardSize:
					t.Errorf("shard %d has %d requests", i, n)
				case n > 1 && total > tt.settings.ShardBytes:
					t.Errorf("shard %d of %d requests has %d bytes", i, n, total)
				}
			}

			for index, times := range seen {
				if times != 1 {
					t.Errorf("request %d is in %d shards", index, times)
				}
			}
		})
	}
}

func TestCutterTapers(t *testing.T) {
	t.Parallel()

	s := proto.Settings{ShardSize: 64, ShardBytes: 1 << 20, Capacity: 10}
	cuts := cutAll(t, s, 4000, func(int) int { return 1 }, func(int) string { return "m" })
	size := func(i int) int { return len(cuts[i].shard.Requests) }
	if size(0) != s.ShardSize {
		t.Errorf("the first shard has %d requests", size(0))
	}

	for i := 1; i < len(cuts); i++ {
		if size(i) > size(i-1) {
			t.Errorf("shard %d has %d requests, the one before %d", i, size(i), size(i-1))
		}
	}

	// Each of 10 requests at once has its own shard at the end.
	for i := len(cuts) - 10; i < len(cuts); i++ {
		if size(i) != 1 {
			t.Errorf("shard %d of %d has %d requests", i, len(cuts), size(i))
		}
	}
}

// The number of shards follows the number of workers: a run on one box has few.
func TestCutterCountsWorkers(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		workers, requests, shards, first int
	}{
		{1, 1, 1, 1},
		{1, 100, 17, 25},
		{1, 500, 29, 32},
		{1, 3000, 108, 32},
		{1, 200_000, 6264, 32},
		{8, 500, 135, 15},
		{8, 3000, 220, 32},
		{100, 500, 500, 1},
		{100, 3000, 1407, 7},
		{100, 200_000, 7860, 32},
	} {
		sizes := cutFor(t, proto.Settings{Workers: tt.workers}, tt.requests)
		if len(sizes) != tt.shards || sizes[0] != tt.first {
			t.Errorf("%d requests for %d workers: %d shards, the first of %d; want %d, the first of %d",
				tt.requests, tt.workers, len(sizes), sizes[0], tt.shards, tt.first)
		}

		left := tt.requests
		for i, n := range sizes {
			if n > 1 && n*shardsPerWorker*tt.workers > left {
				t.Errorf("%d workers: shard %d has %d of the last %d requests", tt.workers, i, n, left)
			}
			left -= n
		}
	}
}

// A run that began when slots were counted is cut as it began.
func TestCutterKeepsTheCutForSlots(t *testing.T) {
	t.Parallel()

	grouped := proto.Settings{ShardSize: 16, Capacity: 8, GroupByPrefix: true}
	for _, tt := range []struct {
		name     string
		settings proto.Settings
		want     []int
	}{
		{"in order", proto.Settings{ShardSize: 16, Capacity: 2}, []int{
			16, 16, 16, 16, 16, 15, 13, 11, 10, 8, 7, 7, 6, 5, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1,
			1, 1, 1, 1, 1, 1, 1,
		}},
		{"grouped by prefix", grouped, []int{
			16, 16, 16, 16, 16, 15, 13, 11, 10, 8, 7, 7, 6, 5, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1,
			1, 1, 1, 1, 1, 1, 1,
		}},
	} {
		if diff := cmp.Diff(tt.want, cutFor(t, tt.settings, 200)); diff != "" {
			t.Errorf("%s: shards (-want +got):\n%s", tt.name, diff)
		}
	}
}

// Beginnings that are grouped stay together, though many boxes may come.
func TestCutterTapersLateWithGroups(t *testing.T) {
	t.Parallel()

	s := proto.Settings{ShardSize: 32, ShardBytes: 1 << 20, Capacity: 256}
	one := func(int) string { return "m" }
	tiny := func(int) int { return 1 }
	if cuts := cutAll(t, s, 8192, tiny, one); len(cuts[0].shard.Requests) != 8 {
		t.Errorf("the first shard of many boxes has %d requests", len(cuts[0].shard.Requests))
	}

	s.GroupByPrefix = true
	cuts := cutAll(t, s, 8192, tiny, one)
	if first, last := len(cuts[0].shard.Requests), len(cuts[len(cuts)-1].shard.Requests); first != 32 || last != 1 {
		t.Errorf("grouped the first shard has %d requests, the last %d; want 32 and 1", first, last)
	}
}

// With many models there are checkpoints all the same.
func TestCutterBarrier(t *testing.T) {
	t.Parallel()

	c := newCutter(proto.Settings{ShardSize: 1000, ShardBytes: 1 << 30, Capacity: 1}, 0, 3*barrier+10)
	clean := 0
	for i := range 3*barrier + 10 {
		r := proto.Request{Index: uint32(i)}
		c.add(r, fmt.Sprint("m", i%100))

		if c.isEmpty() {
			clean++
		}
	}

	if clean < 3 {
		t.Errorf("%d clean places in three barriers' requests", clean)
	}
}

// Settings without sizes cut shards of the default ones, not of one request each.
func TestCutterDefaults(t *testing.T) {
	t.Parallel()

	const n = 8 * 4 * proto.DefaultCapacity * proto.DefaultShardSize
	cuts := cutAll(t, proto.Settings{}, n, func(int) int { return 1 }, func(int) string { return "m" })
	if size := len(cuts[0].shard.Requests); size != proto.DefaultShardSize {
		t.Errorf("the first shard has %d requests", size)
	}

	cuts = cutAll(t, proto.Settings{}, n, func(int) int { return 100 << 10 / 4 }, func(int) string { return "m" })
	if size := len(cuts[0].shard.Requests); size != 10 {
		t.Errorf("the first shard of 25 KB requests has %d", size)
	}
}
