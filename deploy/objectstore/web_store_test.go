package objectstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
	"github.com/promptmill/promptmill/proto"
)

// newTestClient returns a client that waits for milliseconds between attempts.
func newTestClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	c.retrier.first, c.retrier.longest = time.Millisecond, 2*time.Millisecond
	t.Cleanup(c.Close)

	return c
}

// testText is the text of a file that is larger than its head.
func testText() []byte {
	var text bytes.Buffer
	for i := 0; text.Len() < 5*headSize; i++ {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	return text.Bytes()
}

// testServer serves one file under every path.
type testServer struct {
	*httptest.Server

	text []byte
	// header is set in each answer.
	header http.Header
	// fault answers a request in place of the server if it returns true. n counts the requests
	// from 1.
	fault func(w http.ResponseWriter, r *http.Request, n int) bool
	// requests counts the requests.
	requests atomic.Int64
	// plain answers all requests with the whole file.
	plain bool
}

// serveText serves a file with an ETag.
func serveText(t *testing.T, text []byte) *testServer {
	t.Helper()

	s := &testServer{
		text:   text,
		header: http.Header{"Etag": {`"one"`}},
	}

	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(s.requests.Add(1))
		for name, values := range s.header {
			w.Header()[name] = values
		}

		switch {
		case s.fault != nil && s.fault(w, r, n):
		case s.plain:
			w.Header().Set("Content-Length", strconv.Itoa(len(s.text)))
			w.Write(s.text)
		default:
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.text))
		}
	}))

	t.Cleanup(s.Close)

	return s
}

// cutAnswers cuts the connection behind a number of bytes of each answer that is longer.
func (s *testServer) cutAnswers(size int) {
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		http.ServeContent(storetest.CutAnswer(w, size), r, "", time.Time{}, bytes.NewReader(s.text))
		return true
	}
}

// readAll opens and reads a file.
func readAll(ctx context.Context, c *Client, file proto.File) ([]byte, error) {
	f, err := c.Open(ctx, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	return io.ReadAll(f)
}

func TestWebFile(t *testing.T) {
	text := testText()
	for _, tt := range []struct {
		name     string
		change   func(*testServer)
		etag     string
		requests int64
	}{
		{"the head, and one request for the rest", func(*testServer) {}, `"one"`, 2},
		{"a server without ranges", func(s *testServer) { s.plain = true }, `"one"`, 1},
		{"a cut connection", func(s *testServer) { s.cutAnswers(2 * headSize) }, `"one"`, 4},
		{"a weak ETag", func(s *testServer) {
			s.header = http.Header{"Etag": {`W/"a"`}, "Last-Modified": {"Sun, 06 Nov 1994 08:49:37 GMT"}}
		}, fmt.Sprintf(`W/"a" Sun, 06 Nov 1994 08:49:37 GMT, %d bytes`, len(text)), 2},
		{"no version", func(s *testServer) { s.header = nil }, "", 2},
		{"a server that is busy twice", func(s *testServer) {
			s.fault = func(w http.ResponseWriter, _ *http.Request, n int) bool {
				if n == 2 || n == 3 {
					w.WriteHeader(503)
				}
				return n == 2 || n == 3
			}
		}, `"one"`, 4},
		{"a packing that was not asked for", func(s *testServer) {
			s.fault = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
				if got := r.Header.Get("Accept-Encoding"); got != "identity" {
					panic("Accept-Encoding: " + got)
				}
				return false
			}
		}, `"one"`, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveText(t, text)
			tt.change(s)
			c := newTestClient(t, Config{})

			got, err := readAll(t.Context(), c, proto.File{Path: s.URL + "/f"})
			if err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%d bytes, %v; want %d", len(got), err, len(text))
			}

			if got := s.requests.Load(); got != tt.requests {
				t.Errorf("%d requests, want %d", got, tt.requests)
			}

			s.fault = nil
			file, err := c.Stat(t.Context(), s.URL+"/f")
			if err != nil || file.Bytes != int64(len(text)) || file.ETag != tt.etag {
				t.Errorf("%+v, %v; want ETag %q", file, err, tt.etag)
			}
		})
	}
}

func TestWebFileReadAt(t *testing.T) {
	text := testText()
	s := serveText(t, text)
	c := newTestClient(t, Config{})
	f, err := c.Open(t.Context(), proto.File{Path: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	s.cutAnswers(1000)
	for _, tt := range []struct {
		offset int64
		size   int
		want   int
		err    error
	}{
		{0, 10, 10, nil},
		{headSize - 5, 10, 10, nil},
		{2 * headSize, 2500, 2500, nil},
		{int64(len(text)) - 3, 10, 3, io.EOF},
		{int64(len(text)), 1, 0, io.EOF},
		{int64(len(text)) + 100, 1, 0, io.EOF},
	} {
		p := make([]byte, tt.size)
		n, err := f.ReadAt(p, tt.offset)
		if n != tt.want || !errors.Is(err, tt.err) || !bytes.Equal(p[:n], text[min(tt.offset, int64(len(text))):][:n]) {
			t.Errorf("at %d: %d bytes, %v; want %d, %v", tt.offset, n, err, tt.want, tt.err)
		}
	}

	// The head, one for the rest of 5 bytes and some more, three of 1,000 bytes, one of 3 bytes.
	if got := s.requests.Load(); got != 6 {
		t.Errorf("%d requests", got)
	}
}

func TestWebFileSeek(t *testing.T) {
	text := testText()
	for _, plain := range []bool{false, true} {
		s := serveText(t, text)
		s.plain = plain

		f, err := newTestClient(t, Config{}).Open(t.Context(), proto.File{Path: s.URL})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()

		for _, offset := range []int64{3 * headSize, 3*headSize + 500, 10, headSize + 7, int64(len(text)) - 9} {
			if at, err := f.Seek(offset, io.SeekStart); at != offset || err != nil {
				t.Fatalf("seek to %d: %d, %v", offset, at, err)
			}

			p := make([]byte, 9)
			if _, err := io.ReadFull(f, p); err != nil || !bytes.Equal(p, text[offset:offset+9]) {
				t.Errorf("plain %t, at %d: %q, %v", plain, offset, p, err)
			}
		}

		if _, err := f.ReadAt(make([]byte, 9), 3*headSize); plain != (exit.Code(err) == exit.CodeUsage) {
			t.Errorf("plain %t: ReadAt: %v", plain, err)
		}
	}
}

func TestWebFileChanges(t *testing.T) {
	text := testText()
	for _, tt := range []struct {
		name   string
		change func(*testServer)
	}{
		{"another ETag", func(s *testServer) { s.header = http.Header{"Etag": {`"two"`}} }},
		{"gone", func(s *testServer) {
			s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool { w.WriteHeader(404); return true }
		}},
		{"shorter", func(s *testServer) { s.text = text[:3*headSize] }},
		{"empty", func(s *testServer) { s.text = nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveText(t, text)
			c := newTestClient(t, Config{})
			f, err := c.Open(t.Context(), proto.File{Path: s.URL})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()

			tt.change(s)
			if _, err := io.ReadAll(f); !errors.Is(err, proto.ErrInputChanged) {
				t.Errorf("read: %v", err)
			}

			if _, err := f.ReadAt(make([]byte, 10), 2*headSize); !errors.Is(err, proto.ErrInputChanged) {
				t.Errorf("read at: %v", err)
			}
		})
	}

	s := serveText(t, text)
	file := proto.File{Path: s.URL, ETag: `"zero"`}
	if _, err := readAll(t.Context(), newTestClient(t, Config{}), file); !errors.Is(err, proto.ErrInputChanged) {
		t.Errorf("opened with another ETag: %v", err)
	}
}

func TestWebFileRefusals(t *testing.T) {
	for _, tt := range []struct {
		status   int
		header   http.Header
		body     string
		code     int
		is       error
		requests int64
		want     string
	}{
		{404, nil, "", exit.CodeUsage, fs.ErrNotExist, 1, "there is no such object"},
		{403, nil, "", exit.CodeUsage, fs.ErrPermission, 1, "the server answers 403 Forbidden"},
		{400, nil, "", exit.CodeUsage, nil, 1, "the server answers 400 Bad Request"},
		{429, http.Header{"Retry-After": {"1"}}, "", exit.CodeUnreachable, nil, 10,
			"429 Too Many Requests, in 10 attempts"},
		{200, http.Header{"Transfer-Encoding": {"chunked"}}, "text", exit.CodeUsage, nil, 1, "does not say how large"},
		{206, http.Header{"Content-Range": {"bytes 5-8/100"}}, "text", exit.CodeUsage, nil, 1, "answers a request for"},
	} {
		s := serveText(t, nil)
		s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			for name, values := range tt.header {
				w.Header()[name] = values
			}
			w.WriteHeader(tt.status)
			w.(http.Flusher).Flush()
			io.WriteString(w, tt.body)
			return true
		}

		_, err := newTestClient(t, Config{}).Stat(t.Context(), s.URL+"/f?X-Amz-Signature=secret")
		if err == nil || exit.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) ||
			tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%d: code %d, %v; want %d, %q", tt.status, exit.Code(err), err, tt.code, tt.want)
		}
		if err != nil && strings.Contains(Redact(s.URL+"/f?X-Amz-Signature=secret"), "secret") {
			t.Error("the signature is shown")
		}

		if got := s.requests.Load(); got != tt.requests {
			t.Errorf("%d: %d requests, want %d", tt.status, got, tt.requests)
		}
	}
}

func TestWebFileRedirect(t *testing.T) {
	text := testText()
	files := serveText(t, text)
	denied := 0
	files.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token is sent to the server of files")
		}

		if r.URL.Query().Get("sig") == "2" { // the second address has expired already
			denied++
			w.WriteHeader(403)
			return true
		}

		return false
	}

	n := 0
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Set("X-Linked-Etag", `"sha"`)
		http.Redirect(w, r, strings.Replace(files.URL, "127.0.0.1", "localhost", 1)+"/f?sig="+strconv.Itoa(n),
			http.StatusFound)
	}))
	defer page.Close()

	t.Setenv("HF_ENDPOINT", page.URL)
	t.Setenv("HF_TOKEN", "token")
	c := newTestClient(t, Config{})
	got, err := readAll(t.Context(), c, proto.File{
		Path: "hf://datasets/o/n/f.jsonl",
		ETag: linkedPrefix + `"sha"`,
	})
	if err != nil || !bytes.Equal(got, text) || denied != 1 {
		t.Errorf("%d bytes, %v, %d denied", len(got), err, denied)
	}
}

func TestOpenEnds(t *testing.T) {
	s := serveText(t, testText())
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	ctx, cancel := context.WithCancel(t.Context())
	s.fault = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n < 2 {
			return false
		}

		cancel()
		select {
		case <-hang:
		case <-r.Context().Done():
		}

		return true
	}

	if _, err := readAll(ctx, newTestClient(t, Config{}), proto.File{Path: s.URL}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A run opens an image a row, and the client keeps nothing of it.
func TestOpenedFilesTakeNoMemory(t *testing.T) {
	s := serveText(t, []byte("image"))
	c := newTestClient(t, Config{})
	for i := range 10 {
		if _, err := readAll(t.Context(), c, proto.File{Path: fmt.Sprintf("%s/%d.png", s.URL, i)}); err != nil {
			t.Fatal(err)
		}
	}

	if len(c.versions) > 0 || len(c.signed) > 0 || len(c.stores) != 1 || s.requests.Load() != 10 {
		t.Errorf("%d versions, %d signed URLs, %d stores, %d requests", len(c.versions), len(c.signed), len(c.stores),
			s.requests.Load())
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, value := range []string{
		"bytes 0-9/100", "bytes */100", "bytes 0-9/*", "bytes 5-4/9", "bytes 0-9/9", "Bytes 0-0/1", "bytes -1-2/3",
		"bytes 9223372036854775807-9223372036854775807/9223372036854775808", "bytes", "none", "", "bytes  1 - 2 / 3 ",
		"lines 0-9/10", "bytes +1-2/3",
	} {
		f.Add(value, int64(1), int64(2), int64(3))
	}

	f.Fuzz(func(t *testing.T, value string, a, b, c int64) {
		first, size := parseContentRange(value)
		if first < -1 || size < -1 || first >= 0 && size >= 0 && first >= size {
			t.Fatalf("%q: first byte %d of %d", value, first, size)
		}

		if a < 0 || b < a || c <= b {
			return
		}
		for text, want := range map[string][2]int64{
			fmt.Sprintf("bytes %d-%d/%d", a, b, c): {a, c},
			fmt.Sprintf("bytes %d-%d/*", a, b):     {a, -1},
			fmt.Sprintf("bytes */%d", c):           {-1, c},
		} {
			if first, size := parseContentRange(text); first != want[0] || size != want[1] {
				t.Errorf("%q: %d, %d, want %v", text, first, size, want)
			}
		}
	})
}

func TestParseContentRange(t *testing.T) {
	for value, want := range map[string][2]int64{
		"bytes 0-9/100":  {0, 100},
		"Bytes 5-9/10":   {5, 10},
		"bytes 0-9/*":    {0, -1},
		"bytes */100":    {-1, 100},
		"bytes 5-4/9":    {-1, -1},
		"bytes 0-9/9":    {-1, -1},
		"bytes 0-/9":     {-1, -1},
		"bytes -1-2/3":   {-1, 3},
		"bytes +1-2/3":   {-1, 3},
		"lines 0-9/100":  {-1, -1},
		"bytes=0-9/100":  {-1, -1},
		"none":           {-1, -1},
		"":               {-1, -1},
		"bytes 0-1/1e20": {0, -1},
	} {
		if first, size := parseContentRange(value); first != want[0] || size != want[1] {
			t.Errorf("%q: %d, %d, want %v", value, first, size, want)
		}
	}
}
