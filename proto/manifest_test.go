package proto

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestParseManifestOfAnotherSchema(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		`{"schema":2,"run":"r","state":"in_progress","terms":{"keep_seconds":1}}`,
		`{"schema":6,"run":"r","state":"in_progress"}`,
		`{"run":"r","state":"in_progress"}`,
	} {
		_, err := ParseManifest("r", []byte(text))
		if !errors.Is(err, ErrFormat) ||
			!strings.Contains(err.Error(), "another version of promptmill made the run (schema ") {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

// A program of the version before encodings reads schema 3 alone. It must not take shards that it
// cannot read, and must not publish an input for an endpoint that it does not see.
func TestSchemaOfSettings(t *testing.T) {
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
		{`{"schema":4,"run":"r","state":"in_progress","settings":{"endpoint":"/v1/embeddings"}}`, ""},
		{`{"schema":3,"run":"r","state":"in_progress","settings":{"endpoint":"/v1/embeddings"}}`,
			"manifest of run r: schema: 3 has no settings.endpoint"},
		{`{"schema":5,"run":"r","state":"in_progress","settings":{"rows":{"prompt":"{{.a}}"},"limit":1}}`, ""},
		{`{"schema":4,"run":"r","state":"in_progress","settings":{"rows":{"prompt":"{{.a}}"}}}`,
			"manifest of run r: schema: 4 has no settings.rows, settings.limit or settings.sample"},
		{`{"schema":3,"run":"r","state":"in_progress","settings":{"sample":2}}`,
			"manifest of run r: schema: 3 has no settings.rows, settings.limit or settings.sample"},
		{`{"schema":4,"run":"r","state":"in_progress","settings":{"endpoint":"/v1/files"}}`,
			`manifest of run r: settings.endpoint: "/v1/files" is none of ["/v1/chat/completions" "/v1/completions" ` +
				`"/v1/embeddings" "/v1/responses" "/v1/rerank" "/v1/score"]`},
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

	if got := SchemaFor(Settings{Endpoint: "/v1/embeddings"}); got != 4 {
		t.Errorf("schema for an endpoint is %d, want 4", got)
	}
}

func TestInputName(t *testing.T) {
	t.Parallel()

	for want, paths := range map[string][]string{
		"":           nil,
		"a.jsonl":    {"/in/a.jsonl"},
		"b.jsonl +2": {"/in/b.jsonl", "/in/a.jsonl", "c"},
	} {
		var in Input
		for _, p := range paths {
			in.Files = append(in.Files, File{Path: p})
		}

		if got := in.Name(); got != want {
			t.Errorf("the name of %q is %q, want %q", paths, got, want)
		}
	}
}

// The manifest has the most frequent causes, and no failed request is left out of the sum.
func TestTopFailures(t *testing.T) {
	t.Parallel()

	if got := TopFailures(nil); got != nil {
		t.Errorf("no failures are %v", got)
	}

	all := map[string]int64{}
	for i := range 10 {
		all[string(rune('a'+i))] = int64(100 - i)
	}

	if got := TopFailures(all); !maps.Equal(got, all) {
		t.Errorf("ten causes are %v", got)
	}

	all["k"], all["l"] = 1, 2
	want := maps.Clone(all)
	for _, code := range []string{"j", "k", "l"} {
		delete(want, code)
	}

	want[OtherFailures] = 91 + 1 + 2
	if got := TopFailures(all); !maps.Equal(got, want) {
		t.Errorf("twelve causes are %v, want %v", got, want)
	}
}

func TestParseManifestChecks(t *testing.T) {
	t.Parallel()

	for text, field := range map[string]string{
		`{"schema":3,"run":"r","state":"paused","label":"a\u0007"}`:          "label",
		`{"schema":3,"run":"r","state":"paused","failures":{"http_400":-1}}`: "failures",
	} {
		if _, err := ParseManifest("r", []byte(text)); ErrorField(err) != field {
			t.Errorf("%s: error %v, want one of %s", text, err, field)
		}
	}
}
