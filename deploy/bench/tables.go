package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// requestLines is the row of a run from lines of requests to output lines.
const requestLines = "JSONL to JSONL"

// listTables are runs from a table to a table of the same format, here and at a store, and of
// the same requests as lines.
func listTables(ctx context.Context, b *bench) ([]variant, error) {
	url, err := b.sharedServer(ctx, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "150")
	if err != nil {
		return nil, err
	}

	lines := inputKind{requests: b.pickSize(100_000, 4_000), size: 1 << 10}
	csv, parquet := lines, lines
	csv.format, parquet.format = "csv", "parquet"

	list := []variant{
		b.compareTable(requestLines, lines, func(ctx context.Context) (runResult, error) {
			return b.promptmillRun(ctx, url, lines, 64)
		}),
		b.compareTable("CSV to CSV", csv, func(ctx context.Context) (runResult, error) {
			return b.runTable(ctx, url, csv)
		}),
		b.compareTable("Parquet to Parquet", parquet, func(ctx context.Context) (runResult, error) {
			return b.runTable(ctx, url, parquet)
		}),
	}

	program, ok := findGateway()
	if !ok {
		b.logSkip("the tables in S3", "no versitygw here (go install github.com/versity/versitygw/cmd/versitygw@v1.8.0)")
		return list, nil
	}

	g, err := b.startGateway(ctx, program)
	if err != nil {
		return nil, err
	}

	return append(list, b.compareTable("Parquet to Parquet, in S3", parquet,
		func(ctx context.Context) (runResult, error) { return b.runStoredTable(ctx, url, g, parquet) })), nil
}

// compareTable returns a run.
func (b *bench) compareTable(name string, kind inputKind, run func(context.Context) (runResult, error)) variant {
	return variant{name, func(ctx context.Context) ([]sample, error) {
		r, err := run(ctx)
		if err != nil {
			return nil, err
		}

		n := kind.requests
		values := []float64{float64(n), float64(n) / r.usage.wall.Seconds(), r.usage.perRequest(n), r.usage.peakMB()}

		return []sample{{name, values}}, nil
	}}
}

// runTable does a whole run from a table to a table.
func (b *bench) runTable(ctx context.Context, url string, kind inputKind) (r runResult, err error) {
	in, err := b.makeTable(kind)
	if err != nil {
		return r, err
	}

	dir, remove, err := b.makeFolder()
	if err != nil {
		return r, err
	}
	defer remove()

	return b.runRows(ctx, dir, url, kind, in, "out", dir)
}

// runStoredTable does a whole run from a table to a table, both at a store.
func (b *bench) runStoredTable(ctx context.Context, url string, g *gateway, kind inputKind) (r runResult, err error) {
	in, err := b.makeTable(kind)
	if err != nil {
		return r, err
	}

	dir, remove, err := b.makeFolder()
	if err != nil {
		return r, err
	}
	defer remove()

	stored, err := g.storeFile(ctx, in)
	if err != nil {
		return r, err
	}

	name := filepath.Base(dir)
	outputs := filepath.Join(g.bucket, name)
	defer os.RemoveAll(outputs)

	return b.runRows(ctx, dir, url, kind, stored, "s3://"+filepath.Base(g.bucket)+"/"+name+"/out", outputs)
}

// runRows runs the rows of a table in a folder. Its output has a prefix, and its files appear
// in a folder.
func (b *bench) runRows(
	ctx context.Context, dir, url string, kind inputKind, in, out, outputs string,
) (r runResult, err error) {
	r.usage, err = b.runProcess(ctx, dir, b.promptmill, "run", in, "-o", out+"."+kind.format, "--prompt", tablePrompt,
		"--url", url, "--concurrency", "64", "--progress", "none")
	if err != nil {
		return r, err
	}

	if _, err := os.Stat(filepath.Join(outputs, "out."+kind.format)); err != nil {
		return r, fmt.Errorf("the run has written no table: %w", err)
	}

	r.meta, err = readMeta(filepath.Join(outputs, "out.meta.json"), kind.requests)

	return r, err
}
