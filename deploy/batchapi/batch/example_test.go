package batch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto/bus"
)

func Example() {
	if err := createBatch(context.Background()); err != nil {
		fmt.Println(err)
	}

	// Output:
	// validating for 24h0m0s
	// the same batch: true
}

// createBatch makes a batch on a bus of its own.
func createBatch(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "batch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	server, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Shared: true})
	if err != nil {
		return err
	}
	defer server.Stop()

	if err := bus.CreateBuckets(ctx, server.JS, server.Limits); err != nil {
		return err
	}

	files, err := filestore.Open(filepath.Join(dir, "api"), zerolog.Nop())
	if err != nil {
		return err
	}
	defer files.Close()

	batches, err := batch.Open(ctx, batch.Config{
		Bus:     server.Connection,
		Dir:     dir,
		Records: filepath.Join(dir, "api", "batches"),
		Files:   files,
		State:   dir,
	})
	if err != nil {
		return err
	}
	defer batches.Close() // batches.Run puts batches on the bus meanwhile

	input, err := files.Create(ctx, filestore.File{Filename: "in.jsonl", Purpose: filestore.PurposeBatch},
		strings.NewReader(`{"custom_id": "a", "body": {"model": "m", "prompt": "hello"}}`))
	if err != nil {
		return err
	}

	request := batch.Request{
		Endpoint:         "/v1/completions",
		InputFileID:      input.ID,
		CompletionWindow: "24h",
		IdempotencyKey:   "k",
	}

	b, _, err := batches.Create(ctx, request)
	if err != nil {
		return err
	}

	fmt.Println(b.State, "for", b.ExpiresAt.Sub(b.CreatedAt))

	_, existing, err := batches.Create(ctx, request)
	fmt.Println("the same batch:", existing)

	return err
}
