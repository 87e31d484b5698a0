package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
)

// listPrefixes are runs of requests that share their beginnings: mixed, mixed and grouped by
// promptmill, and grouped in the file.
func listPrefixes(ctx context.Context, b *bench) ([]variant, error) {
	kind := inputKind{requests: b.pickSize(2048, 512), size: 4096, prefixes: b.pickSize(32, 16)}
	sorted := kind
	sorted.sorted = true

	list := []variant{b.compareCaching("mixed", kind), b.compareCaching("sorted in the file", sorted)}

	help, err := exec.CommandContext(ctx, b.promptmill, "run", "--help").Output()
	if err != nil {
		return nil, fmt.Errorf("read the help of promptmill run: %w", err)
	}

	if !strings.Contains(string(help), "--group-by-prefix") {
		b.logSkip("--group-by-prefix", "this promptmill does not have it")
		return list, nil
	}

	return append(list, b.compareCaching("mixed, --group-by-prefix", kind, "--group-by-prefix")), nil
}

// compareCaching returns a run at a fresh server that keeps the beginnings of a quarter of the
// prompts' kinds.
func (b *bench) compareCaching(name string, kind inputKind, flags ...string) variant {
	return variant{name, func(ctx context.Context) ([]sample, error) {
		url, server, err := b.startServer(ctx, "--sim-ttft", "100ms", "--sim-tpot", "0s", "--sim-tokens", "40",
			"--sim-slots", "32",
			"--sim-prefix-cache", fmt.Sprint(kind.prefixes/4*kind.size/4))
		if err != nil {
			return nil, err
		}
		defer server.stop()

		r, err := b.promptmillRun(ctx, url, kind, 32, flags...)
		if err != nil {
			return nil, err
		}

		asked, hits, err := readCacheCounts(ctx, url)
		if err != nil {
			return nil, err
		}

		return []sample{{name, []float64{r.meta.Results.PerSecond, 100 * hits / asked}}}, nil
	}}
}

// readCacheCounts reads vLLM's counters of queried and cached prompt tokens.
func readCacheCounts(ctx context.Context, url string) (asked, hits float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}

	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer res.Body.Close()

	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		n, _ := strconv.ParseFloat(value, 64)
		switch {
		case strings.HasPrefix(name, "vllm:prefix_cache_queries_total{"):
			asked = n
		case strings.HasPrefix(name, "vllm:prefix_cache_hits_total{"):
			hits = n
		}
	}

	return asked, hits, lines.Err()
}
