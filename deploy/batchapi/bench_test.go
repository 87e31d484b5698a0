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
		form, err := openForm(&http.Request{Header: header, Body: io.NopCloser(strings.NewReader(body))}, "file", "purpose")
		if err != nil {
			b.Fatal(err)
		}
		part, err := form.nextFile()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{part}, make([]byte, 256<<10)); err != nil {
			b.Fatal(err)
		}
		if err := form.finish(); err != nil {
			b.Fatal(err)
		}
	}
}
