package batchapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/deploy/batchapi/batch"
	"github.com/promptmill/promptmill/proto"
)

// outputID is the id of the output of the batch of addOutput.
const outputID = "file-abcdefghijklmnopqrstuvwx"

// addOutput adds a batch with an output.
func (f *fixture) addOutput(out *fakeOutput) string {
	state := proto.StateInProgress
	if out.complete {
		state = proto.StateCompleted
	}

	f.batches.add(batch.Batch{ID: "batch_1", State: state, OutputFileID: outputID, CreatedAt: time.Unix(1, 0)})
	f.batches.setOutput(outputID, out)

	return "/v1/files/" + outputID + "/content"
}

// completeOutput returns an output whose zstd file is there.
func completeOutput(t *testing.T, text string) *fakeOutput {
	t.Helper()

	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(t.TempDir(), "out.jsonl.zst")
	if err := os.WriteFile(path, enc.EncodeAll([]byte(text), nil), 0o600); err != nil {
		t.Fatal(err)
	}

	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })

	return &fakeOutput{text: text, complete: true, packed: file}
}

// TestRanges asks for parts of an input and of an output: the same answers.
func TestRanges(t *testing.T) {
	const text = "line 1\nline 2\nline 3\n"

	for _, kind := range []string{"input", "output"} {
		f := start(t)
		path := ""
		if kind == "input" {
			path = "/v1/files/" + f.upload(text).ID + "/content"
		} else {
			path = f.addOutput(completeOutput(t, text))
		}
		etag := f.get(path).header.Get("ETag")

		for _, c := range []struct {
			asked, ifRange string
			status         int
			body           string
			contentRange   string
		}{
			{"", "", 200, text, ""},
			{"bytes=0-6", "", 206, "line 1\n", "bytes 0-6/21"},
			{"bytes=14-", "", 206, "line 3\n", "bytes 14-20/21"},
			{"bytes=-7", "", 206, "line 3\n", "bytes 14-20/21"},
			{"bytes=-100", "", 206, text, "bytes 0-20/21"},
			{"bytes=20-999999999999999999999", "", 206, "\n", "bytes 20-20/21"},
			{"bytes=0-6", etag, 206, "line 1\n", "bytes 0-6/21"},
			{"bytes=0-6", `"other"`, 200, text, ""},
		} {
			header := http.Header{"Range": {c.asked}}
			if c.ifRange != "" {
				header.Set("If-Range", c.ifRange)
			}

			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := f.send(method, path, header, nil)
				body := c.body
				if method == http.MethodHead {
					body = ""
				}

				length := strconv.Itoa(len(c.body))
				if a.status != c.status || a.body != body || a.header.Get("Content-Length") != length ||
					a.header.Get("Content-Range") != c.contentRange || a.header.Get("Accept-Ranges") != "bytes" ||
					a.header.Get("X-Incomplete") != "" || a.header.Get("ETag") == "" {
					t.Errorf("%s of %s %q if %q: %d %q %v", method, kind, c.asked, c.ifRange, a.status, a.body, a.header)
				}
			}
		}

		for _, asked := range []string{"bytes=21-", "bytes=30-40", "bytes=-0"} {
			a := f.send(http.MethodGet, path, http.Header{"Range": {asked}}, nil)
			if a.status != 416 || a.header.Get("Content-Range") != "bytes */21" {
				t.Errorf("%s: %d %v", asked, a.status, a.header)
			}
			a.checkError(t, 416, "", "range_not_satisfiable",
				fmt.Sprintf("The range %q is not in the file, which has 21 bytes now.", asked))
		}
	}
}

// TestIncompleteOutput reads the output of a batch at work as it grows.
func TestIncompleteOutput(t *testing.T) {
	f := start(t)
	out := &fakeOutput{text: "a\nbb\n"}
	path := f.addOutput(out)

	a := f.get(path)
	if a.body != "a\nbb\n" || a.header.Get("X-Incomplete") != "true" || a.header.Get("X-Last-Line") != "2" ||
		a.header.Get("ETag") != "" || a.header.Get("Content-Length") != "5" {
		t.Errorf("%q %v", a.body, a.header)
	}

	rest := http.Header{"Range": {"bytes=5-"}, "Accept-Encoding": {"zstd"}}
	a = f.send(http.MethodGet, path, rest, nil)
	if a.status != 416 || a.header.Get("X-Incomplete") != "true" || a.header.Get("X-Last-Line") != "2" ||
		a.header.Get("Content-Range") != "bytes */5" {
		t.Errorf("%d %v", a.status, a.header)
	}

	f.batches.setOutput(outputID, &fakeOutput{text: "a\nbb\nccc\n"})
	a = f.send(http.MethodGet, path, rest, nil)
	if a.status != 206 || a.body != "ccc\n" || a.header.Get("X-Incomplete") != "true" || a.header.Get("X-Last-Line") != "3" ||
		a.header.Get("Content-Encoding") != "" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}

	a = f.send(http.MethodGet, path, http.Header{"Range": {"bytes=0-1"}}, nil)
	if a.body != "a\n" || a.header.Get("X-Incomplete") != "true" || a.header.Get("X-Last-Line") != "" {
		t.Errorf("%q %v", a.body, a.header)
	}

	if out.closed != 2 {
		t.Errorf("closed %d times", out.closed)
	}
}

// TestPackedOutput asks for a complete output as it lies on the disk.
func TestPackedOutput(t *testing.T) {
	f := start(t)
	text := strings.Repeat("an answer\n", 1000)
	path := f.addOutput(completeOutput(t, text))

	for accept, packed := range map[string]bool{
		"zstd":                        true,
		"gzip, deflate, br, zstd":     true,
		"gzip;q=1.0, ZSTD ; q=0.5":    true,
		"zstd;q=0":                    false,
		"zstd;q=0.000, *":             false,
		"zstd;q=x":                    false,
		"gzip, deflate":               false,
		"*":                           false,
		"":                            false,
		"zstd-x":                      false,
		"identity;q=0.5, zstd;q=0.01": true,
	} {
		a := f.send(http.MethodGet, path, http.Header{"Accept-Encoding": {accept}}, nil)
		if a.status != 200 || a.header.Get("Vary") != "Accept-Encoding" ||
			a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
			t.Errorf("%q: %d %v", accept, a.status, a.header)
		}

		body := a.body
		if packed {
			dec, err := zstd.NewReader(nil)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := dec.DecodeAll([]byte(body), nil)
			if err != nil {
				t.Errorf("%q: %v", accept, err)
			}
			body = string(plain)
		}

		if body != text || (a.header.Get("Content-Encoding") == "zstd") != packed ||
			strings.HasSuffix(a.header.Get("ETag"), `-zstd"`) != packed {
			t.Errorf("%q: %d bytes, %v", accept, len(body), a.header)
		}
	}

	a := f.send(http.MethodGet, path, http.Header{"Accept-Encoding": {"zstd"}, "Range": {"bytes=0-1"}}, nil)
	if a.status != 206 || a.body != "an" || a.header.Get("Content-Encoding") != "" {
		t.Errorf("%d %q %v", a.status, a.body, a.header)
	}
}

// TestDamagedOutput reads an output that cannot be read to its end: never a short body that looks whole.
func TestDamagedOutput(t *testing.T) {
	f := start(t)
	out := &fakeOutput{text: strings.Repeat("x", 1<<20), failAt: 1 << 19}
	path := f.addOutput(out)

	resp, err := http.Get(f.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	if n, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v", n, err)
	}

	f.server.Close()
	if !strings.Contains(f.log.String(), "the disk fails at byte 524288") {
		t.Error(f.log.String())
	}
}

// TestUnreadableOutput reads an output of which no byte can be read: an error that the SDKs raise.
func TestUnreadableOutput(t *testing.T) {
	f := start(t)
	path := f.addOutput(&fakeOutput{text: "xx", failAt: -1, complete: true})

	a := f.get(path)
	a.checkError(t, 500, "", "", "The server failed to read the file. Its log has the reason.")
	if a.header.Get("Content-Disposition") != "" {
		t.Error(a.header)
	}
}

// TestDeleteWhileDownloading deletes a file of which a client has read the first bytes.
func TestDeleteWhileDownloading(t *testing.T) {
	f := start(t)
	text := strings.Repeat("0123456789abcde\n", 1<<20) // more than the buffers of a connection
	file := f.upload(text)

	resp, err := http.Get(f.url + "/v1/files/" + file.ID + "/content")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	first := make([]byte, 100)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}

	decode[deletedObject](t, f.send(http.MethodDelete, "/v1/files/"+file.ID, nil, nil))

	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(first)+string(rest) != text {
		t.Errorf("%d bytes, %v", len(first)+len(rest), err)
	}
}

// TestDeleteOutput deletes the output of a batch.
func TestDeleteOutput(t *testing.T) {
	f := start(t)
	path := f.addOutput(&fakeOutput{text: "a\n", complete: true})

	if file := decode[fileObject](t, f.get("/v1/files/"+outputID)); file.Purpose != "batch_output" || file.Bytes != 2 {
		t.Errorf("%+v", file)
	}

	decode[deletedObject](t, f.send(http.MethodDelete, "/v1/files/"+outputID, nil, nil))

	gone := "There is no file " + outputID + ": it never existed, has expired or was deleted."
	f.get(path).checkError(t, 404, "id", "", gone)
	f.get("/v1/files/"+outputID).checkError(t, 404, "id", "", gone)
	f.get("/v1/batches/batch_1/results").checkError(t, 404, "id", "",
		"The results of batch_1 are gone: its file "+outputID+" has expired or was deleted.")
}

// TestContentIsNoPage ensures that a browser stores the bytes of a client, and never shows them.
func TestContentIsNoPage(t *testing.T) {
	f := start(t)
	header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", `a"ü.html`, "<script>"})
	file := decode[fileObject](t, f.send(http.MethodPost, "/v1/files", header, strings.NewReader(body)))

	h := f.get("/v1/files/" + file.ID + "/content").header
	if h.Get("Content-Type") != "application/octet-stream" || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Content-Disposition") != "attachment; filename*=utf-8''a%22%C3%BC.html" {
		t.Error(h)
	}
}

// FuzzParseRange compares a range with the definition of RFC 9110: what is answered is inside the file.
func FuzzParseRange(f *testing.F) {
	for _, header := range []string{"bytes=0-0", "bytes=-1", "bytes=5-", "bytes=1-0", "bytes=0-0,1-1", "bytes= 1-2 ",
		"bytes=-", "lines=0-1", "bytes=99999999999999999999-", "bytes=-99999999999999999999", "bytes=+1-2"} {
		f.Add(header, int64(10))
		f.Add(header, int64(0))
	}

	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}

		part, kind := parseRange(header, size)
		switch kind {
		case partOfFile:
			if part.offset < 0 || part.length < 1 || part.offset > size-part.length {
				t.Errorf("%q of %d bytes: %+v", header, size, part)
			}

			again, kind := parseRange(fmt.Sprintf("bytes=%d-%d", part.offset, part.offset+part.length-1), size)
			if kind != partOfFile || again != part {
				t.Errorf("%q of %d bytes: %+v, and then %+v", header, size, part, again)
			}
		default:
			if part != (byteRange{}) {
				t.Errorf("%q: %+v", header, part)
			}
		}
	})
}
