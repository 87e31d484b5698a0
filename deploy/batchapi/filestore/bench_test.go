package filestore

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

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
				body := io.MultiReader(bytes.NewReader(head.Bytes()), newPattern(gigabyte), bytes.NewReader([]byte(tail)))
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
