package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// head is a serve with the batch API, and a worker.
type head struct {
	dir    string // of the outputs
	api    string // its URL
	serve  *process
	worker *process
	remove func()
}

// startHead starts a serve with the batch API, and a worker at a model server.
func (b *bench) startHead(ctx context.Context, url string) (h *head, err error) {
	h = &head{}
	if h.dir, h.remove, err = b.makeFolder(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.stop()
		}
	}()

	h.serve, err = b.startProcess(ctx, h.dir, b.promptmill, "serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}

	line, err := h.serve.awaitLine(ctx, "batch API on ")
	if err != nil {
		return nil, err
	}

	_, rest, _ := strings.Cut(line, "batch API on ")
	h.api = strings.TrimRight(strings.Fields(rest)[0], ",;")

	h.worker, err = b.startProcess(ctx, h.dir, b.promptmill, "worker", "--url", url, "--concurrency", "64",
		"--name", "w")
	if err != nil {
		return nil, err
	}

	return h, b.awaitWorkers(ctx, h.dir, 1)
}

// stop ends the processes and removes their files.
func (h *head) stop() {
	for _, p := range []*process{h.worker, h.serve} {
		if p != nil {
			p.stop()
		}
	}
	h.remove()
}

// batchFile is a file of the API, as far as it matters here.
type batchFile struct {
	ID string `json:"id"`
}

// batch is a batch of the API, as far as it matters here.
type batch struct {
	ID           string `json:"id"`
	Status       string `json:"status"`
	OutputFileID string `json:"output_file_id"`
}

// uploadFile sends a file as the SDKs do.
func (h *head) uploadFile(ctx context.Context, path string) (file batchFile, err error) {
	return file, postFile(ctx, h.api+"/files", path, &file)
}

// postFile posts a file as a form, and decodes the answer.
func postFile(ctx context.Context, url, path string, answer any) error {
	r, w := io.Pipe()
	form := multipart.NewWriter(w)
	go func() { w.CloseWithError(writeForm(form, path)) }()

	return callJSON(ctx, http.MethodPost, url, form.FormDataContentType(), r, answer)
}

// writeForm writes the form of an upload.
func writeForm(form *multipart.Writer, path string) error {
	if err := form.WriteField("purpose", "batch"); err != nil {
		return err
	}

	part, err := form.CreateFormFile("file", filepath.Base(path))
	if err != nil {
		return err
	}

	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()

	if _, err := io.Copy(part, file); err != nil {
		return err
	}

	return form.Close()
}

// runBatch creates a batch and polls it until it has ended.
func (h *head) runBatch(ctx context.Context, file batchFile) (made batch, err error) {
	body, err := json.Marshal(map[string]string{
		"input_file_id":     file.ID,
		"endpoint":          "/v1/chat/completions",
		"completion_window": "24h",
	})
	if err != nil {
		return made, err
	}

	err = callJSON(ctx, http.MethodPost, h.api+"/batches", "application/json", bytes.NewReader(body), &made)
	if err != nil {
		return made, err
	}

	var failure error
	err = awaitCondition(ctx, "the end of the batch", func() bool {
		failure = callJSON(ctx, http.MethodGet, h.api+"/batches/"+made.ID, "", nil, &made)
		return failure != nil || made.Status == "completed" || made.Status == "failed"
	})

	if err == nil && failure == nil && made.Status != "completed" {
		failure = fmt.Errorf("batch %s is %s", made.ID, made.Status)
	}

	return made, cmp.Or(failure, err)
}

// callJSON does a request and decodes its answer.
func callJSON(ctx context.Context, method, url, kind string, body io.Reader, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}

	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}

	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}

	return json.Unmarshal(text, answer)
}

// listBatches compares a batch with submit of the same file.
func listBatches(ctx context.Context, b *bench) ([]variant, error) {
	url, err := b.sharedServer(ctx, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", "150")
	if err != nil {
		return nil, err
	}

	kind := inputKind{requests: b.pickSize(50_000, 2_000), size: 1 << 10}
	in, err := b.makeInput(kind)
	if err != nil {
		return nil, err
	}

	measured := func(name string, work func(context.Context, *head) error) variant {
		return variant{name, func(ctx context.Context) ([]sample, error) {
			h, err := b.startHead(ctx, url)
			if err != nil {
				return nil, err
			}
			defer h.stop()

			begin := time.Now()
			if err := work(ctx, h); err != nil {
				return nil, err
			}

			n := float64(kind.requests)
			perSecond := n / time.Since(begin).Seconds()
			served := h.serve.stop()

			return []sample{{name, []float64{n, perSecond, served.perRequest(kind.requests), served.peakMB()}}}, nil
		}}
	}

	return []variant{
		measured("submit", func(ctx context.Context, h *head) error {
			_, err := b.runProcess(ctx, h.dir, b.promptmill, "submit", in, "--run", "r", "--wait", "--progress", "none")
			return err
		}),
		measured("batch API", func(ctx context.Context, h *head) error {
			file, err := h.uploadFile(ctx, in)
			if err != nil {
				return err
			}

			_, err = h.runBatch(ctx, file)

			return err
		}),
	}, nil
}
