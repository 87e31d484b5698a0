package producer

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
)

// validatedRun returns the manifest of a run of files.
func validatedRun(t *testing.T, s proto.Settings, files ...string) proto.Manifest {
	t.Helper()

	in, _, err := Validate(t.Context(), Source{Files: files}, s, nil)
	if err != nil {
		t.Fatal(err)
	}

	return proto.Manifest{Input: in, Settings: s}
}

// rowsOf reads the rows of a run, as INDEX PLACE ID: VALUES.
func rowsOf(t *testing.T, m proto.Manifest, files ...string) (all []string) {
	t.Helper()

	r, err := NewRowReader(t.Context(), Source{Files: files}, m)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}

		text := fmt.Sprintf("%d %s:%d %s:", row.Index, row.File, row.Number, row.CustomID)
		for i, v := range row.Values {
			text = string(v.AppendText(fmt.Appendf([]byte(text), " %s=", row.Columns[i].Name)))
		}
		all = append(all, text)
	}
}

// The rows of a run are those of its requests, in their order and with their numbers and custom_ids: of several
// files in several formats, and of a part of them, refused rows included.
func TestRowReader(t *testing.T) {
	t.Parallel()

	files := []string{
		writeFile(t, "a.csv", "id,text\n1,a\n\n2,\"b\nc\"\n3,d,too many\n4,\n"),
		writeParquet(t, "b.parquet", "e", "f", "g"),
		writeFile(t, "c.json", `[{"text":"h","n":1}, {"text":"i"},7,{"text":"j"}]`),
		writeFile(t, "d.jsonl", "{\"text\":\"k\"}\n{\"text\":\n{\"text\":\"l\"}\n"),
		writeFile(t, "e.csv", "text\nm\n"),
	}

	for _, change := range []proto.Settings{
		{},
		{Limit: 1},
		{Limit: 7},
		{Limit: 100},
		{Sample: 1},
		{Sample: 6},
		{Sample: 100},
	} {
		s := rowSettings("P {{.text}}")
		s.Limit, s.Sample = change.Limit, change.Sample
		m := validatedRun(t, s, files...)

		requests, err := NewReader(t.Context(), Source{Files: files}, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer requests.Close()

		rows, err := NewRowReader(t.Context(), Source{Files: files}, m)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()

		for n := 0; ; n++ {
			item, err := requests.Next()
			row, rowErr := rows.Next()
			if errors.Is(err, io.EOF) {
				if n != m.Input.Requests || !errors.Is(rowErr, io.EOF) {
					t.Errorf("limit %d, sample %d: the requests end after %d of %d, and the rows with %v", s.Limit, s.Sample,
						n, m.Input.Requests, rowErr)
				}
				break
			}
			if err != nil || rowErr != nil {
				t.Fatal(err, rowErr)
			}

			if row.Index != item.Index || row.File != item.File || row.Number != item.Line ||
				string(row.CustomID) != string(item.CustomID) {
				t.Errorf("limit %d, sample %d: row %d of %s is request %d, %s, and request %d, %s, is of row %d of %s",
					s.Limit, s.Sample, row.Number, row.File, row.Index, row.CustomID,
					item.Index, item.CustomID, item.Line, item.File)
			}

			if item.Err != nil {
				continue
			}

			i := slices.IndexFunc(row.Columns, func(c table.Column) bool { return c.Name == "text" })
			want := fmt.Sprintf(`"messages":[{"role":"user","content":%q}]`, "P "+string(row.Values[i].AppendText(nil)))
			if !strings.Contains(string(item.Body), want) {
				t.Errorf("limit %d, sample %d: row %d has the text of %s, and the request is %s", s.Limit, s.Sample,
					row.Number, want, item.Body)
			}
		}
	}
}

// Rows have all columns, also those of no template. Their ids are in their column, and a row that cannot be read has
// no values.
func TestRowReaderValues(t *testing.T) {
	t.Parallel()

	a := writeFile(t, "a.csv", "id,text,more\nx,a,1\ny,b\nz,c,\n")
	s := rowSettings("{{.text}}")
	s.Rows.CustomID = "id"

	want := []string{
		"0 " + a + ":1 : id=x text=a more=1",
		"1 " + a + `:2 "request-2": id= text= more=`,
		"2 " + a + ":3 : id=z text=c more=",
	}
	if diff := cmp.Diff(want, rowsOf(t, validatedRun(t, s, a), a)); diff != "" {
		t.Error(diff)
	}

	lines := writeFile(t, "lines.jsonl", `{"custom_id":"q\n","messages":[]}`+"\n\n"+`{"messages":[]}`+"\n")
	want = []string{
		"0 " + lines + `:1 "q\n": custom_id=` + "q\n",
		"1 " + lines + `:3 "request-2": custom_id=request-2`,
	}
	if diff := cmp.Diff(want, rowsOf(t, validatedRun(t, proto.Settings{Model: "m"}, lines), lines)); diff != "" {
		t.Error(diff)
	}
}

// A file with fewer rows than it had is changed.
func TestRowReaderChanged(t *testing.T) {
	t.Parallel()

	path := writeFile(t, "a.csv", "text\na\nb\n")
	m := validatedRun(t, rowSettings("{{.text}}"), path)
	m.Input.Requests = 3
	m.Input.Files = nil // else opening the file finds it

	r, err := NewRowReader(t.Context(), Source{Files: []string{path}}, m)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	for range 2 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, proto.ErrInputChanged) {
		t.Errorf("error %v, want %v", err, proto.ErrInputChanged)
	}
}
