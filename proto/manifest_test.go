package proto

import (
	"errors"
	"strings"
	"testing"
)

func TestParseManifestOfAnotherSchema(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		`{"schema":2,"run":"r","state":"in_progress","terms":{"keep_seconds":1}}`,
		`{"schema":4,"run":"r","state":"in_progress"}`,
		`{"run":"r","state":"in_progress"}`,
	} {
		_, err := ParseManifest("r", []byte(text))
		if !errors.Is(err, ErrFormat) ||
			!strings.Contains(err.Error(), "another version of promptmill made the run (schema ") {
			t.Errorf("%s: error %v", text, err)
		}
	}
}
