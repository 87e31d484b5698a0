package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	official "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/sashabaranov/go-openai"
)

// endedStates are the states of a batch that has ended.
var endedStates = []string{"completed", "failed", "expired", "cancelled"}

// OpenAI's SDK for Go and go-openai run their batches here.
func TestBatchAPIWithGo(t *testing.T) {
	t.Parallel()

	a := startBatchAPI(t)
	t.Run("openai-go", func(t *testing.T) { t.Parallel(); a.checkOfficialClient(t) })
	t.Run("go-openai", func(t *testing.T) { t.Parallel(); a.checkGoOpenAI(t) })
}

// checkOfficialClient runs batches through OpenAI's SDK for Go.
func (a *batchAPI) checkOfficialClient(t *testing.T) {
	t.Helper()

	ctx := t.Context()
	client := official.NewClient(option.WithBaseURL(a.url()), option.WithAPIKey("unused"))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	create := func(text, name string) *official.Batch {
		t.Helper()

		file, err := client.Files.New(ctx, official.FileNewParams{
			File:    official.File(strings.NewReader(text), name, "application/jsonl"),
			Purpose: official.FilePurposeBatch,
		})

		must(t, err)
		if file.Bytes != int64(len(text)) || file.Filename != name {
			t.Errorf("file %+v", file)
		}

		b, err := client.Batches.New(ctx, official.BatchNewParams{
			InputFileID:      file.ID,
			Endpoint:         official.BatchNewParamsEndpointV1ChatCompletions,
			CompletionWindow: official.BatchNewParamsCompletionWindow24h,
			Metadata:         map[string]string{"of": "go"},
		})

		must(t, err)

		return b
	}

	awaitEnd := func(id string) (b *official.Batch) {
		t.Helper()

		poll(t, patience, "the end of "+id, func() bool {
			var err error
			b, err = client.Batches.Get(ctx, id)
			must(t, err)
			return slices.Contains(endedStates, string(b.Status))
		})

		return b
	}

	b := awaitEnd(create(chatLines(50, "fast"), "in.jsonl").ID)
	if b.Status != official.BatchStatusCompleted || b.RequestCounts.Completed != 50 || b.RequestCounts.Failed != 0 ||
		b.Metadata["of"] != "go" || b.ErrorFileID != "" || b.Usage.TotalTokens == 0 || b.Object != "batch" {
		t.Errorf("batch %s", b.RawJSON())
	}

	res, err := client.Files.Content(ctx, b.OutputFileID)
	must(t, err)
	text, err := io.ReadAll(res.Body)
	must(t, err)
	res.Body.Close()
	if lines := byID(t, text); len(lines) != 50 {
		t.Errorf("%d lines", len(lines))
	}

	ids := map[string]int{}
	pages := client.Batches.ListAutoPaging(ctx, official.BatchListParams{Limit: official.Int(1)})
	for pages.Next() {
		ids[pages.Current().ID]++
	}

	must(t, pages.Err())
	if ids[b.ID] != 1 {
		t.Errorf("it is listed %d times: %v", ids[b.ID], ids)
	}

	slow := create(chatLines(400, "slow"), "slow.jsonl")
	poll(t, pollTime, "its validation", func() bool {
		b, err := client.Batches.Get(ctx, slow.ID)
		must(t, err)
		return b.Status != official.BatchStatusValidating
	})

	_, err = client.Batches.Cancel(ctx, slow.ID)
	must(t, err)

	if ended := awaitEnd(slow.ID); ended.Status != official.BatchStatusCancelled ||
		ended.RequestCounts.Completed+ended.RequestCounts.Failed != 400 {
		t.Errorf("batch %s", ended.RawJSON())
	}

	failed := awaitEnd(create(chatLines(1, "fast")+"nonsense", "bad.jsonl").ID)
	if failed.Status != official.BatchStatusFailed || len(failed.Errors.Data) != 1 || failed.Errors.Data[0].Line != 2 ||
		failed.Errors.Data[0].Code != "invalid_json_line" {
		t.Errorf("batch %s", failed.RawJSON())
	}

	_, err = client.Batches.Get(ctx, "batch_nosuch")
	if refused, ok := errors.AsType[*official.Error](err); !ok || refused.StatusCode != http.StatusNotFound ||
		refused.Message == "" {
		t.Errorf("a batch that is not there: %v", err)
	}

	upload, err := client.Uploads.New(ctx, official.UploadNewParams{
		Bytes:    6,
		Filename: "parts.jsonl",
		MimeType: "application/jsonl",
		Purpose:  official.FilePurposeBatch,
	})

	must(t, err)

	var parts []string
	for _, data := range []string{"abc", "def"} {
		part, err := client.Uploads.Parts.New(ctx, upload.ID,
			official.UploadPartNewParams{Data: strings.NewReader(data)})
		must(t, err)
		parts = append(parts, part.ID)
	}

	whole, err := client.Uploads.Complete(ctx, upload.ID, official.UploadCompleteParams{PartIDs: parts})
	must(t, err)
	if whole.File.Bytes != 6 || whole.Status != official.UploadStatusCompleted {
		t.Errorf("upload %s", whole.RawJSON())
	}

	deleted, err := client.Files.Delete(ctx, whole.File.ID)
	if err != nil || !deleted.Deleted {
		t.Errorf("delete: %v", err)
	}
}

// checkGoOpenAI runs batches through go-openai, which sends the purpose of a file first, and
// its lines without a line feed at the end.
func (a *batchAPI) checkGoOpenAI(t *testing.T) {
	t.Helper()

	ctx := t.Context()
	cfg := openai.DefaultConfig("unused")
	cfg.BaseURL = a.url()
	client := openai.NewClientWithConfig(cfg)

	request := openai.CreateBatchWithUploadFileRequest{
		Endpoint:         openai.BatchEndpointChatCompletions,
		CompletionWindow: "24h",
		Metadata:         map[string]any{"of": "go-openai"},
	}
	for i := range 50 {
		request.AddChatCompletion(fmt.Sprint(i), openai.ChatCompletionRequest{
			Model:    "fast",
			Messages: []openai.ChatCompletionMessage{{Role: "user", Content: "hello"}},
		})
	}

	created, err := client.CreateBatchWithUploadFile(ctx, request)
	must(t, err)

	var b openai.BatchResponse
	awaitEnd := func(id string) {
		t.Helper()
		poll(t, patience, "the end of "+id, func() bool {
			b, err = client.RetrieveBatch(ctx, id)
			must(t, err)
			return slices.Contains(endedStates, b.Status)
		})
	}

	awaitEnd(created.ID)
	if b.Status != "completed" || b.RequestCounts.Completed != 50 || b.Metadata["of"] != "go-openai" ||
		b.OutputFileID == nil || b.ErrorFileID != nil {
		t.Fatalf("batch %+v", b.Batch)
	}

	content, err := client.GetFileContent(ctx, *b.OutputFileID)
	must(t, err)
	text, err := io.ReadAll(content)
	must(t, err)
	content.Close()
	if lines := byID(t, text); len(lines) != 50 {
		t.Errorf("%d lines", len(lines))
	}

	limit, found := 1, 0
	var after *string
	for {
		page, err := client.ListBatch(ctx, after, &limit)
		must(t, err)
		if len(page.Data) != 1 || page.FirstID != page.Data[0].ID || page.LastID != page.Data[0].ID {
			t.Fatalf("page %+v", page)
		}

		if page.LastID == created.ID {
			found++
		}

		if !page.HasMore {
			break
		}

		after = &page.LastID
	}

	if found != 1 {
		t.Errorf("it is listed %d times", found)
	}

	file, err := client.CreateFileBytes(ctx, openai.FileBytesRequest{
		Name:    "slow.jsonl",
		Bytes:   []byte(chatLines(400, "slow")),
		Purpose: openai.PurposeType("batch"),
	})

	must(t, err)
	slow, err := client.CreateBatch(ctx, openai.CreateBatchRequest{
		InputFileID: file.ID,
		Endpoint:    openai.BatchEndpointChatCompletions,
	})

	must(t, err)
	poll(t, pollTime, "its validation", func() bool {
		b, err = client.RetrieveBatch(ctx, slow.ID)
		must(t, err)
		return b.Status != "validating"
	})

	_, err = client.CancelBatch(ctx, slow.ID)
	must(t, err)
	awaitEnd(slow.ID)

	if b.Status != "cancelled" || b.RequestCounts.Completed+b.RequestCounts.Failed != 400 {
		t.Errorf("batch %+v", b.Batch)
	}

	_, err = client.RetrieveBatch(ctx, "batch_nosuch")
	if refused, ok := errors.AsType[*openai.APIError](err); !ok || refused.HTTPStatusCode != http.StatusNotFound ||
		refused.Message == "" || refused.Type != "invalid_request_error" {
		t.Errorf("a batch that is not there: %v", err)
	}

	must(t, client.DeleteFile(ctx, file.ID))
	if _, err := client.GetFile(ctx, file.ID); err == nil {
		t.Error("a deleted file is there")
	}
}
