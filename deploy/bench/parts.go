package main

import (
	"context"
	"path/filepath"
)

// partUsage holds the usage of each part of a run, each a process.
type partUsage struct {
	broker, producer, worker, collector usage
	meta                                meta
}

// runParts does a run with all parts apart.
func (b *bench) runParts(ctx context.Context, url string, kind inputKind, collect ...string) (a partUsage, err error) {
	in, err := b.makeInput(kind)
	if err != nil {
		return a, err
	}

	dir, remove, err := b.makeFolder()
	if err != nil {
		return a, err
	}
	defer remove()

	broker, err := b.startProcess(ctx, dir, b.self, "broker", filepath.Join(dir, "nats"))
	if err != nil {
		return a, err
	}
	defer broker.stop()

	line, err := broker.awaitLine(ctx, "nats://")
	if err != nil {
		return a, err
	}

	bus := line[len("broker on "):]
	worker, err := b.startProcess(ctx, dir, b.promptmill, "worker", "--nats", bus, "--url", url,
		"--concurrency", "64", "--name", "w")
	if err != nil {
		return a, err
	}
	defer worker.stop()

	producer, err := b.startProcess(ctx, dir, b.promptmill, "submit", in, "--nats", bus, "--run", "r",
		"--progress", "none")
	if err != nil {
		return a, err
	}
	defer producer.stop()

	if _, err := producer.awaitLine(ctx, "are on the bus"); err != nil {
		return a, err
	}

	args := append([]string{"collect", "r", "-o", "out.jsonl.zst", "--nats", bus, "--progress", "none"}, collect...)
	if a.collector, err = b.runProcess(ctx, dir, b.promptmill, args...); err != nil {
		return a, err
	}

	if a.producer, err = producer.wait(); err != nil {
		return a, err
	}

	a.worker, a.broker = worker.stop(), broker.stop()
	a.meta, err = readMeta(filepath.Join(dir, "out.meta.json"), kind.requests)

	return a, err
}

func listParts(ctx context.Context, b *bench) ([]variant, error) {
	url, err := b.sharedServer(ctx, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "150")
	if err != nil {
		return nil, err
	}

	kind := inputKind{requests: b.pickSize(50_000, 4_000), size: 4096}

	return []variant{{"a run", func(ctx context.Context) ([]sample, error) {
		a, err := b.runParts(ctx, url, kind)
		if err != nil {
			return nil, err
		}

		var all usage
		row := func(name string, u usage) sample {
			all.cpu += u.cpu
			all.peak += u.peak
			return sample{name, []float64{float64(kind.requests), u.perRequest(kind.requests), u.peakMB()}}
		}

		list := []sample{
			row("producer", a.producer), row("broker", a.broker), row("worker", a.worker),
			row("collector", a.collector),
		}

		return append(list, row("all", all)), nil
	}}}, nil
}

func listResults(ctx context.Context, b *bench) ([]variant, error) {
	url, err := b.sharedServer(ctx, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "150")
	if err != nil {
		return nil, err
	}

	kind := inputKind{requests: b.pickSize(50_000, 4_000), size: 150}
	collected := func(name string, flags ...string) variant {
		return variant{name, func(ctx context.Context) ([]sample, error) {
			a, err := b.runParts(ctx, url, kind, flags...)
			if err != nil {
				return nil, err
			}

			lines := float64(a.meta.Results.Lines)

			return []sample{{name, []float64{
				lines / 1e6, lines / float64(a.meta.Results.Bytes), a.collector.perRequest(kind.requests),
				lines / 1e6 / a.collector.cpu.Seconds(),
			}}}, nil
		}}
	}

	return []variant{
		collected("one frame"), collected("--seekable", "--seekable"), collected("--ordered", "--ordered"),
	}, nil
}
