package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const goClient = "bare Go client"

// clientColumns are the columns of the comparisons with other clients. The figures of promptmill run
// are from the start of its process to its end; running is taken from its metadata, without
// the check of the input and the writing of the files.
var clientColumns = []column{
	{name: "requests"}, {name: "req/s"}, {name: "running req/s"}, {name: "x Go client", against: goClient, of: "req/s"},
	{name: "CPU us/req"}, {name: "CPU x Go client", against: goClient, of: "CPU us/req"}, {name: "peak MB"},
}

// compareClients are the Go client, the Python script and promptmill at one server. The script
// gets fewer requests.
func (b *bench) compareClients(
	ctx context.Context, kind inputKind, scripted, concurrency int, sim ...string,
) ([]variant, error) {
	url, err := b.sharedServer(ctx, append([]string{"--sim-tpot", "0s", "--sim-tokens", "150"},
		sim...)...)
	if err != nil {
		return nil, err
	}

	compare := func(name string, requests int, work func(ctx context.Context) (usage, float64, error)) variant {
		return variant{name, func(ctx context.Context) ([]sample, error) {
			u, running, err := work(ctx)
			perSecond := float64(requests) / u.wall.Seconds()
			if running == 0 {
				running = perSecond
			}

			return []sample{
				{name, []float64{float64(requests), perSecond, running, u.perRequest(requests), u.peakMB()}},
			}, err
		}}
	}

	list := []variant{
		compare(goClient, kind.requests, func(ctx context.Context) (usage, float64, error) {
			in, err := b.makeInput(kind)
			if err != nil {
				return usage{}, 0, err
			}
			u, err := b.runProcess(ctx, b.dir, b.self, "client", url, in, fmt.Sprint(concurrency))
			return u, 0, err
		}),
		compare("promptmill", kind.requests, func(ctx context.Context) (usage, float64, error) {
			r, err := b.promptmillRun(ctx, url, kind, concurrency)
			return r.usage, r.meta.Results.PerSecond, err
		}),
	}

	python, ok := findPython(ctx)
	if !ok {
		b.logSkip("the Python script", "no python3 with aiohttp here (Debian: apt-get install python3-aiohttp)")
		return list, nil
	}

	path := filepath.Join(b.dir, "script.py")
	if err := os.WriteFile(path, script, 0o644); err != nil {
		return nil, err
	}

	return append(list, compare("Python, aiohttp", scripted, func(ctx context.Context) (usage, float64, error) {
		in, err := b.makeInput(inputKind{requests: scripted, size: kind.size})
		if err != nil {
			return usage{}, 0, err
		}
		u, err := b.runProcess(ctx, b.dir, python, path, url, in, filepath.Join(b.dir, "answers.jsonl"),
			fmt.Sprint(concurrency))
		return u, 0, err
	})), nil
}
