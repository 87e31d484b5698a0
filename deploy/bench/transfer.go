package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// runBareServer is the bare file server: DIR. It stores what is posted, and sends it. It is the least
// that a server in Go can do.
func runBareServer(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("files: want DIR")
	}

	path := filepath.Join(args[0], "stored")
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Create(path)
		if err == nil {
			_, err = io.Copy(file, r.Body)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}

	fmt.Fprintf(os.Stderr, "files on http://%s\n", listener.Addr())

	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { server.Close() })()

	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}

	return nil
}

// transferMB is the size of a transfer, and answerTokens that of each of its answers.
const (
	transferMB   = 1000
	answerTokens = 5000
)

// transfer measures the transfer of a file.
func transfer(name, path string, do func(context.Context) error) variant {
	return variant{name, func(ctx context.Context) ([]sample, error) {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}

		begin := time.Now()
		if err := do(ctx); err != nil {
			return nil, err
		}

		mb := float64(info.Size()) / 1e6

		return []sample{{name, []float64{mb, mb / time.Since(begin).Seconds()}}}, nil
	}}
}

// startTransfers starts a head and a bare server, for the time of the section.
func (b *bench) startTransfers(ctx context.Context) (h *head, bare string, err error) {
	url, err := b.sharedServer(ctx, "--sim-ttft", "0s", "--sim-tpot", "0s", "--sim-tokens", fmt.Sprint(answerTokens))
	if err != nil {
		return nil, "", err
	}

	if h, err = b.startHead(ctx, url); err != nil {
		return nil, "", err
	}
	b.stops = append(b.stops, h.stop)

	server, err := b.startProcess(ctx, h.dir, b.self, "files", h.dir)
	if err != nil {
		return nil, "", err
	}
	b.stops = append(b.stops, func() { server.stop() })

	line, err := server.awaitLine(ctx, "files on ")

	return h, strings.TrimPrefix(line, "files on "), err
}

// listUploads compares an upload with one to the bare server.
func listUploads(ctx context.Context, b *bench) ([]variant, error) {
	h, bare, err := b.startTransfers(ctx)
	if err != nil {
		return nil, err
	}

	in, err := b.makeInput(inputKind{requests: b.pickSize(transferMB, 20) << 8, size: 4096})
	if err != nil {
		return nil, err
	}

	return []variant{
		transfer("batch API", in, func(ctx context.Context) error {
			file, err := h.uploadFile(ctx, in)
			if err != nil {
				return err
			}
			return callJSON(ctx, http.MethodDelete, h.api+"/files/"+file.ID, "", nil, &file)
		}),
		transfer("bare", in, func(ctx context.Context) error { return postBare(ctx, bare, in) }),
	}, nil
}

// listDownloads compares the download of a batch's answers with that of the same bytes from the bare
// server.
func listDownloads(ctx context.Context, b *bench) ([]variant, error) {
	h, bare, err := b.startTransfers(ctx)
	if err != nil {
		return nil, err
	}

	in, err := b.makeInput(inputKind{requests: b.pickSize(transferMB, 20) * 40, size: 200})
	if err != nil {
		return nil, err
	}

	file, err := h.uploadFile(ctx, in)
	if err != nil {
		return nil, err
	}

	answered, err := h.runBatch(ctx, file)
	if err != nil {
		return nil, err
	}

	url := h.api + "/files/" + answered.OutputFileID + "/content"
	answers := filepath.Join(h.dir, "answers.jsonl")
	if err := downloadTo(ctx, url, answers); err != nil {
		return nil, err
	}

	if err := postBare(ctx, bare, answers); err != nil {
		return nil, err
	}

	return []variant{
		transfer("batch API", answers, func(ctx context.Context) error { return download(ctx, url, io.Discard) }),
		transfer("bare", answers, func(ctx context.Context) error { return download(ctx, bare, io.Discard) }),
	}, nil
}

// postBare posts a file to the bare server.
func postBare(ctx context.Context, url, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, file)
	if err != nil {
		return err
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s", url, resp.Status)
	}

	return nil
}

// downloadTo downloads into a file.
func downloadTo(ctx context.Context, url, path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}

	return errors.Join(download(ctx, url, file), file.Close())
}

// download copies the bytes of a URL, uncompressed.
func download(ctx context.Context, url string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept-Encoding", "identity")

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}

	_, err = io.Copy(w, resp.Body)

	return err
}
