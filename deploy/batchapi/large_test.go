package batchapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promptmill/promptmill/deploy/batchapi/filestore"
)

// TestTextInRequests ensures that text that is no Unicode reaches the model server from a body as it does from
// a file, and is refused elsewhere.
func TestTextInRequests(t *testing.T) {
	f := start(t)

	const requests = `"requests":[{"custom_id":"a","url":"/v1/x","method":"POST","body":{"a": "\ud800 \\\" ` + "\xff\t" + `b"}}]`
	valid := strings.ReplaceAll(requests, "\t", " ")
	b := decode[batchObject](t, f.post("/v1/batches", `{`+valid+`,"metadata":{"a":"b"}}`))
	const want = `{"custom_id":"a","method":"POST","url":"/v1/x","body":{"a":"\ud800 \\\" ` + "\xff b\"}}\n"
	if got := f.get("/v1/files/" + b.InputFileID + "/content").body; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	for body, fault := range map[string]int{
		`{"metadata":{"a":"\ud800"},` + valid + `}`: 18,
		`{"unknown":"` + "\xff" + `"}`:              12,
		`{` + requests + `}`:                        strings.Index(requests, "\t") + 1, // a tab in a string is no JSON
	} {
		f.post("/v1/batches", body).checkError(t, 400, "", "",
			fmt.Sprintf("The body is no JSON: the fault is at byte %d.", fault))
	}
	f.post("/v1/batches", `{"metadata":{"a":1},`+valid+`}`).checkError(t, 400, "metadata.a", "",
		"The member metadata.a is a number, and must be a string.")
}

// TestLargeRequestMemory ensures that a request is in memory once: in the buffer of the decoder, which doubles
// as it grows.
func TestLargeRequestMemory(t *testing.T) {
	const size = 16 << 20
	body := `{"requests":[{"body":{"a":"` + strings.Repeat("x", size) + `"}}]}`

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := readCreateBatch(strings.NewReader(body), func() error { return nil },
		func(r io.Reader) (*filestore.Pending, error) {
			n, err := io.Copy(io.Discard, r)
			if n < size {
				t.Errorf("%d bytes: %v", n, err)
			}
			return nil, io.ErrClosedPipe
		})
	runtime.ReadMemStats(&after)

	if err == nil {
		t.Error("the error of the store is lost")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 5*size {
		t.Errorf("a request of %d MiB takes %d MiB", size>>20, n>>20)
	}
}

// TestLargeRequests ensures that a large request has a turn until its batch is created.
func TestLargeRequests(t *testing.T) {
	f := start(t)
	text := strings.Repeat("x", 1<<19)

	create := func() (finish func() answer) {
		reader, writer := io.Pipe()
		done := make(chan answer, 1)
		go func() { done <- f.send(http.MethodPost, "/v1/batches", nil, reader) }()
		io.WriteString(writer, `{"requests":[{"body":{"a":"`+text)

		return func() answer {
			io.WriteString(writer, strings.Repeat(text, 5)+`"}}]}`)
			writer.Close()
			return <-done
		}
	}
	await := func(n int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); len(f.handler.large) != n; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d have a turn, want %d", len(f.handler.large), n)
			}
		}
	}

	for range maxLarge {
		f.handler.large <- struct{}{}
	}
	decode[batchObject](t, f.post("/v1/batches", `{"requests":[{"body":{"a":"`+text+`"}}]}`)) // a small one needs none

	ended := make(chan answer, 1)
	finish := create()
	go func() { ended <- finish() }()
	<-f.handler.large
	await(maxLarge) // the large one has its turn
	<-f.handler.large
	decode[batchObject](t, <-ended)
	await(0)
}

// TestLargeRequestsTimeout ensures that a client does not wait forever for room.
func TestLargeRequestsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, _, err := readCreateBatch(strings.NewReader(`{"requests":[{"body":{"a":"`+strings.Repeat("x", 3<<20)+`"}}]}`),
			func() error { return new(largeTurn).begin(context.Background(), nil) },
			func(r io.Reader) (*filestore.Pending, error) {
				_, err := io.Copy(io.Discard, r)
				return nil, err
			})

		f, fault := toFailure(err)
		if f.status != http.StatusServiceUnavailable || fault || f.header.Get("Retry-After") != "5" ||
			time.Since(begin) != largeTime {
			t.Errorf("%d after %v: %v", f.status, time.Since(begin), f)
		}
	})
}
