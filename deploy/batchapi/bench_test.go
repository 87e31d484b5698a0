package batchapi

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkForm reads the file of a form.
func BenchmarkForm(b *testing.B) {
	header, body := formOf(formPart{name: "purpose", value: "batch"}, formPart{"file", "a", strings.Repeat("a line\n", 1<<20)})
	b.SetBytes(int64(len(body)))

	for b.Loop() {
		r := &http.Request{Header: header, Body: io.NopCloser(strings.NewReader(body))}
		form, err := openForm(r, "file", "purpose")
		if err != nil {
			b.Fatal(err)
		}
		part, err := form.nextFile()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, bodyReader{part}); err != nil {
			b.Fatal(err)
		}
		if err := form.finish(); err != nil {
			b.Fatal(err)
		}
	}
}
