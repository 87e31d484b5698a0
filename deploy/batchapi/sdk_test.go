package batchapi

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	goopenai "github.com/sashabaranov/go-openai"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
	"github.com/promptmill/promptmill/proto"
)

// sdk returns a client of OpenAI's SDK.
func (f *fixture) sdk(options ...option.RequestOption) openai.Client {
	return openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(f.url + "/v1"), option.WithAPIKey("any"), option.WithMaxRetries(0),
	}, options...)...)
}

// TestSDK does with OpenAI's SDK what its users do.
func TestSDK(t *testing.T) {
	f := start(t, func(f *fixture) { f.workers = []proto.WorkerInfo{workerOf("vLLM", 1, "org/llama")} })
	c, ctx := f.sdk(), t.Context()

	file, err := c.Files.New(ctx, openai.FileNewParams{
		File:         openai.File(strings.NewReader("{}\n"), "dir/in.jsonl", "application/jsonl"),
		Purpose:      openai.FilePurposeBatch,
		ExpiresAfter: openai.FileNewParamsExpiresAfter{Seconds: 3600},
	})
	if err != nil || file.Filename != "in.jsonl" || file.Bytes != 3 || file.ExpiresAt-file.CreatedAt < 3599 {
		t.Fatalf("%+v, %v", file, err)
	}

	b, err := c.Batches.New(ctx, openai.BatchNewParams{
		CompletionWindow:   openai.BatchNewParamsCompletionWindow24h,
		Endpoint:           openai.BatchNewParamsEndpointV1ChatCompletions,
		InputFileID:        file.ID,
		Metadata:           map[string]string{"a": "b"},
		OutputExpiresAfter: openai.BatchNewParamsOutputExpiresAfter{Seconds: 3600},
	})
	if err != nil || b.Status != openai.BatchStatusValidating || b.Metadata["a"] != "b" || b.OutputFileID != "" {
		t.Fatalf("%+v, %v", b, err)
	}

	f.batches.batches[0].State = proto.StateCompleted
	f.batches.batches[0].OutputFileID = outputID
	f.batches.setOutput(outputID, &fakeOutput{text: "{}\n", complete: true})

	b, err = c.Batches.Get(ctx, b.ID)
	if err != nil || b.Status != openai.BatchStatusCompleted || b.JSON.Errors.Valid() || b.JSON.ErrorFileID.Valid() {
		t.Fatalf("%+v, %v", b, err)
	}

	resp, err := c.Files.Content(ctx, b.OutputFileID)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(text) != "{}\n" {
		t.Fatalf("%q, %v", text, err)
	}

	model, err := c.Models.Get(ctx, "org/llama")
	if err != nil || model.OwnedBy != "vllm" {
		t.Errorf("%+v, %v", model, err)
	}

	if _, err := c.Batches.Cancel(ctx, b.ID); err != nil {
		t.Error(err)
	}
	f.batches.batches[0].State = proto.StateCancelled
	if deleted, err := c.Files.Delete(ctx, file.ID); err != nil || !deleted.Deleted {
		t.Errorf("%+v, %v", deleted, err)
	}
}

// TestSDKUploads sends a file in parts with OpenAI's SDK.
func TestSDKUploads(t *testing.T) {
	f := start(t)
	c, ctx := f.sdk(), t.Context()

	u, err := c.Uploads.New(ctx, openai.UploadNewParams{
		Bytes:    6,
		Filename: "in.jsonl",
		MimeType: "application/jsonl",
		Purpose:  openai.FilePurposeBatch,
	})
	if err != nil {
		t.Fatal(err)
	}

	var ids []string
	for _, text := range []string{"abc", "def"} {
		part, err := c.Uploads.Parts.New(ctx, u.ID, openai.UploadPartNewParams{Data: strings.NewReader(text)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, part.ID)
	}

	u, err = c.Uploads.Complete(ctx, u.ID, openai.UploadCompleteParams{PartIDs: ids})
	if err != nil || u.Status != openai.UploadStatusCompleted || u.File.Bytes != 6 {
		t.Fatalf("%+v, %v", u, err)
	}
}

// TestSDKPaging lists 300 files and batches with the SDK's own paging.
func TestSDKPaging(t *testing.T) {
	f := start(t)
	c, ctx := f.sdk(), t.Context()
	for range 300 {
		file, err := f.files.Create(ctx, filestore.File{Purpose: "batch"}, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		f.batches.add(batch.Batch{ID: "batch_" + file.ID, State: proto.StateCompleted})
	}

	seen := map[string]bool{}
	files := c.Files.ListAutoPaging(ctx, openai.FileListParams{Limit: openai.Int(50)})
	for files.Next() {
		seen[files.Current().ID] = true
		if _, err := c.Files.Delete(ctx, files.Current().ID); err != nil {
			t.Fatal(err)
		}
	}
	batches := c.Batches.ListAutoPaging(ctx, openai.BatchListParams{})
	for batches.Next() {
		seen[batches.Current().ID] = true
	}

	if err := errors.Join(files.Err(), batches.Err()); err != nil || len(seen) != 600 {
		t.Errorf("%d objects, %v", len(seen), err)
	}
	if n := f.countStored(); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// TestSDKErrors ensures that the SDK reads errors, and repeats no request that cannot succeed.
func TestSDKErrors(t *testing.T) {
	f := start(t)

	attempts := 0
	count := option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		attempts++
		return next(r)
	})
	c, ctx := f.sdk(count, option.WithMaxRetries(2)), t.Context()

	_, err := c.Files.Get(ctx, "file-x")
	wrong, ok := errors.AsType[*openai.Error](err)
	if !ok || wrong.StatusCode != 404 || wrong.Param != "id" || wrong.Type != "invalid_request_error" ||
		wrong.Message != "There is no file file-x: it never existed, has expired or was deleted." {
		t.Errorf("%+v", err)
	}

	f.batches.err = diskFull()
	_, err = c.Batches.New(ctx, openai.BatchNewParams{InputFileID: "file-x"})
	if wrong, ok := errors.AsType[*openai.Error](err); !ok || wrong.StatusCode != 507 || wrong.Code != "disk_full" {
		t.Errorf("%+v", err)
	}

	if attempts != 2 {
		t.Errorf("%d attempts", attempts)
	}
}

// TestGoOpenAI does the same with go-openai, which reads several members in types of its own.
func TestGoOpenAI(t *testing.T) {
	f := start(t)
	config := goopenai.DefaultConfig("any")
	config.BaseURL = f.url + "/v1"
	c, ctx := goopenai.NewClientWithConfig(config), t.Context()

	b, err := c.CreateBatchWithUploadFile(ctx, goopenai.CreateBatchWithUploadFileRequest{
		Endpoint: goopenai.BatchEndpointChatCompletions,
		Metadata: map[string]any{"a": "b"},
		UploadBatchFileRequest: goopenai.UploadBatchFileRequest{
			FileName: "in.jsonl",
			Lines:    []goopenai.BatchLineItem{goopenai.BatchChatCompletionRequest{CustomID: "a"}},
		},
	})
	if err != nil || b.Status != "validating" || b.OutputFileID != nil || b.Errors != nil {
		t.Fatalf("%+v, %v", b, err)
	}

	file, err := c.GetFile(ctx, b.InputFileID)
	if err != nil || file.Purpose != "batch" {
		t.Errorf("%+v, %v", file, err)
	}

	list, err := c.ListBatch(ctx, nil, nil)
	if err != nil || len(list.Data) != 1 || list.HasMore || list.LastID != b.ID {
		t.Errorf("%+v, %v", list, err)
	}
	if files, err := c.ListFiles(ctx); err != nil || len(files.Files) != 1 {
		t.Errorf("%+v, %v", files, err)
	}
	if got, err := c.CancelBatch(ctx, b.ID); err != nil || got.Status != "cancelling" {
		t.Errorf("%+v, %v", got, err)
	}

	_, err = c.RetrieveBatch(ctx, "batch_x")
	if wrong, ok := errors.AsType[*goopenai.APIError](err); !ok || wrong.HTTPStatusCode != 404 ||
		wrong.Message != "There is no batch batch_x." {
		t.Errorf("%+v", err)
	}
}
