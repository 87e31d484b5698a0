package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/deploy/export"
	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// shardOfLines is the number of lines that follow each other in an output that is not in order.
const shardOfLines = 64

// listRows are the processes that read and write the rows of a table, for some rows and a tenth
// of them.
func listRows(_ context.Context, b *bench) ([]variant, error) {
	rows := b.pickSize(10_000_000, 100_000)

	return []variant{
		b.compareMemory("CSV, run --dry-run", rows, "csv", b.validateRows),
		b.compareMemory("Parquet, run --dry-run", rows, "parquet", b.validateRows),
		b.compareMemory("CSV, its table written", rows, "csv", b.exportRows),
		b.compareMemory("Parquet, its table written", rows, "parquet", b.exportRows),
		b.compareMemory("Parquet, of answers out of order", rows, "parquet", b.exportShuffledRows),
	}, nil
}

// compareMemory returns the work with some rows, and with a tenth of them.
func (b *bench) compareMemory(
	name string, rows int, format string, work func(context.Context, inputKind) (usage, error),
) variant {
	return variant{name, func(ctx context.Context) ([]sample, error) {
		few, err := work(ctx, inputKind{requests: rows / 10, size: frame + 100, format: format})
		if err != nil {
			return nil, err
		}

		all, err := work(ctx, inputKind{requests: rows, size: frame + 100, format: format})
		if err != nil {
			return nil, err
		}

		return []sample{{name, []float64{
			float64(rows), float64(rows) / all.wall.Seconds(), all.peakMB(), few.peakMB(), all.peakMB() / few.peakMB(),
		}}}, nil
	}}
}

// validateRows renders and validates the rows of a table. It reads them twice.
func (b *bench) validateRows(ctx context.Context, kind inputKind) (usage, error) {
	in, err := b.makeTable(kind)
	if err != nil {
		return usage{}, err
	}

	return b.runProcess(ctx, b.dir, b.promptmill, "run", in, "--prompt", tablePrompt, "--model", "sim", "--dry-run",
		"--progress", "none")
}

// exportRows writes the table of an output in order.
func (b *bench) exportRows(ctx context.Context, kind inputKind) (usage, error) {
	return b.exportTable(ctx, kind, true)
}

// exportShuffledRows writes the table of an output that is not in order.
func (b *bench) exportShuffledRows(ctx context.Context, kind inputKind) (usage, error) {
	return b.exportTable(ctx, kind, false)
}

// exportTable writes the table of a run whose output is made up.
func (b *bench) exportTable(ctx context.Context, kind inputKind, ordered bool) (usage, error) {
	in, err := b.makeTable(kind)
	if err != nil {
		return usage{}, err
	}

	dir, remove, err := b.makeFolder()
	if err != nil {
		return usage{}, err
	}
	defer remove()

	out := output.Prefix(filepath.Join(dir, "out"))
	if err := writeOutput(out.Results(), kind.requests, ordered); err != nil {
		return usage{}, fmt.Errorf("write an output: %w", err)
	}

	return b.runProcess(ctx, dir, b.self, "export", in, string(out), string(out)+"."+kind.format,
		strconv.Itoa(kind.requests), strconv.FormatBool(ordered))
}

// writeOutput writes the lines of the answers to a number of rows: in order or, by shards,
// backwards.
func writeOutput(path string, rows int, ordered bool) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	packed, err := zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}

	w := bufio.NewWriter(packed)
	var text []byte
	for n := range rows {
		if !ordered {
			n = reverseShards(n, rows)
		}

		text = appendText(text[:0], 100, uint64(n))
		fmt.Fprintf(w, `{"id":"b_%d","custom_id":"request-%d","response":{"status_code":200,"request_id":"r","body":`+
			`{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"%s"}}],`+
			`"usage":{"prompt_tokens":30,"completion_tokens":20}}},"error":null,`+
			`"promptmill":{"index":%d,"attempts":1,"latency_ms":%d}}`+"\n", n, n+1, text, n, n%1000)
	}

	return errors.Join(w.Flush(), packed.Close())
}

// reverseShards returns the index of the n-th line of an output whose shards are in reverse order.
func reverseShards(n, rows int) int {
	whole := rows / shardOfLines
	if shard := n / shardOfLines; shard < whole {
		return (whole-1-shard)*shardOfLines + n%shardOfLines
	}
	return n
}

// runExport is the writer of a table: INPUT PREFIX TABLE ROWS ORDERED.
func runExport(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 5 {
		return errors.New("export: want INPUT PREFIX TABLE ROWS ORDERED")
	}

	rows, err := strconv.Atoi(args[3])
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}

	cfg := export.Config{
		Input:   producer.Source{Files: args[:1]},
		Output:  output.Prefix(args[1]),
		Ordered: args[4] == "true",
		Path:    args[2],
	}

	cfg.Run.Input.Requests = rows
	cfg.Run.Settings.Rows = &proto.Rows{Prompt: tablePrompt}

	_, err = export.Write(ctx, cfg)

	return err
}
