package objectstore

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
)

// fakeGCS has the upload of the JSON API for one object, as Google documents it.
type fakeGCS struct {
	// keep returns how many bytes of a part are kept. Nil: all.
	keep func(part, length int) int
	// gone reports that the upload is forgotten at a part. Nil: never.
	gone func(part int) bool

	// mu guards the fields below.
	mu       sync.Mutex
	has      []byte
	size     int64
	object   gcsObject
	sessions int
	parts    int
	ranges   []string
}

// ServeHTTP implements http.Handler.
func (g *fakeGCS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()

	switch r.Method {
	case http.MethodPost:
		_ = json.NewDecoder(r.Body).Decode(&g.object) // the test compares it
		g.size, _ = strconv.ParseInt(r.Header.Get("X-Upload-Content-Length"), 10, 64)
		g.sessions++
		g.has = nil
		w.Header().Set("Location", "http://"+r.Host+"/session")
	case http.MethodPut:
		g.put(w, r)
	}
}

// put takes a part, or a question.
func (g *fakeGCS) put(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}

	g.ranges = append(g.ranges, r.Header.Get("Content-Range"))
	if len(text) > 0 {
		g.parts++
		if g.gone != nil && g.gone(g.parts) {
			w.WriteHeader(http.StatusGone)
			return
		}

		var first, last, size int64
		_, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size)
		if err != nil || first != int64(len(g.has)) || last-first+1 != int64(len(text)) || size != g.size {
			w.WriteHeader(http.StatusBadRequest)
			return
		}

		if g.keep != nil {
			text = text[:g.keep(g.parts, len(text))]
		}
		g.has = append(g.has, text...)
	}

	// With all bytes, the object is made when the size is asked for or sent.
	if int64(len(g.has)) < g.size || g.keep != nil && len(text) > 0 {
		if len(g.has) > 0 {
			w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(g.has)-1))
		}
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	}

	sum := crc32.Checksum(g.has, crc32.MakeTable(crc32.Castagnoli))
	_ = json.NewEncoder(w).Encode(gcsObject{
		Name:   g.object.Name,
		Size:   strconv.Itoa(len(g.has)),
		CRC32C: base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)),
	})
}

// uploadToGCS uploads 40 MiB to a fake server.
func uploadToGCS(t *testing.T, g *fakeGCS) (text []byte, err error) {
	t.Helper()

	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", server.URL)

	bucket, key, err := newTestClient(t, Config{}).OpenBucket(t.Context(), "gs://bucket/a")
	if err != nil {
		t.Fatal(err)
	}

	text = bytes.Repeat([]byte("promptmill\n"), 40<<20/11)

	return text, bucket.Upload(t.Context(), key, bytes.NewReader(text), int64(len(text)), nil)
}

// TestGCSUploadWithoutProgress pins the end of an upload whose store keeps nothing: Google answers
// 308 without a range then.
func TestGCSUploadWithoutProgress(t *testing.T) {
	for name, keep := range map[string]func(part, length int) int{
		"nothing": func(int, int) int { return 0 },
		"a part":  func(part, length int) int { return length * min(1, 2/(part+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			g := &fakeGCS{keep: keep}
			_, err := uploadToGCS(t, g)
			if exit.Code(err) != exit.CodeUnreachable || !strings.Contains(err.Error(), "takes no more, in 10 attempts") {
				t.Errorf("Upload: %v", err)
			}

			if g.parts > 11 {
				t.Errorf("%d parts were sent: %q", g.parts, g.ranges[:12])
			}
		})
	}
}

// TestGCSUploadOfKeptBytes pins the range that asks for the object when the store has all bytes.
func TestGCSUploadOfKeptBytes(t *testing.T) {
	g := &fakeGCS{keep: func(_, length int) int { return length }}
	text, err := uploadToGCS(t, g)
	if err != nil || !bytes.Equal(g.has, text) {
		t.Fatalf("Upload: the store has %d bytes of %d: %v", len(g.has), len(text), err)
	}

	size := len(text)
	want := []string{
		fmt.Sprintf("bytes 0-%d/%d", 16<<20-1, size),
		fmt.Sprintf("bytes %d-%d/%d", 16<<20, 32<<20-1, size),
		fmt.Sprintf("bytes %d-%d/%d", 32<<20, size-1, size),
		fmt.Sprintf("bytes */%d", size),
	}
	if !slices.Equal(g.ranges, want) {
		t.Errorf("the ranges are %q, want %q", g.ranges, want)
	}
}

// TestGCSUploadForgotten begins an upload again that the store has forgotten, and gives up if the
// store forgets each one.
func TestGCSUploadForgotten(t *testing.T) {
	g := &fakeGCS{gone: func(part int) bool { return part == 2 }}
	text, err := uploadToGCS(t, g)
	if err != nil || !bytes.Equal(g.has, text) || g.sessions != 2 {
		t.Errorf("Upload: the store has %d bytes of %d after %d sessions: %v", len(g.has), len(text), g.sessions, err)
	}

	g = &fakeGCS{gone: func(part int) bool { return part%2 == 0 }}
	if _, err = uploadToGCS(t, g); exit.Code(err) != exit.CodeUnreachable || g.sessions != maxSessions {
		t.Errorf("Upload: %d sessions: %v", g.sessions, err)
	}
}

// TestGCSCreate asks Google Cloud Storage to refuse an object whose key is taken.
func TestGCSCreate(t *testing.T) {
	var queries []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			queries = append(queries, r.URL.Query().Get("ifGenerationMatch"))
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		_, _ = io.WriteString(w, `{"name":"a","size":"4","metadata":{"promptmill-run":"r1"}}`)
	}))
	t.Cleanup(server.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", server.URL)

	bucket, key, err := newTestClient(t, Config{}).OpenBucket(t.Context(), "gs://bucket/a")
	if err != nil {
		t.Fatal(err)
	}

	for run, want := range map[string]error{"r1": nil, "r2": fs.ErrExist} {
		err := bucket.Create(t.Context(), key, strings.NewReader("text"), 4, map[string]string{"promptmill-run": run})
		if !errors.Is(err, want) {
			t.Errorf("Create of run %s: %v, want %v", run, err, want)
		}
	}

	if !slices.Equal(queries, []string{"0", "0"}) {
		t.Errorf("the generations are %q", queries)
	}
}

// TestS3CreateWithoutConditions writes the object to a server that knows no conditions.
func TestS3CreateWithoutConditions(t *testing.T) {
	var conditions []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conditions = append(conditions, r.Header.Get("If-None-Match"))
		if len(conditions) == 1 {
			storetest.AnswerError(w, http.StatusNotImplemented, "NotImplemented")
		}
	}))
	t.Cleanup(server.Close)
	storetest.SetCredentials(t)
	t.Setenv("AWS_REGION", "us-east-1")

	bucket, key, err := newTestClient(t, Config{S3Endpoint: server.URL}).OpenBucket(t.Context(), "s3://bucket/a")
	if err != nil {
		t.Fatal(err)
	}

	if err := bucket.Create(t.Context(), key, strings.NewReader("text"), 4, nil); err != nil {
		t.Error(err)
	}

	if !slices.Equal(conditions, []string{"*", ""}) {
		t.Errorf("the conditions are %q", conditions)
	}
}

// fakeS3 has a multipart upload of one object, which it forgets when it is complete.
type fakeS3 struct {
	// failChecks is the number of questions for the complete object that are answered with 503.
	failChecks int
	// loseAnswer cuts the connection in place of the answer to the completion.
	loseAnswer bool
	// found is the metadata of the object, in place of the metadata of the upload.
	found map[string]string

	// mu guards the fields below.
	mu        sync.Mutex
	parts     map[int]int64
	metadata  map[string]string
	complete  int
	whole     bool
	discarded bool
}

// ServeHTTP implements http.Handler.
func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()

	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && query.Has("uploads"):
		f.parts, f.metadata = map[int]int64{}, map[string]string{}
		for name := range r.Header {
			if key, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-"); ok {
				f.metadata[key] = r.Header.Get(name)
			}
		}
		_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
	case r.Method == http.MethodPut:
		number, _ := strconv.Atoi(query.Get("partNumber"))
		_, _ = io.Copy(io.Discard, r.Body)
		// The body is signed in chunks; this is its size without their frames.
		f.parts[number], _ = strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if f.parts[number] == 0 {
			f.parts[number] = r.ContentLength
		}
		w.Header().Set("ETag", `"of-kms"`)
	case r.Method == http.MethodPost:
		f.completeUpload(w)
	case r.Method == http.MethodDelete:
		f.discarded = true
		w.WriteHeader(http.StatusNoContent)
	case query.Has("uploads"):
		_, _ = io.WriteString(w, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
	default:
		f.describe(w)
	}
}

// completeUpload makes the object, and forgets the upload.
func (f *fakeS3) completeUpload(w http.ResponseWriter) {
	f.complete++
	if f.complete > 1 {
		storetest.AnswerError(w, http.StatusNotFound, "NoSuchUpload")
		return
	}

	f.whole = true
	if f.loseAnswer {
		panic(http.ErrAbortHandler)
	}

	_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>a</Key>`+
		`<ETag>"of-kms"</ETag></CompleteMultipartUploadResult>`)
}

// describe answers a question for the object.
func (f *fakeS3) describe(w http.ResponseWriter) {
	if f.failChecks > 0 {
		f.failChecks--
		storetest.AnswerError(w, http.StatusServiceUnavailable, "SlowDown")
		return
	}

	size := int64(0)
	for _, length := range f.parts {
		size += length
	}

	metadata := f.metadata
	if f.found != nil {
		metadata = f.found
	}
	for key, value := range metadata {
		w.Header().Set("X-Amz-Meta-"+key, value)
	}

	w.Header().Set("ETag", `"of-kms"`)
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", size))
	w.Header().Set("Content-Length", "1")
	w.WriteHeader(http.StatusPartialContent)
	_, _ = io.WriteString(w, "x")
}

// TestS3UploadComplete checks the object that the store has made, also when the first checks or
// the answer to the completion fail.
func TestS3UploadComplete(t *testing.T) {
	const sum = "promptmill-sha256"
	for name, test := range map[string]struct {
		store    *fakeS3
		complete int
		fails    string
	}{
		"checks fail":     {&fakeS3{failChecks: 2}, 1, ""},
		"answer lost":     {&fakeS3{loseAnswer: true}, 2, ""},
		"an older object": {&fakeS3{found: map[string]string{sum: "old"}}, 1, `the metadata promptmill-sha256="old"`},
		"older and lost": {
			&fakeS3{loseAnswer: true, found: map[string]string{sum: "old"}}, 2, "NoSuchUpload",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.store)
			t.Cleanup(server.Close)
			storetest.SetCredentials(t)
			t.Setenv("AWS_REGION", "us-east-1")

			client := newTestClient(t, Config{S3Endpoint: server.URL})
			bucket, key, err := client.OpenBucket(t.Context(), "s3://bucket/a")
			if err != nil {
				t.Fatal(err)
			}

			text := make([]byte, s3Part+1)
			metadata := map[string]string{sum: "new"}
			err = bucket.Upload(t.Context(), key, bytes.NewReader(text), int64(len(text)), metadata)
			if (err != nil) != (test.fails != "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("Upload: %v, want %q", err, test.fails)
			}

			if test.store.complete != test.complete || !test.store.whole || !maps.Equal(test.store.metadata, metadata) {
				t.Errorf("the store got %d completions, want %d, and the metadata %v", test.store.complete, test.complete,
					test.store.metadata)
			}

			if test.store.discarded != (test.fails != "") {
				t.Errorf("the upload was discarded: %v", test.store.discarded)
			}
		})
	}
}
