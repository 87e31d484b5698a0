package http1

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

func TestReadBodyHasABound(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		length int64
		body   string
		good   bool
	}{
		{"with a length, short enough", 4, "1234", true},
		{"with a length, too long", 5, "12345", false},
		{"without a length, short enough", -1, "1234", true},
		{"without a length, too long", -1, "12345", false},
	} {
		res := &http.Response{ContentLength: tt.length, Body: io.NopCloser(bytes.NewReader([]byte(tt.body)))}
		if body, err := ReadBody(res, 4); (err == nil) != tt.good || tt.good && string(body) != tt.body {
			t.Errorf("%s: %q, %v", tt.name, body, err)
		}
	}
}
