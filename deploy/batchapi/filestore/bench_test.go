package filestore

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// gigabyte is the size of the files of the benchmarks.
const gigabyte = 1 << 30

// newPattern returns a reader of n bytes that do not compress.
func newPattern(n int64) io.Reader {
	return io.LimitReader(&pattern{block: randomBytes(1 << 20)}, n)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// pattern repeats a block of bytes.
type pattern struct {
	block []byte
	at    int
}

func (p *pattern) Read(b []byte) (int, error) {
	n := copy(b, p.block[p.at:])
	p.at = (p.at + n) % len(p.block)
	return n, nil
}

func BenchmarkCreate(b *testing.B) {
	s, err := Open(b.TempDir(), zerolog.Nop())
	must(b, err)
	defer s.Close()

	b.SetBytes(gigabyte)
	for b.Loop() {
		f, err := s.Create(b.Context(), File{Purpose: PurposeBatch}, newPattern(gigabyte))
		must(b, err)
		must(b, s.Delete(f.ID))
	}
}

// BenchmarkUpload compares uploads over HTTP into the store with those into a file.
func BenchmarkUpload(b *testing.B) {
	copyToFile := func(sync bool) func(dir string, part io.Reader) error {
		return func(dir string, part io.Reader) error {
			file, err := os.Create(filepath.Join(dir, "file"))
			if err != nil {
				return err
			}
			defer file.Close()

			_, err = io.Copy(file, part)
			if err == nil && sync {
				err = file.Sync()
			}

			return err
		}
	}

	s, err := Open(b.TempDir(), zerolog.Nop())
	must(b, err)
	defer s.Close()

	for _, bb := range []struct {
		name  string
		store func(dir string, part io.Reader) error
	}{
		{"file", copyToFile(false)},
		{"synced file", copyToFile(true)},
		{"store", func(_ string, part io.Reader) error {
			p, err := s.Begin(context.Background(), part)
			if err != nil {
				return err
			}

			f, err := p.Commit(File{})
			defer s.Delete(f.ID)

			return err
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			dir := b.TempDir()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				parts, err := r.MultipartReader()
				if err == nil {
					var part *multipart.Part
					part, err = parts.NextPart()
					if err == nil {
						err = bb.store(dir, part)
					}
				}
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				}
			}))
			defer server.Close()

			var head bytes.Buffer
			form := multipart.NewWriter(&head)
			_, err := form.CreateFormFile("file", "in.jsonl")
			must(b, err)
			tail := "\r\n--" + form.Boundary() + "--\r\n"

			b.SetBytes(gigabyte)
			for b.Loop() {
				body := io.MultiReader(
					bytes.NewReader(head.Bytes()), newPattern(gigabyte), strings.NewReader(tail),
				)

				req, err := http.NewRequest(http.MethodPost, server.URL, body)
				must(b, err)
				req.ContentLength = int64(head.Len()) + gigabyte + int64(len(tail))
				req.Header.Set("Content-Type", form.FormDataContentType())
				res, err := http.DefaultClient.Do(req)
				must(b, err)
				text, err := io.ReadAll(res.Body)
				must(b, err)
				res.Body.Close()
				if res.StatusCode != http.StatusOK {
					b.Fatalf("%s", text)
				}
			}
		})
	}
}

// manyFiles is the number of files in the benchmarks of lookups.
const manyFiles = 100_000

// BenchmarkManyFiles measures a store with many files.
func BenchmarkManyFiles(b *testing.B) {
	dir := b.TempDir()
	must(b, os.MkdirAll(filepath.Join(dir, "files"), 0o700))
	ids := &idSource{now: time.Now}
	var last string
	for range manyFiles {
		rec := fileRecord{File: File{
			Owner:    "key",
			Filename: "in.jsonl",
			Purpose:  PurposeBatch,
			SHA256:   "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
		}}

		rec.ID, rec.CreatedAt = ids.next(filePrefix)
		last = rec.ID

		data, err := json.Marshal(rec)
		must(b, err)
		path := filepath.Join(dir, "files", rec.ID)
		must(b, os.WriteFile(path, nil, 0o600))
		must(b, os.WriteFile(path+recordSuffix, data, 0o600))
	}

	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(dir, zerolog.Nop())
			must(b, err)
			must(b, s.Close())
		}
	})

	s, err := Open(dir, zerolog.Nop())
	must(b, err)
	defer s.Close()

	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Get(last)
			must(b, err)
		}
	})

	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if n := len(s.List()); n < manyFiles {
				b.Fatal(n)
			}
		}
	})

	b.Run("usage", func(b *testing.B) {
		for b.Loop() {
			s.Usage()
		}
	})

	b.Run("create and delete", func(b *testing.B) {
		for b.Loop() {
			f, err := s.Create(b.Context(), File{}, strings.NewReader(""))
			must(b, err)
			must(b, s.Delete(f.ID))
		}
	})
}
