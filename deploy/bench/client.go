package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
)

// runClient is the bare client: URL INPUT CONCURRENCY. It posts the bodies of the input
// as fast as they are answered, reads the answers, and keeps nothing. It is the least
// that a client in Go can do.
func runClient(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 3 {
		return errors.New("client: want URL INPUT CONCURRENCY")
	}

	concurrency, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}

	file, err := os.Open(args[1])
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer file.Close()

	transport := &http.Transport{MaxIdleConnsPerHost: concurrency}
	defer transport.CloseIdleConnections()

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	in := &bodyReader{lines: bufio.NewReaderSize(file, 64<<10)}
	var clients sync.WaitGroup
	for range concurrency {
		clients.Go(func() {
			if err := postBodies(
				ctx, &http.Client{Transport: transport}, args[0]+"/v1/chat/completions", in,
			); err != nil {
				fail(err)
			}
		})
	}

	clients.Wait()

	return context.Cause(ctx)
}

// bodyReader are the bodies of an input, for many to take from.
type bodyReader struct {
	mu    sync.Mutex
	lines *bufio.Reader
}

// next reads the next body into a buffer.
func (b *bodyReader) next(buf []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	buf = buf[:0]
	for {
		part, err := b.lines.ReadSlice('\n')
		buf = append(buf, part...)
		if err == nil {
			return buf, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

var bodyKey = []byte(`"body":`)

func postBodies(ctx context.Context, client *http.Client, url string, in *bodyReader) error {
	var buf []byte
	for {
		line, err := in.next(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}

		buf = line
		body := line[bytes.Index(line, bodyKey)+len(bodyKey) : len(line)-len("}\n")]
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}

		req.Header.Set("Content-Type", "application/json")

		res, err := client.Do(req)
		if err != nil {
			return err
		}

		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}

		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("the server says %s", res.Status)
		}
	}
}

//go:embed script.py
var script []byte

// findPython returns a Python that has aiohttp. The one that Debian's package is for may
// not be the first on the path.
func findPython(ctx context.Context) (string, bool) {
	for _, path := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(ctx, path, "-c", "import aiohttp").Run() == nil {
			return path, true
		}
	}
	return "", false
}
