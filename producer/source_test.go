package producer

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
)

// readTable returns the rows of a run's table as text.
func readTable(t *testing.T, source Source, m proto.Manifest) (rows []string) {
	t.Helper()

	r, err := NewRowReader(t.Context(), source, m)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}

		var cells []string
		for i, c := range row.Columns {
			cells = append(cells, c.Name+"="+string(row.Values[i].AppendText(nil)))
		}
		rows = append(rows, strings.Join(cells, " "))
	}
}

// A copy of a file under any name, in any folder, is the table that validation has found.
func TestTableOfCopies(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, text, prompt string
		file               proto.File
		want               []string
	}{
		{"sp.csv", "a b\nx\n", `{{index . "a b"}}`, proto.File{Format: proto.FormatCSV, Delimiter: ","}, []string{"a b=x"}},
		{"sp.tsv", "a b\nx, y\n", `{{index . "a b"}}`, proto.File{Format: proto.FormatTSV, Delimiter: "\t"}, []string{"a b=x, y"}},
		{"lang=de/in", "id;text\n1;x\n", "{{.lang}} {{.text}}", proto.File{Format: proto.FormatCSV, Delimiter: ";"},
			[]string{"id=1 text=x lang=de"}},
		{"lang=de/in.txt", "one line\n", "{{.lang}} {{.text}}", proto.File{Format: proto.FormatText},
			[]string{"text=one line lang=de"}},
		{"in.csv", `{"text":"x"}`, "{{.text}}", proto.File{Format: proto.FormatJSONL}, []string{"text=x"}},
		{"in", `[{"text":"x"}]`, "{{.text}}", proto.File{Format: proto.FormatJSON}, []string{"text=x"}},
	} {
		t.Run(strings.ReplaceAll(tt.name, "=", "-"), func(t *testing.T) { // its folder has the name
			t.Parallel()

			dir := t.TempDir()
			path := filepath.Join(dir, tt.name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}

			s := proto.Settings{Model: "m", Rows: &proto.Rows{Prompt: tt.prompt}}
			in, report, err := Validate(t.Context(), Source{Files: []string{path}}, s, nil)
			if err != nil || report.Count > 0 {
				t.Fatalf("%v, %+v", err, report)
			}

			found := in.Files[0]
			found = proto.File{Format: found.Format, Delimiter: found.Delimiter, TextBytes: found.TextBytes}
			tt.file.TextBytes = int64(len(tt.text))
			if diff := cmp.Diff(tt.file, found); diff != "" {
				t.Errorf("validation notes (-want +got):\n%s", diff)
			}

			// With two moves, as of a run that is resumed, and a copy in a folder with columns of its own.
			in.Files[0].Move(filepath.Join(dir, "lang=xx", "first.parquet"))
			in.Files[0].Move(filepath.Join(dir, "lang=yy", "second.tsv"))
			for _, name := range []string{"input-0", "moved.tsv", "moved.csv", "lang=fr/x=y.csv"} {
				other := filepath.Join(dir, "copies", name)
				if err := os.MkdirAll(filepath.Dir(other), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(other, []byte(tt.text), 0o644); err != nil {
					t.Fatal(err)
				}

				source := SourceOf(in, []string{other}, nil)
				m := proto.Manifest{Input: in, Settings: s}
				if err := CheckInput(t.Context(), in, s, source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if diff := cmp.Diff(tt.want, readTable(t, source, m)); diff != "" {
					t.Errorf("%s has other rows (-want +got):\n%s", name, diff)
				}

				r, err := NewRunReader(t.Context(), source, m)
				if err != nil {
					t.Fatal(err)
				}

				var digest proto.Digest
				item, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				if digest.Add(item.Index, item.CustomID, item.Hash()); digest != in.Digest {
					t.Errorf("%s gives another request: %s", name, item.Body)
				}
				r.Close()
			}
		})
	}
}

// The images of a table are those beside the original file, and the table of a run on a bus has none in files.
func TestImagesOfCopies(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	const picture = "\x89PNG\r\n\x1a\n"
	for name, text := range map[string]string{"a.png": picture, "in.csv": "id,photo\n1,a.png\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	s := proto.Settings{Model: "m", Rows: &proto.Rows{Prompt: "What is it?", Images: []string{"photo"}}}
	path := filepath.Join(dir, "in.csv")
	in, report, err := Validate(t.Context(), Source{Files: []string{path}}, s, nil)
	if err != nil || report.Count > 0 {
		t.Fatalf("%v, %+v", err, report)
	}

	moved := writeFile(t, "moved.csv", "id,photo\n1,a.png\n")
	source := SourceOf(in, []string{moved}, nil)
	for _, stored := range []bool{false, true} {
		source.Stored = stored
		r, err := NewReader(t.Context(), source, s, nil)
		if err != nil {
			t.Fatal(err)
		}

		item, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}

		switch {
		case !stored && (item.Err != nil || !strings.Contains(string(item.Body), "data:image/png;base64,")):
			t.Errorf("%v, %s", item.Err, item.Body)
		case stored && (item.Err == nil || !strings.Contains(item.Err.Error(), "a.png is a file")):
			t.Errorf("a stored table reads a file: %v, %s", item.Err, item.Body)
		}
		r.Close()
	}
}
