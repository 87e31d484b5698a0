package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	official "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// readOnly is the refusal of all that would create or delete something.
const readOnly = "This server is promptmill run, which ends with its run: start promptmill serve --api to create batches."

// startRun starts a run with a batch API and returns its address when clients can use it.
func (c command) startRun(args ...string) (cmd *exec.Cmd, out *lockedBuffer, url string) {
	c.t.Helper()

	cmd, out = c.start(append([]string{"run", "-o", "out.jsonl.zst", "--api", "0", "--flush", "50ms"}, args...)...)
	poll(c.t, patience, "the batch API is ready", func() bool {
		found := apiOf.FindStringSubmatch(out.String())
		if found != nil && strings.Contains(out.String(), "it has this run as batch_") {
			url = found[1]
		}
		return url != ""
	})

	return cmd, out, url
}

// get sends a request with a header of alternating names and values, and returns the answer with its text.
func get(t *testing.T, url string, header ...string) (*http.Response, string) {
	t.Helper()

	request, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	for pair := range slices.Chunk(header, 2) {
		request.Header.Set(pair[0], pair[1])
	}

	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()

	text, err := io.ReadAll(answer.Body)
	must(t, err)

	return answer, string(text)
}

// A client of OpenAI's API sees the run of a process as a batch, reads its answers while they come, can
// create and delete nothing, and cancels the run. A run that continues has the same ids.
func TestRunAsBatch(t *testing.T) {
	t.Parallel()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	const requests = 2000
	c := newCommand(t)
	m := newModel(t, sim.Config{TTFT: 50 * time.Millisecond, Slots: 4})
	in := filepath.Join(c.dir, "in.jsonl")
	must(t, os.WriteFile(in, []byte(chatLines(requests, "sim")), 0o600))
	args := []string{"in.jsonl", "--url", m.url, "--concurrency", "4", "--label", "nightly", "--run", "r1"}

	cmd, _, url := c.startRun(args...)
	client := official.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("unused"))
	await := func(done int64) (b *official.Batch) {
		t.Helper()

		poll(t, patience, fmt.Sprintf("%d answers", done), func() (ok bool) {
			var err error
			b, err = client.Batches.Get(t.Context(), "batch_r1")
			must(t, err)
			return b.RequestCounts.Completed >= done
		})

		return b
	}

	b := await(5)
	if b.Status != official.BatchStatusInProgress || b.RequestCounts.Total != requests || b.OutputFileID == "" ||
		b.ErrorFileID != "" || b.Endpoint != "/v1/chat/completions" || b.Model != "sim" || b.Metadata["label"] != "nightly" ||
		b.Usage.OutputTokens == 0 {
		t.Errorf("batch %s", b.RawJSON())
	}

	batches, err := client.Batches.List(t.Context(), official.BatchListParams{})
	must(t, err)
	if len(batches.Data) != 1 || batches.Data[0].ID != b.ID || batches.HasMore {
		t.Errorf("batches %s", batches.RawJSON())
	}

	files, err := client.Files.List(t.Context(), official.FileListParams{Order: official.FileListParamsOrderAsc})
	must(t, err)
	var ids []string
	for _, f := range files.Data {
		ids = append(ids, f.ID)
	}
	if !slices.Equal(ids, []string{b.InputFileID, b.OutputFileID}) || files.Data[0].Filename != "in.jsonl" {
		t.Errorf("files %s", files.RawJSON())
	}

	if _, text := get(t, url+"/v1/files/"+b.InputFileID+"/content"); text != chatLines(requests, "sim") {
		t.Errorf("the input is\n%s", text)
	}

	// A client reads on where it was.
	content := url + "/v1/files/" + b.OutputFileID + "/content"
	first, begin := get(t, content)
	if first.StatusCode != 200 || first.Header.Get("X-Incomplete") != "true" || !strings.HasSuffix(begin, "\n") ||
		first.Header.Get("X-Last-Line") != fmt.Sprint(strings.Count(begin, "\n")) {
		t.Errorf("%d, %v:\n%s", first.StatusCode, first.Header, begin)
	}

	await(int64(strings.Count(begin, "\n")) + 1)
	next, rest := get(t, content, "Range", fmt.Sprintf("bytes=%d-", len(begin)))
	if next.StatusCode != 206 || rest == "" || next.Header.Get("X-Incomplete") != "true" ||
		next.Header.Get("X-Last-Line") != fmt.Sprint(strings.Count(begin+rest, "\n")) {
		t.Errorf("%d, %v:\n%s", next.StatusCode, next.Header, rest)
	}
	byID(t, []byte(begin+rest))

	if _, text := get(t, url+"/v1/batches/batch_r1/results"); !strings.HasPrefix(text, begin+rest) {
		t.Errorf("the results do not begin with the %d bytes of the output:\n%s", len(begin+rest), text)
	}

	checkReadOnly(t, client, b)

	// The next process has the same batch.
	must(t, cmd.Process.Kill())
	cmd.Wait()
	cmd, out, url := c.startRun(args...)
	client = official.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("unused"))
	if again := await(int64(strings.Count(begin+rest, "\n"))); again.InputFileID != b.InputFileID ||
		again.OutputFileID != b.OutputFileID || again.CreatedAt != b.CreatedAt {
		t.Errorf("batch %s\nwas %s", again.RawJSON(), b.RawJSON())
	}
	if _, text := get(t, url+"/v1/files/"+b.OutputFileID+"/content"); !strings.HasPrefix(text, begin+rest) {
		t.Errorf("the output does not begin with what it was:\n%s", text)
	}

	cancelled, err := client.Batches.Cancel(t.Context(), b.ID)
	must(t, err)
	if !slices.Contains([]official.BatchStatus{official.BatchStatusCancelling, official.BatchStatusCancelled},
		cancelled.Status) {
		t.Errorf("batch %s", cancelled.RawJSON())
	}

	if code := waitExit(t, cmd, out, patience); code != exit.CodeFailed ||
		!strings.Contains(out.String(), "cancelled: ") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if answer, err := http.Get(url + "/healthz"); err == nil {
		answer.Body.Close()
		t.Error("the batch API answers after the run")
	}
	c.must("verify", "in.jsonl", "out.jsonl.zst")
}

// checkReadOnly checks that a client of a run cannot create or delete anything, and does not try again.
func checkReadOnly(t *testing.T, client official.Client, b *official.Batch) {
	t.Helper()

	sent := 0
	count := option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		sent++
		return next(r)
	})

	_, upload := client.Files.New(t.Context(), official.FileNewParams{
		File:    official.File(strings.NewReader(chatLines(50_000, "sim")), "in.jsonl", "application/jsonl"),
		Purpose: official.FilePurposeBatch,
	}, count)
	_, parts := client.Uploads.New(t.Context(), official.UploadNewParams{
		Bytes:    1,
		Filename: "in.jsonl",
		MimeType: "application/jsonl",
		Purpose:  official.FilePurposeBatch,
	}, count)
	_, create := client.Batches.New(t.Context(), official.BatchNewParams{
		InputFileID:      b.InputFileID,
		Endpoint:         official.BatchNewParamsEndpointV1ChatCompletions,
		CompletionWindow: official.BatchNewParamsCompletionWindow24h,
	}, count)
	_, remove := client.Files.Delete(t.Context(), b.OutputFileID, count)

	for i, err := range []error{upload, parts, create, remove} {
		refused, ok := errors.AsType[*official.Error](err)
		if !ok || refused.StatusCode != 400 || refused.Code != "read_only" || refused.Message != readOnly {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if sent != 4 {
		t.Errorf("%d requests were sent, want 4", sent)
	}
}

// Keys protect the batch API of a run. An input that is compressed is listed, and not sent.
func TestRunAsBatchOfCompressedInput(t *testing.T) {
	t.Parallel()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	c := newCommand(t)
	file, err := os.Create(filepath.Join(c.dir, "in.jsonl.gz"))
	must(t, err)
	packer := gzip.NewWriter(file)
	_, err = io.WriteString(packer, chatLines(200, "m"))
	must(t, err)
	must(t, packer.Close())
	must(t, file.Close())

	secret := strings.TrimSpace(c.must("key", "create"))
	own := strings.TrimSpace(c.must("key", "create", "--own-only"))
	_, _, url := c.startRun("in.jsonl.gz", "--sim", "--sim-ttft", "200ms", "--concurrency", "1", "--run", "r1")

	for key, want := range map[string]int{"": 401, own: 404, secret: 200} {
		if got, text := call(t, http.DefaultClient, "GET", url+"/v1/batches/batch_r1", key); got != want {
			t.Errorf("%d, want %d: %s", got, want, text)
		}
	}

	client := official.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey(secret))
	b, err := client.Batches.Get(t.Context(), "batch_r1")
	must(t, err)
	input, err := client.Files.Get(t.Context(), b.InputFileID)
	if err != nil || input.Filename != "in.jsonl.gz" {
		t.Errorf("file %s, %v", input.RawJSON(), err)
	}

	_, err = client.Files.Content(t.Context(), b.InputFileID)
	refused, ok := errors.AsType[*official.Error](err)
	if want := "The input of this run is compressed with gzip: this server sends an input only if that is one file " +
		"of plain text."; !ok || refused.StatusCode != 404 || refused.Message != want {
		t.Errorf("the input's content: %v", err)
	}
}
