package objectstore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/promptmill/promptmill/deploy/objectstore/storetest"
)

// uploadFaults are faults of uploads.
type uploadFaults struct {
	// parts counts the requests that send a body of more than a kilobyte.
	parts atomic.Int64
	// received is the range that the store has of an upload to Google Cloud Storage.
	received atomic.Value
}

// startFaultProxy starts a proxy before a store, and returns its URL.
func startFaultProxy(t *testing.T, endpoint string) (*uploadFaults, string) {
	t.Helper()

	f := &uploadFaults{}
	proxy := storetest.StartProxy(t, endpoint)
	proxy.SetFault(f.apply)

	return f, proxy.URL
}

// apply throttles the first part, and cuts the connection of the third one.
func (f *uploadFaults) apply(w http.ResponseWriter, r storetest.Request) http.ResponseWriter {
	if r.Method == http.MethodPut && r.Length > 1024 {
		switch f.parts.Add(1) {
		case 1:
			storetest.AnswerError(w, http.StatusServiceUnavailable, "SlowDown")
			return nil
		case 3:
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20) // the connection breaks behind them
			panic(http.ErrAbortHandler)
		}
	}

	// fake-gcs-server takes the question for the offset for the end of the upload; Google
	// answers with what it has.
	if strings.HasPrefix(r.Header.Get("Content-Range"), "bytes */") {
		if has, _ := f.received.Load().(string); has != "" {
			w.Header().Set("Range", has)
		}
		w.WriteHeader(http.StatusPermanentRedirect)
		return nil
	}

	return storetest.ChangeAnswer(w, func(status int, header http.Header) int {
		if status == http.StatusPermanentRedirect {
			f.received.Store(header.Get("Range"))
		}
		return status
	})
}

// checkUpload uploads 40 MB through faults. Until it is whole nothing is visible, and then it
// is what was sent.
func checkUpload(t *testing.T, address string, faults *uploadFaults) {
	t.Helper()

	ctx := t.Context()
	client := New(Config{})
	bucket, key, err := client.OpenBucket(ctx, address)
	if err != nil {
		t.Fatal(err)
	}

	text := make([]byte, 40<<20)
	rand.NewChaCha8([32]byte{1}).Read(text) //nolint:errcheck // never fails

	var polling sync.WaitGroup
	done := make(chan struct{})
	var partial atomic.Int64
	polling.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}

			if o, err := bucket.Stat(ctx, key); err == nil && o.Size != int64(len(text)) {
				partial.Store(o.Size)
			}
		}
	})

	err = bucket.Upload(ctx, key, bytes.NewReader(text), int64(len(text)), map[string]string{"promptmill-run": "r1"})
	close(done)
	polling.Wait()
	if err != nil {
		t.Fatal(err)
	}

	if partial.Load() != 0 {
		t.Errorf("%d bytes were visible before the object was whole", partial.Load())
	}

	if n := faults.parts.Load(); n < 5 {
		t.Errorf("the store got %d parts: the faults were not injected", n)
	}

	o, err := bucket.Stat(ctx, key)
	if err != nil || o.Size != int64(len(text)) || o.Metadata["promptmill-run"] != "r1" {
		t.Errorf("Stat: %+v, %v", o, err)
	}

	body, err := bucket.Open(ctx, key)
	if err != nil {
		t.Fatal(err)
	}

	got, err := io.ReadAll(body)
	body.Close()
	if err != nil || sha256.Sum256(got) != sha256.Sum256(text) {
		t.Errorf("other %d bytes come back: %v", len(got), err)
	}

	list, err := bucket.List(ctx, key[:len(key)-4])
	if err != nil || len(list) != 1 || list[0].Key != key {
		t.Errorf("List: %v, %v", list, err)
	}

	for range 2 {
		if err := bucket.Delete(ctx, key); err != nil {
			t.Error(err)
		}
	}

	if _, err := bucket.Stat(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of a deleted object: %v", err)
	}
}

// checkCreate creates an object of a size once, and keeps it. The same object again is no error: the
// answer to the first attempt may have been lost.
func checkCreate(t *testing.T, bucket *Bucket, size int64) {
	t.Helper()

	ctx, text, key := t.Context(), bytes.NewReader(make([]byte, size)), fmt.Sprintf("created/%d", size)
	for i, run := range []string{"r1", "r1", "r2"} {
		err := bucket.Create(ctx, key, text, size, map[string]string{"promptmill-run": run})
		if (err == nil) != (run == "r1") || err != nil && !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create %d of %d bytes: %v", i+1, size, err)
		}
	}

	if o, err := bucket.Stat(ctx, key); err != nil || o.Size != size || o.Metadata["promptmill-run"] != "r1" {
		t.Errorf("Stat: %+v, %v", o, err)
	}

	if err := bucket.Delete(ctx, key); err != nil {
		t.Error(err)
	}
}

func TestUploadS3(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}

	storetest.SetCredentials(t)

	faults, address := startFaultProxy(t, storetest.StartVersity(t, dir))
	t.Setenv("AWS_ENDPOINT_URL_S3", address)
	checkUpload(t, "s3://bucket/dir/a b%2B.bin", faults)

	client := New(Config{})
	bucket, _, err := client.OpenBucket(t.Context(), "s3://bucket/x")
	if err != nil {
		t.Fatal(err)
	}

	checkCreate(t, bucket, 1000)
	checkCreate(t, bucket, s3Part+1)

	// An upload that a dead process has left is discarded, of the chosen keys alone.
	s := bucket.store.(*s3Store)
	for _, key := range []string{"ours.a", "ours.b"} {
		upload := &s3Upload{store: s, newObject: newObject{key: key}}
		upload.id, err = s.client.NewMultipartUpload(t.Context(), s.bucket, key, putOptions(nil))
		if err != nil {
			t.Fatal(err)
		}
	}

	if err := bucket.AbortUploads(t.Context(), "ours.", func(key string) bool { return key == "ours.a" }); err != nil {
		t.Fatal(err)
	}

	left, err := s.client.ListMultipartUploads(t.Context(), s.bucket, "", "", "", "", 100)
	if err != nil || len(left.Uploads) != 1 || left.Uploads[0].Key != "ours.b" {
		t.Errorf("the uploads %+v are left: %v", left.Uploads, err)
	}
}

func TestUploadGCS(t *testing.T) {
	endpoint := storetest.StartGCS(t)
	storetest.CreateGCSBucket(t, endpoint, "bucket", nil)

	faults, address := startFaultProxy(t, endpoint)
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	checkUpload(t, "gs://bucket/dir/a.bin", faults)
}
