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
			return b.compareClients(ctx, inputKind{requests: b.pickSize(50_000, 4_000), size: 4096},
				b.pickSize(5_000, 1_000), 64, "--sim-ttft", "0s")
		},
	},
	{
		name:    "slots",
		about:   "the same, 256 at once, at a server of 256 slots that takes a second for each",
		columns: clientColumns,
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			n := b.pickSize(20*256, 3*256)
			return b.compareClients(ctx, inputKind{requests: n, size: 4096}, n, 256, "--sim-ttft", "1s",
				"--sim-slots", "256")
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
		variants: listParts,
	},
	{
		name:  "boxes",
		about: "a worker process for each box; its servers have 32 slots and take half a second: 64 req/s each",
		columns: []column{
			{name: "requests"},
			{name: "req/s"},
			{name: "x 1 box", against: boxesName(1), of: "req/s"},
			{name: "% of ideal"},
			{name: "serve CPU us/req"},
			{name: "workers CPU us/req"},
			{name: "serve peak MB"},
		},
		variants: listBoxes,
	},
	{
		name:    "requests",
		about:   "requests of 150 bytes, answers of 8 tokens, no latency",
		columns: []column{{name: "req/s"}, {name: "CPU us/req"}, {name: "peak MB"}},
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.compareRuns(ctx, []string{"--sim-tokens", "8"},
				mapSlice([]int{b.pickSize(10_000, 1_000), b.pickSize(100_000, 4_000), b.pickSize(1_000_000, 16_000)},
					func(n int) runCase { return runCase{fmt.Sprint(n), inputKind{requests: n, size: 150}, nil} })...)
		},
	},
	{
		name:    "sizes",
		about:   "requests of a size, answers of 1.2 KB, no latency",
		columns: []column{{name: "req/s"}, {name: "CPU us/req"}, {name: "peak MB"}, {name: "MB/s"}},
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.compareRuns(ctx, []string{"--sim-tokens", "150"},
				runCase{"1 KB", inputKind{requests: b.pickSize(20_000, 2_000), size: 1 << 10}, nil},
				runCase{"4 KB", inputKind{requests: b.pickSize(20_000, 2_000), size: 4 << 10}, nil},
				runCase{"64 KB", inputKind{requests: b.pickSize(3_000, 300), size: 64 << 10}, nil},
				runCase{"1 MB", inputKind{requests: b.pickSize(300, 30), size: 1 << 20}, nil})
		},
	},
	{
		name:    "shards",
		about:   "1 KB requests in shards of at most that many, no latency",
		columns: []column{{name: "req/s"}, {name: "CPU us/req"}, {name: "peak MB"}},
		variants: func(ctx context.Context, b *bench) ([]variant, error) {
			return b.compareRuns(ctx, []string{"--sim-tokens", "150"},
				mapSlice([]int{1, 8, 32, 128}, func(n int) runCase {
					return runCase{
						fmt.Sprint("--shard-size ", n), inputKind{requests: b.pickSize(20_000, 2_000), size: 1 << 10},
						[]string{"--shard-size", fmt.Sprint(n)},
					}
				})...)
		},
	},
	{
		name:     "prefixes",
		about:    "requests with few beginnings, at a server that keeps a quarter of these; 32 slots, 100 ms for a beginning that it has not kept",
		columns:  []column{{name: "req/s"}, {name: "% of prompts cached"}},
		variants: listPrefixes,
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
		variants: listResults,
	},
	{
		name:  "tables",
		about: "1 KB requests as lines and as rows of a table, answers of 1.2 KB in a table of the same format, no latency",
		columns: []column{
			{name: "requests"},
			{name: "req/s"},
			{name: "x JSONL", against: requestLines, of: "req/s"},
			{name: "CPU us/req"},
			{name: "CPU x JSONL", against: requestLines, of: "CPU us/req"},
			{name: "peak MB"},
		},
		variants: listTables,
	},
	{
		name:  "rows",
		about: "rows of 100 bytes with answers of 100: the peak memory of a process, and ten times as many rows",
		columns: []column{
			{name: "rows"},
			{name: "rows/s"},
			{name: "peak MB"},
			{name: "peak MB of a tenth"},
			{name: "x of a tenth"},
		},
		variants: listRows,
	},
	{
		name:  "batch",
		about: "1 KB requests, answers of 1.2 KB, no latency: a batch over HTTP with its upload, against submit --wait",
		columns: []column{
			{name: "requests"},
			{name: "req/s"},
			{name: "x submit", against: "submit", of: "req/s"},
			{name: "serve CPU us/req"},
			{name: "serve peak MB"},
		},
		variants: listBatches,
	},
	{
		name:     "upload",
		about:    "a file of 4 KB requests to the batch API on loopback, against the same bytes to a bare server in Go",
		columns:  transferColumns,
		variants: listUploads,
	},
	{
		name:     "download",
		about:    "the answers of a batch on loopback, decompressed, against the same bytes from a bare server in Go",
		columns:  transferColumns,
		variants: listDownloads,
	},
}

var transferColumns = []column{
	{name: "MB"},
	{name: "MB/s"},
	{name: "x bare", against: "bare", of: "MB/s"},
}

func sectionNames() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

func mapSlice[T, U any](list []T, convert func(T) U) (out []U) {
	for _, v := range list {
		out = append(out, convert(v))
	}
	return out
}

// runCase is a run of promptmill: an input, and flags.
type runCase struct {
	name  string
	input inputKind
	flags []string
}

// compareRuns returns variants of promptmill run at one server.
func (b *bench) compareRuns(ctx context.Context, sim []string, list ...runCase) ([]variant, error) {
	url, err := b.sharedServer(ctx, append([]string{"--sim-ttft", "0s", "--sim-tpot", "0s"}, sim...)...)
	if err != nil {
		return nil, err
	}

	return mapSlice(list, func(o runCase) variant {
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

// runResult holds the usage and the metadata of a run of promptmill.
type runResult struct {
	usage usage
	meta  meta
}

// promptmillRun does one whole run, from the start of the process to its end.
func (b *bench) promptmillRun(
	ctx context.Context, url string, kind inputKind, concurrency int, flags ...string,
) (r runResult, err error) {
	in, err := b.makeInput(kind)
	if err != nil {
		return r, err
	}

	dir, remove, err := b.makeFolder()
	if err != nil {
		return r, err
	}
	defer remove()

	args := append([]string{
		"run", in, "-o", "out.jsonl.zst", "--url", url, "--concurrency", fmt.Sprint(concurrency), "--progress", "none",
	}, flags...)
	if r.usage, err = b.runProcess(ctx, dir, b.promptmill, args...); err != nil {
		return r, err
	}

	r.meta, err = readMeta(filepath.Join(dir, "out.meta.json"), kind.requests)

	return r, err
}
