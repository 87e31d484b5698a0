package objectstore

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
	"github.com/promptmill/promptmill/proto"
)

// wrongAnswer is an answer of a server to a request for a part of a file.
type wrongAnswer struct {
	name string
	// answer answers a request for the bytes from first on of a text.
	answer func(w http.ResponseWriter, text []byte, first int)
	// read and readAt are parts of the errors of reading on and of reading a part. Empty: none.
	read, readAt string
}

// answerPart answers with the bytes of a text from an offset on, and with a header Content-Range.
func answerPart(w http.ResponseWriter, text []byte, contentRange string) {
	if contentRange != "" {
		w.Header().Set("Content-Range", contentRange)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(text)
}

// wrongAnswers are answers that have other bytes than the request asks for, or that do not show
// which they have.
var wrongAnswers = []wrongAnswer{
	{"200 with the whole file", func(w http.ResponseWriter, text []byte, _ int) {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		w.Write(text)
	}, "", "cannot send a part of a file"},
	{"200 without a length", func(w http.ResponseWriter, text []byte, _ int) {
		w.(http.Flusher).Flush()
		w.Write(text)
	}, "does not say how large the file is", "does not say how large the file is"},
	{"another first byte", func(w http.ResponseWriter, text []byte, _ int) {
		answerPart(w, text, fmt.Sprintf("bytes 0-%d/%d", len(text)-1, len(text)))
	}, `with the range "bytes 0-`, `with the range "bytes 0-`},
	{"a size that is not known", func(w http.ResponseWriter, text []byte, first int) {
		answerPart(w, text[first:], fmt.Sprintf("bytes %d-%d/*", first, len(text)-1))
	}, `/*"`, `/*"`},
	{"a range that is not known", func(w http.ResponseWriter, text []byte, _ int) {
		answerPart(w, text, fmt.Sprintf("bytes */%d", len(text)))
	}, `with the range "bytes */`, `with the range "bytes */`},
	{"no range", func(w http.ResponseWriter, text []byte, _ int) {
		answerPart(w, text, "")
	}, `with the range "none"`, `with the range "none"`},
	{"several ranges", func(w http.ResponseWriter, text []byte, _ int) {
		w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
		answerPart(w, append([]byte("--x\r\n"), text...), "")
	}, `with the range "none"`, `with the range "none"`},
}

// wrongStores are the URLs of the file of a server, by the scheme.
func wrongStores(t *testing.T, server string) map[string]string {
	t.Helper()

	storetest.SetCredentials(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", server)
	t.Setenv("STORAGE_EMULATOR_HOST", server)
	t.Setenv("HF_ENDPOINT", server)

	return map[string]string{
		"http": server + "/f.jsonl",
		"s3":   "s3://bucket/f.jsonl",
		"gs":   "gs://bucket/f.jsonl",
		"hf":   "hf://datasets/o/n/f.jsonl",
	}
}

// A server answers the request for the beginning rightly, and later ones wrongly: the bytes that
// are read are right, or none are.
func TestWrongAnswersToLaterParts(t *testing.T) {
	text := testText()
	for _, tt := range wrongAnswers {
		s := serveText(t, text)
		s.header.Set("X-Goog-Generation", "7")
		s.header.Set("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
		s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			var first int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
			if first == 0 {
				return false
			}
			tt.answer(w, text, first)
			return true
		}

		for scheme, address := range wrongStores(t, s.URL) {
			t.Run(tt.name+", "+scheme, func(t *testing.T) {
				f, err := newTestClient(t, Config{}).Open(t.Context(), proto.File{Path: address})
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()

				p := make([]byte, 100)
				n, err := f.ReadAt(p, 2*headSize)
				checkWrong(t, "ReadAt", n, err, tt.readAt)

				got, err := io.ReadAll(f)
				if tt.read == "" && !bytes.Equal(got, text) || !bytes.HasPrefix(text, got) {
					t.Errorf("Read: %d bytes, which are wrong", len(got))
				}
				checkWrong(t, "Read", len(got)-headSize, err, tt.read)
			})
		}
	}
}

// checkWrong checks that a method has read nothing, and that its error has a text. Empty: there is
// no error.
func checkWrong(t *testing.T, method string, n int, err error, want string) {
	t.Helper()

	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", method, err)
	case want != "" && (n > 0 || exit.Code(err) != exit.CodeUsage || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %d bytes, %v; want %q", method, n, err, want)
	}
}

// A server answers the request for the beginning wrongly.
func TestWrongAnswersToFirstPart(t *testing.T) {
	text := testText()
	for _, tt := range []struct {
		name string
		// header and status are those of the answer, which has all the text.
		header http.Header
		status int
		want   string
	}{
		{"no length", http.Header{}, 200, "does not say how large the file is"},
		{"a size that is not known", http.Header{"Content-Range": {"bytes 0-9/*"}}, 206, `the range "bytes 0-9/*"`},
		{"a later byte", http.Header{"Content-Range": {"bytes 5-9/100"}}, 206, `the range "bytes 5-9/100"`},
		{"a range behind the end", http.Header{"Content-Range": {"bytes 0-100/100"}}, 206, `the range "bytes 0-100/100"`},
		{"no range", http.Header{}, 206, `the range "none"`},
		{"another unit", http.Header{"Content-Range": {"lines 0-9/100"}}, 206, `the range "lines 0-9/100"`},
	} {
		s := serveText(t, text)
		s.header.Set("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
		s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			for name, values := range tt.header {
				w.Header()[name] = values
			}
			w.WriteHeader(tt.status)
			w.(http.Flusher).Flush()
			w.Write(text)
			return true
		}

		for scheme, address := range wrongStores(t, s.URL) {
			t.Run(tt.name+", "+scheme, func(t *testing.T) {
				got, err := readAll(t.Context(), newTestClient(t, Config{}), proto.File{Path: address})
				checkWrong(t, "Open", len(got), err, tt.want)
			})
		}
	}
}

// A store of S3 that says neither the size of an object nor sends a part of it.
func TestWrongAnswersOfS3WithoutSize(t *testing.T) {
	s := serveText(t, nil)
	s.header.Set("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
	address := wrongStores(t, s.URL)["s3"]
	for size, want := range map[string]int{"": exit.CodeUnreachable, "9": exit.CodeUnreachable, "0": exit.CodeOK} {
		s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Method == http.MethodGet {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			} else if size != "" {
				w.Header().Set("Content-Length", size)
			} else {
				w.(http.Flusher).Flush()
			}
			return true
		}

		got, err := readAll(t.Context(), newTestClient(t, Config{}), proto.File{Path: address})
		if len(got) > 0 || exit.Code(err) != want {
			t.Errorf("size %q: %q, %v; want code %d", size, got, err, want)
		}
	}
}

// The headers of an answer of S3 do not describe an object.
func TestWrongHeadersOfS3(t *testing.T) {
	s := serveText(t, testText())
	s.header.Set("Last-Modified", "yesterday")
	_, err := readAll(t.Context(), newTestClient(t, Config{}), proto.File{Path: wrongStores(t, s.URL)["s3"]})
	checkWrong(t, "Open", 0, err, "the headers of the answer do not describe an object")
}
