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
		`{"schema":5,"run":"r","state":"in_progress"}`,
		`{"run":"r","state":"in_progress"}`,
	} {
		_, err := ParseManifest("r", []byte(text))
		if !errors.Is(err, ErrFormat) ||
			!strings.Contains(err.Error(), "another version of promptmill made the run (schema ") {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

// A program of the version before encodings reads schema 3 alone, and must not take shards that it
// cannot read.
func TestSchemaOfShardEncoding(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		text string
		want string // of the error
	}{
		{`{"schema":3,"run":"r","state":"in_progress","settings":{}}`, ""},
		{`{"schema":3,"run":"r","state":"in_progress","settings":{"shard_encoding":"snappy"}}`, ""},
		{`{"schema":4,"run":"r","state":"in_progress","settings":{}}`, ""},
		{`{"schema":4,"run":"r","state":"in_progress","settings":{"shard_encoding":"zstd"}}`, ""},
		{`{"schema":4,"run":"r","state":"in_progress","settings":{"shard_encoding":"none"}}`, ""},
		{`{"schema":3,"run":"r","state":"in_progress","settings":{"shard_encoding":"zstd"}}`,
			"manifest of run r: schema: 3 has no settings.shard_encoding"},
		{`{"schema":4,"run":"r","state":"in_progress","settings":{"shard_encoding":"brotli"}}`,
			`manifest of run r: settings.shard_encoding: "brotli" is no encoding that this program reads`},
	} {
		_, err := ParseManifest("r", []byte(tt.text))
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrFormat) || err.Error() != tt.want) {
			t.Errorf("%s: error %v, want %q", tt.text, err, tt.want)
		}
	}

	for encoding, want := range map[Encoding]int{"": 3, Snappy: 3, Zstd: 4, Plain: 4} {
		if got := SchemaFor(Settings{ShardEncoding: encoding}); got != want {
			t.Errorf("schema for %q is %d, want %d", encoding, got, want)
		}
	}
}
