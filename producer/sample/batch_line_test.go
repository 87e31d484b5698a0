package sample

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/producer/inputfile"
	"github.com/promptmill/promptmill/proto"
)

// Each line that is a request becomes a line of a batch which is the same request: with the same name, endpoint and
// body, be the model filled in or replaced.
func FuzzBatchLine(f *testing.F) {
	f.Add(`{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]}}`)
	f.Add(`{"custom_id":"\u0061\"b","messages":[{"content":"\ud83d\\"}],"model":null}`)
	f.Add(`{"prompt":"x","body":null,"url":null,"n":1e400}`)
	f.Add(`{ "body" : { "input" : "\u2028", "custom_id":1 } , "url":"https://h/openai/deployments/d/embeddings?v=1" , "x":{}}` +
		"\r")
	f.Fuzz(func(t *testing.T, text string) {
		if bytes.ContainsRune([]byte(text), '\n') {
			return
		}

		for _, s := range []proto.Settings{{Model: "filled in"}, {OverrideModel: "replaced"}} {
			parser, err := producer.NewParser(s)
			if err != nil {
				t.Fatal(err)
			}

			want, _, lineErr := parser.Parse([]byte(text))
			if lineErr != nil {
				continue
			}

			want.Body = bytes.Clone(want.Body)
			if want.CustomID == nil {
				want.CustomID = []byte(`"request-1"`)
			}
			want.CustomID = bytes.Clone(want.CustomID)

			line := drawLine(t, text)
			if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
				t.Fatalf("%q is not one line", line)
			}

			got, _, lineErr := parser.Parse(bytes.TrimSuffix(line, []byte("\n")))
			if lineErr != nil {
				t.Fatalf("%q is refused: %v", line, lineErr)
			}

			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the request is another one (-want +got):\n%s", diff)
			}
		}
	})
}

// drawLine returns the line of a sample of one line, which is a request.
func drawLine(t *testing.T, text string) []byte {
	t.Helper()

	var lines bytes.Buffer
	cfg := Config{
		Source: producer.Source{Files: []string{"in"}, Opener: memory(text)},
		Size:   1,
		Folder: t.TempDir(),
	}
	if _, err := Draw(t.Context(), cfg, &lines, nil); err != nil {
		t.Fatalf("%q: %v", text, err)
	}

	return lines.Bytes()
}

// memory is an opener of one file in memory.
type memory string

// Stat implements inputfile.Opener.
func (m memory) Stat(_ context.Context, path string) (proto.File, error) {
	return proto.File{Path: path, Bytes: int64(len(m))}, nil
}

// Open implements inputfile.Opener.
func (m memory) Open(context.Context, proto.File) (inputfile.File, error) {
	return memoryFile{bytes.NewReader([]byte(m))}, nil
}

// memoryFile is a file in memory.
type memoryFile struct{ *bytes.Reader }

// Close implements io.Closer.
func (memoryFile) Close() error { return nil }
