package main

import (
	"context"
	"fmt"
	"path/filepath"
)

// sections are all that is measured, in the order in which it is printed.
var sections = []section{
	{
		name:    "latency-0",
		about:   "4 KB requests and 1.2 KB answers, 64 at once, at a server that answers at once",
		columns: clientColumns,
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.clients(ctx, inputKind{requests: b.pick(50_000, 4_000), size: 4096}, b.pick(5_000, 1_000), 64)
		},
	},
	{
		name:    "slots",
		about:   "the same, 256 at once, at a server of 256 slots that takes a second for each",
		columns: clientColumns,
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			n := b.pick(20*256, 3*256)
			return b.clients(ctx, inputKind{requests: n, size: 4096}, n, 256, "--sim-ttft", "1s", "--sim-slots", "256")
		},
	},
	{
		name:  "parts",
		about: "each part a process of its own; 4 KB requests, 1.2 KB answers, no latency; submit also stores its input on the bus",
		columns: []column{
			{name: "requests"},
			{name: "CPU us/req"},
			{name: "share", against: "all", of: "CPU us/req"},
			{name: "peak MB"},
		},
		variants: parts,
	},
	{
		name:  "boxes",
		about: "a worker process for each box, with a server of 32 slots that takes half a second: 64 req/s",
		columns: []column{
			{name: "requests"},
			{name: "req/s"},
			{name: "x 1 box", against: boxesName(1), of: "req/s"},
			{name: "% of ideal"},
			{name: "serve CPU us/req"},
			{name: "workers CPU us/req"},
			{name: "serve peak MB"},
		},
		variants: boxes,
	},
	{
		name:    "requests",
		about:   "requests of 150 bytes, answers of 8 tokens, no latency",
		columns: []column{{name: "req/s"}, {name: "CPU us/req"}, {name: "peak MB"}},
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.runs(ctx, []string{"--sim-tokens", "8"},
				each([]int{b.pick(10_000, 1_000), b.pick(100_000, 4_000), b.pick(1_000_000, 16_000)},
					func(n int) one { return one{fmt.Sprint(n), inputKind{requests: n, size: 150}, nil} })...)
		},
	},
	{
		name:    "sizes",
		about:   "requests of a size, answers of 1.2 KB, no latency",
		columns: []column{{name: "req/s"}, {name: "CPU us/req"}, {name: "peak MB"}, {name: "MB/s"}},
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.runs(ctx, []string{"--sim-tokens", "150"},
				one{"1 KB", inputKind{requests: b.pick(20_000, 2_000), size: 1 << 10}, nil},
				one{"4 KB", inputKind{requests: b.pick(20_000, 2_000), size: 4 << 10}, nil},
				one{"64 KB", inputKind{requests: b.pick(3_000, 300), size: 64 << 10}, nil},
				one{"1 MB", inputKind{requests: b.pick(300, 30), size: 1 << 20}, nil})
		},
	},
	{
		name:    "shards",
		about:   "1 KB requests in shards of at most so many, no latency",
		columns: []column{{name: "req/s"}, {name: "CPU us/req"}, {name: "peak MB"}},
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.runs(ctx, []string{"--sim-tokens", "150"}, each([]int{1, 8, 32, 128}, func(n int) one {
				return one{
					fmt.Sprint("--shard-size ", n), inputKind{requests: b.pick(20_000, 2_000), size: 1 << 10},
					[]string{"--shard-size", fmt.Sprint(n)},
				}
			})...)
		},
	},
	{
		name:     "prefixes",
		about:    "requests with few beginnings, at a server that keeps a quarter of these; 32 slots, 100 ms for what it has not kept",
		columns:  []column{{name: "req/s"}, {name: "% of prompts cached"}},
		variants: prefixes,
	},
	{
		name:  "results",
		about: "what the collector does with answers of 1.2 KB, made of few words",
		columns: []column{
			{name: "MB of lines"},
			{name: "compressed to 1/n"},
			{name: "CPU us/req"},
			{name: "MB/s of a core"},
		},
		variants: results,
	},
}

func sectionNames() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

func each[T, U any](list []T, make func(T) U) (out []U) {
	for _, v := range list {
		out = append(out, make(v))
	}
	return out
}

// one is a run of promptmill: an input, and flags.
type one struct {
	name  string
	input inputKind
	flags []string
}

// runs are variants of promptmill run at one server.
func (b *bench) runs(ctx context.Context, sim []string, list ...one) ([]variant, error) {
	url, err := b.standing(ctx, append([]string{"--sim-ttft", "0s", "--sim-tpot", "0s"}, sim...)...)
	if err != nil {
		return nil, err
	}

	return each(list, func(o one) variant {
		return variant{o.name, func(ctx context.Context) ([]sample, error) {
			r, err := b.promptmillRun(ctx, url, o.input, 64, o.flags...)
			if err != nil {
				return nil, err
			}

			n := o.input.requests
			perSecond := float64(n) / r.usage.wall.Seconds()
			values := []float64{
				perSecond, r.usage.perRequest(n), r.usage.peakMB(), perSecond * float64(o.input.size) / 1e6,
			}

			return []sample{{o.name, values}}, nil
		}}
	}), nil
}

// ran is what a run of promptmill took and said.
type ran struct {
	usage usage
	meta  meta
}

// promptmillRun does one whole run, from the start of the process to its end.
func (b *bench) promptmillRun(
	ctx context.Context, url string, kind inputKind, concurrency int, flags ...string,
) (r ran, err error) {
	in, err := b.input(kind)
	if err != nil {
		return r, err
	}

	dir, remove, err := b.folder()
	if err != nil {
		return r, err
	}
	defer remove()

	args := append([]string{
		"run", in, "-o", "out.jsonl.zst", "--url", url, "--concurrency", fmt.Sprint(concurrency), "--progress", "none",
	}, flags...)
	if r.usage, err = b.finish(ctx, dir, b.promptmill, args...); err != nil {
		return r, err
	}

	r.meta, err = readMeta(filepath.Join(dir, "out.meta.json"), kind.requests)

	return r, err
}
