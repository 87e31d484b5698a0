package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// listBoxes are runs on 1, 2, 4, 8 and 16 boxes of a server each, and on one box of 8 servers, for ten seconds each, or
// two.
func listBoxes(_ context.Context, b *bench) ([]variant, error) {
	counts, servers := []int{1, 2, 4, 8, 16}, 8
	if b.quick {
		counts, servers = []int{1, 4}, 4
	}

	list := mapSlice(counts, func(n int) variant {
		return variant{boxesName(n), func(ctx context.Context) ([]sample, error) {
			return b.runBoxes(ctx, boxesName(n), n, n)
		}}
	})
	name := fmt.Sprintf("1 box of %d servers", servers)

	return append(list, variant{name, func(ctx context.Context) ([]sample, error) {
		return b.runBoxes(ctx, name, servers, 1)
	}}), nil
}

func boxesName(n int) string {
	if n == 1 {
		return "1 box"
	}
	return fmt.Sprint(n, " boxes")
}

// boxPerSecond is the rate of one server.
const boxPerSecond = 64

// runBoxes measures a run on n servers, of which each of some boxes has its part: a worker process.
func (b *bench) runBoxes(ctx context.Context, name string, n, boxes int) ([]sample, error) {
	requests := n * boxPerSecond * b.pickSize(10, 2)
	in, err := b.makeInput(inputKind{requests: requests, size: 4096})
	if err != nil {
		return nil, err
	}

	dir, remove, err := b.makeFolder()
	if err != nil {
		return nil, err
	}
	defer remove()

	serve, err := b.startProcess(ctx, dir, b.promptmill, "serve", "--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer serve.stop()

	if _, err := serve.awaitLine(ctx, "serving on"); err != nil {
		return nil, err
	}

	urls, servers, err := b.startBoxServers(ctx, n)
	defer stopAll(servers)
	if err != nil {
		return nil, err
	}

	workers, err := b.startBoxes(ctx, dir, urls, boxes)
	defer stopAll(workers)
	if err != nil {
		return nil, err
	}

	if err := b.awaitWorkers(ctx, dir, n); err != nil {
		return nil, err
	}

	m, err := b.submitRun(ctx, dir, in, requests)
	if err != nil {
		return nil, err
	}

	var all usage
	for _, w := range workers {
		all.cpu += w.stop().cpu
	}

	served := serve.stop()

	return []sample{{name, []float64{
		float64(requests), m.Results.PerSecond, 100 * m.Results.PerSecond / float64(n*boxPerSecond),
		served.perRequest(requests), all.perRequest(requests), served.peakMB(),
	}}}, nil
}

// startBoxServers starts servers of 32 slots, and returns their URLs. It also returns those that it started before an
// error.
func (b *bench) startBoxServers(ctx context.Context, n int) (urls []string, servers []*process, err error) {
	for range n {
		url, server, err := b.startServer(ctx, "--sim-ttft", "500ms", "--sim-tpot", "0s", "--sim-tokens", "150",
			"--sim-slots", "32")
		if err != nil {
			return nil, servers, err
		}

		urls, servers = append(urls, url), append(servers, server)
	}

	return urls, servers, nil
}

// startBoxes starts workers that have some servers in equal parts. It also returns those that it started before an
// error.
func (b *bench) startBoxes(ctx context.Context, dir string, urls []string, boxes int) (workers []*process, err error) {
	for i := range boxes {
		args := []string{"worker", "--concurrency", "32", "--name", fmt.Sprintf("box%02d", i)}
		for _, url := range urls[i*len(urls)/boxes : (i+1)*len(urls)/boxes] {
			args = append(args, "--url", url)
		}

		w, err := b.startProcess(ctx, dir, b.promptmill, args...)
		if err != nil {
			return workers, err
		}

		workers = append(workers, w)
	}

	return workers, nil
}

// stopAll stops processes.
func stopAll(list []*process) {
	for _, p := range list {
		p.stop()
	}
}

// submitRun submits an input to the serve in a folder, and returns the metadata of the run when it has ended.
func (b *bench) submitRun(ctx context.Context, dir, in string, requests int) (m meta, err error) {
	if _, err := b.runProcess(ctx, dir, b.promptmill, "submit", in, "--run", "r", "--progress", "none"); err != nil {
		return m, err
	}

	path := filepath.Join(dir, "r.meta.json")
	err = awaitCondition(ctx, "the end of the run", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	if err != nil {
		return m, err
	}

	return readMeta(path, requests)
}

// awaitWorkers waits until a number of workers is on the bus of a serve in a folder.
func (b *bench) awaitWorkers(ctx context.Context, dir string, n int) error {
	return awaitCondition(ctx, "the workers", func() bool {
		cmd := exec.CommandContext(ctx, b.promptmill, "workers", "--json", "--state", dir)
		out, err := cmd.Output()
		var list []struct{}
		return err == nil && json.Unmarshal(out, &list) == nil && len(list) == n
	})
}

// awaitCondition waits until something is so.
func awaitCondition(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %s", patience))
	defer cancel()

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()

	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}

	return nil
}
