package modelserver

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// encodeBody encodes a text in a content coding.
func encodeBody(t testing.TB, coding string, text []byte) []byte {
	t.Helper()

	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "zstd":
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		return text
	}

	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.Bytes()
}

// The requests ask for no content coding, and some servers use one all the same.
func TestContentCodings(t *testing.T) {
	t.Parallel()

	text := []byte(strings.Repeat(`{"a":1}`, 100))
	for _, tt := range []struct {
		name, header string
		body         []byte
		status       int
		want         string // of the body
		bad          string // part of the error
	}{
		{"gzip", "gzip", encodeBody(t, "gzip", text), 200, string(text), ""},
		{"x-gzip", "X-GZIP", encodeBody(t, "gzip", text), 200, string(text), ""},
		{"deflate", "deflate", encodeBody(t, "deflate", text), 200, string(text), ""},
		{"zstd", "zstd", encodeBody(t, "zstd", text), 200, string(text), ""},
		{"identity", "identity", text, 200, string(text), ""},
		{"two", "deflate, gzip", encodeBody(t, "gzip", encodeBody(t, "deflate", text)), 200, string(text), ""},
		{"an error", "gzip", encodeBody(t, "gzip", text), 400, string(text), ""},
		{"nothing in it", "gzip", nil, 200, "", ""},
		{"br", "br", text, 200, "", `content coding "br"`},
		{"br and gzip", "br, gzip", encodeBody(t, "gzip", text), 200, "", `content coding "br"`},
		{"an error in br", "br", text, 400,
			`the answer cannot be unpacked: it has the content coding "br", which was not asked for`, ""},
		{"not gzip", "gzip", text, 200, "", "should be gzip"},
		{"gzip cut", "gzip", encodeBody(t, "gzip", text)[:20], 200, "", "should be gzip"},
		{"zstd cut", "zstd", encodeBody(t, "zstd", text)[:15], 200, "", "should be zstd"},
	} {
		s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", tt.header)
			w.WriteHeader(tt.status)
			w.Write(tt.body)
		}))
		for _, s := range []*Server{s, withoutHTTP1(s)} {
			a := s.Post(t.Context(), "/", []byte("{}"))
			if tt.bad != "" {
				if !errors.Is(a.Err, ErrCoding) || !strings.Contains(a.Err.Error(), tt.bad) {
					t.Errorf("%s: error %v", tt.name, a.Err)
				}
				continue
			}

			if a.Err != nil || a.Status != tt.status || string(a.Body) != tt.want {
				t.Errorf("%s: status %d, body %q, %v", tt.name, a.Status, a.Body, a.Err)
			}
		}
	}
}

func TestCodingsHaveABound(t *testing.T) {
	t.Parallel()

	for _, coding := range []string{"gzip", "deflate", "zstd"} {
		a := Answer{
			Status: 200,
			Header: http.Header{"Content-Encoding": {coding}},
			Body:   encodeBody(t, coding, make([]byte, 1001)),
		}
		if a.decodeBody(1000); !errors.Is(a.Err, ErrTooLong) {
			t.Errorf("%s: %v", coding, a.Err)
		}
	}
}

// A body that is long when it is decoded comes whole; one that is too long takes no memory.
func TestLongPackedAnswers(t *testing.T) {
	const most = 64 << 20
	long := bytes.Repeat([]byte("0123456789abcdef"), 10<<16)
	for _, coding := range []string{"gzip", "deflate", "zstd"} {
		text, err := decodeCoding(coding, encodeBody(t, coding, long), most)
		if err != nil || !bytes.Equal(text, long) {
			t.Errorf("%s: %d bytes, %v", coding, len(text), err)
		}

		bomb := encodeBody(t, coding, make([]byte, most+1))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = decodeCoding(coding, bomb, most)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrTooLong) || took > most/2 {
			t.Errorf("%s: %v, with %d bytes of memory", coding, err, took)
		}
	}
}

// The list of models may be encoded as well.
func TestProbeWithAPackedList(t *testing.T) {
	t.Parallel()

	s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/models" {
			w.WriteHeader(404)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(encodeBody(t, "gzip", []byte(otherModels)))
	}))

	info, err := s.Probe(t.Context())
	if err != nil || len(info.Models) != 1 {
		t.Errorf("%v, %v", info.Models, err)
	}
}

func FuzzDecodeCoding(f *testing.F) {
	for _, coding := range []string{"gzip", "deflate", "zstd", "br"} {
		f.Add(coding, encodeBody(f, coding, []byte(`{"a":1}`)))
	}

	f.Fuzz(func(t *testing.T, coding string, body []byte) {
		if text, err := decodeCoding(coding, body, 1<<20); err == nil && len(text) > 1<<20 && coding != "" &&
			coding != "identity" {
			t.Errorf("%s: %d bytes", coding, len(text))
		}
	})
}
