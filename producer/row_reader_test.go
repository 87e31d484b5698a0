package producer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/promptmill/promptmill/producer/prompt"
	"github.com/promptmill/promptmill/producer/table"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// rowSettings are settings with a prompt.
func rowSettings(template string) proto.Settings {
	return proto.Settings{Model: "m", Rows: &proto.Rows{Prompt: template}}
}

// readBodies reads all requests of files, as NAME: BODY.
func readBodies(t *testing.T, s proto.Settings, files ...string) []string {
	t.Helper()

	r, err := NewReader(t.Context(), Source{Files: files}, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	var all []string
	for {
		item, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}

		if item.Err != nil {
			all = append(all, item.Place()+": "+item.Err.Error())
			continue
		}

		all = append(all, fmt.Sprintf("%s %s", item.CustomID, item.Body))
	}
}

// body is the body of a request with a prompt.
func body(text string) string {
	return `{"model":"m","messages":[{"role":"user","content":"` + text + `"}]}`
}

// writeParquet writes a table of the columns id and text.
func writeParquet(t testing.TB, name string, texts ...string) string {
	t.Helper()

	type line struct {
		ID   int64  `parquet:"id"`
		Text string `parquet:"text"`
	}

	var out bytes.Buffer
	w := parquet.NewGenericWriter[line](&out)
	for i, text := range texts {
		if _, err := w.Write([]line{{int64(i), text}}); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return writeFile(t, name, out.String())
}

func TestRows(t *testing.T) {
	t.Parallel()

	files := []string{
		writeFile(t, "a.csv", "id,text\n1,a\n2,\"b\nc\"\n"),
		writeFile(t, "b.jsonl", `{"text":"d","id":3}`+"\n"),
		writeParquet(t, "c.parquet", "e"),
	}

	s := rowSettings("P {{.text}}")

	want := []string{
		`"request-1" ` + body("P a"),
		`"request-2" ` + body(`P b\nc`),
		`"request-3" ` + body("P d"),
		`"request-4" ` + body("P e"),
	}
	if diff := cmp.Diff(want, readBodies(t, s, files...)); diff != "" {
		t.Error(diff)
	}

	s.Rows.CustomID = "id"
	if got := readBodies(t, s, files[0])[1]; got != `"2" `+body(`P b\nc`) {
		t.Errorf("with custom_ids: %s", got)
	}
}

func TestRefusedRows(t *testing.T) {
	t.Parallel()

	file := writeFile(t, "in.csv", "id,text\na,x\nb,\nc,y,z\na,w\nd,\n")
	s := rowSettings("P {{.text}}")
	s.Rows.CustomID = "id"

	in, report, err := Validate(t.Context(), Source{Files: []string{file}}, s, nil)
	if err != nil {
		t.Fatal(err)
	}

	if in.Requests != 5 || in.Invalid != 4 {
		t.Errorf("%d requests, %d are refused", in.Requests, in.Invalid)
	}

	var got []string
	for _, reason := range report.Reasons {
		for _, p := range reason.Examples {
			got = append(got, strings.ReplaceAll(p.String(), filepath.Dir(file)+"/", ""))
		}
	}

	want := []string{
		"in.csv, row 2 (line 3): b: the row has nothing in the column text",
		"in.csv, row 5 (line 6): d: the row has nothing in the column text",
		"in.csv, row 3 (line 4): request-3: the row cannot be read: it has 3 fields, and the header has 2",
		"in.csv, row 4 (line 5): a: the row has the custom_id of an earlier row: in.csv, row 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	s.SkipInvalid = true
	if in, _, err = Validate(t.Context(), Source{Files: []string{file}}, s, nil); err != nil || in.DuplicateIDs != "3" {
		t.Errorf("the repeated requests are %q, %v", in.DuplicateIDs, err)
	}
}

func TestMissingColumn(t *testing.T) {
	t.Parallel()

	files := []string{writeFile(t, "a.csv", "id,text\n1,a\n"), writeFile(t, "b.csv", "txt,id\nb,2\n")}

	_, _, err := Validate(t.Context(), Source{Files: files}, rowSettings("{{.text}}"), nil)
	if _, ok := errors.AsType[*prompt.TemplateError](err); !ok ||
		err.Error() != files[1]+": --prompt: the table has no column text; "+
			"the files before it have this column: rename it here, or run this file alone" {
		t.Error(err)
	}

	if _, err := NewReader(t.Context(), Source{Files: files}, rowSettings("{{.text"), nil); err == nil {
		t.Error("a broken template has no error")
	}
}

// Rows of JSON may lack columns, but not all of them.
func TestUnseenColumn(t *testing.T) {
	t.Parallel()

	const template = `{{.text}} {{default "none" .tag}}`
	first := writeFile(t, "a.jsonl", `{"text":"a","id":1}`+"\n"+`{"text":"b"}`+"\n")
	second := writeFile(t, "b.jsonl", `{"text":"c","tag":"x"}`+"\n")
	array := writeFile(t, "c.json", `[{"text":"c","tags":["x"]}]`)

	limited, skipping, skippingAll := rowSettings(template), rowSettings("{{.tag}}"), rowSettings("{{.tg}}")
	limited.Limit = 1
	skipping.SkipInvalid, skippingAll.SkipInvalid = true, true

	for _, test := range []struct {
		files []string
		s     proto.Settings
		want  string
	}{
		{[]string{first, second}, rowSettings(template), ""},
		{[]string{second, first}, rowSettings(template), ""},
		{[]string{first}, limited, ""},
		{[]string{first, second}, skipping, ""},
		{[]string{first}, rowSettings(template), "--prompt: no row has a column tag; the one column is {{.text}}"},
		{[]string{first, array}, rowSettings(template),
			"--prompt: no row has a column tag; the one column is {{.text}}"},
		{[]string{array}, rowSettings(template), "--prompt: no row has a column tag; did you mean {{.tags}}?"},
		{[]string{second}, skippingAll, "--prompt: no row has a column tg; did you mean {{.tag}}?"},
		{
			[]string{first}, rowSettings("{{.tag}}"), first + ": --prompt: the first row has no column tag; " +
				`the table has the columns text, id; if others have it, write {{default "none" .tag}}`,
		},
	} {
		_, _, err := Validate(t.Context(), Source{Files: test.files}, test.s, nil)
		if err == nil && test.want != "" || err != nil && err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.files, err, test.want)
		}
	}
}

func TestRowsAreNoTable(t *testing.T) {
	t.Parallel()

	_, _, err := Validate(t.Context(), Source{Files: []string{writeFile(t, "in", "PK\x03\x04xxxx")}},
		rowSettings("{{.a}}"), nil)
	if _, ok := errors.AsType[*table.FormatError](err); !ok {
		t.Error(err)
	}
}

func TestSelection(t *testing.T) {
	t.Parallel()

	var csv, lines strings.Builder
	csv.WriteString("n\n")

	for i := range 1000 {
		fmt.Fprintf(&csv, "%d\n", i)
		fmt.Fprintf(&lines, `{"model":"m","messages":[{"role":"user","content":"%d"}]}`+"\n", i)
	}

	table := []string{writeFile(t, "a.csv", csv.String()), writeFile(t, "b.csv", csv.String())}
	jsonl := []string{writeFile(t, "a.jsonl", lines.String()), writeFile(t, "b.jsonl", lines.String())}

	s := rowSettings("{{.n}}")
	s.Limit = 2

	want := []string{`"request-1" ` + body("0"), `"request-2" ` + body("1")}
	if diff := cmp.Diff(want, readBodies(t, s, table...)); diff != "" {
		t.Error(diff)
	}

	if diff := cmp.Diff(want, readBodies(t, proto.Settings{Limit: 2}, jsonl...)); diff != "" {
		t.Error(diff)
	}

	for _, n := range []int{1, 7, 500, 1999, 2000, 5000} {
		s := rowSettings("{{.n}}")
		s.Sample = n

		got := readBodies(t, s, table...)
		if len(got) != min(n, 2000) {
			t.Errorf("a sample of %d has %d requests", n, len(got))
		}

		if diff := cmp.Diff(got, readBodies(t, proto.Settings{Sample: n}, jsonl...)); diff != "" {
			t.Errorf("rows and lines have other samples:\n%s", diff)
		}

		for _, test := range []struct {
			s     proto.Settings
			files []string
		}{{s, table}, {proto.Settings{Sample: n}, jsonl}} {
			in, _, err := Validate(t.Context(), Source{Files: test.files}, test.s, nil)
			if err != nil || in.Rows != 2000 || in.Requests != min(n, 2000) {
				t.Errorf("sample %d: %d rows, %d requests, %v", n, in.Rows, in.Requests, err)
			}

			if err := CheckInput(t.Context(), in, test.s, Source{Files: test.files}); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRowsSeek continues behind each request.
func TestRowsSeek(t *testing.T) {
	t.Parallel()

	files := []string{
		writeFile(t, "a.csv", "id,text\n1,a\n\n2,\"b\nc\"\n3,d\n"),
		writeParquet(t, "b.parquet", "e", "f", "g"),
		writeFile(t, "c.json", `[{"text":"h"}, {"text":"i"},{"text":"j"}]`),
		writeFile(t, "d.jsonl", "{\"text\":\"k\"}\n{\"text\":\"l\"}\n"),
	}

	for _, change := range []proto.Settings{{}, {Sample: 5}, {Limit: 7}} {
		s := rowSettings("P {{.text}}")
		s.Sample, s.Limit = change.Sample, change.Limit
		want := readBodies(t, s, files...)

		walker, err := NewReader(t.Context(), Source{Files: files}, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer walker.Close()

		for i := range want {
			other, err := NewReader(t.Context(), Source{Files: files}, s, nil)
			if err != nil {
				t.Fatal(err)
			}

			if err := other.Seek(walker.Checkpoint()); err != nil {
				t.Fatal(err)
			}

			for j := i; ; j++ {
				item, err := other.Next()
				if errors.Is(err, io.EOF) {
					if j != len(want) {
						t.Errorf("%+v: from %d the end is after %d", change, i, j)
					}
					break
				}
				if err != nil {
					t.Fatal(err)
				}

				if got := fmt.Sprintf("%s %s", item.CustomID, item.Body); j >= len(want) || got != want[j] {
					t.Errorf("%+v: from %d request %d is %s", change, i, j, got)
				}
			}

			other.Close()

			if _, err := walker.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRowsChecksum(t *testing.T) {
	t.Parallel()

	const text = "\xef\xbb\xbfid,text\n1,a\n2,b\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, text)
	z.Close()

	csv, parquet := writeFile(t, "a.csv.gz", packed.String()), writeParquet(t, "b.parquet", "e", "f")
	line := func(text string) string { return `{"messages":[{"role":"user","content":"` + text + `"}]}` + "\n" }

	for _, test := range []struct {
		files []string
		want  string
	}{
		{[]string{csv}, text},
		{[]string{parquet}, line("e") + line("f")},
		{[]string{csv, parquet, csv}, text + line("e") + line("f") + text},
		{[]string{writeFile(t, "c.json", `[{"text":"x"}] `)}, `[{"text":"x"}] `},
	} {
		s := rowSettings("{{.text}}")
		in, _, err := Validate(t.Context(), Source{Files: test.files}, s, nil)
		if err != nil {
			t.Fatal(err)
		}

		sum := sha256.Sum256([]byte(test.want))
		if want := hex.EncodeToString(sum[:]); in.SHA256 != want || in.Bytes != int64(len(test.want)) {
			t.Errorf("%d files: %d bytes, SHA-256 %s, want %d, %s",
				len(test.files), in.Bytes, in.SHA256, len(test.want), want)
		}

		if err := CheckInput(t.Context(), in, s, Source{Files: test.files}); err != nil {
			t.Error(err)
		}
	}

	s := rowSettings("{{.text}}")
	in, _, err := Validate(t.Context(), Source{Files: []string{parquet}}, s, nil)
	if err != nil {
		t.Fatal(err)
	}

	other, err := os.ReadFile(writeParquet(t, "b.parquet", "e", "F"))
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(parquet, other, 0o600); err != nil {
		t.Fatal(err)
	}

	if err := CheckInput(t.Context(), in, s, Source{Files: []string{parquet}}); !errors.Is(err, proto.ErrInputChanged) {
		t.Errorf("a changed file: %v", err)
	}
}

// TestRowsContinueAtCheckpoint stops a producer in the middle of a table, and lets another
// continue.
func TestRowsContinueAtCheckpoint(t *testing.T) {
	t.Parallel()

	var csv strings.Builder
	csv.WriteString("id,text\n")

	for i := range 20_000 {
		fmt.Fprintf(&csv, "%d,\"text %d\n%s\"\n", i, i, strings.Repeat("x", 100))
	}

	s := rowSettings("P {{.text}}")
	s.ShardSize, s.ShardBytes, s.Sample = 32, 256<<10, 15_000
	b := newBench(t, csv.String(), s, 400<<10)

	_, stop := b.start(t)
	var point proto.Checkpoint
	prototest.Poll(t, 20*time.Second, "a checkpoint", func() bool {
		m, err := b.runs.Get(t.Context(), b.m.Run)
		if err != nil {
			t.Fatal(err)
		}
		point = m.Publish.Checkpoint
		return point.Shard > 0
	})

	stop()
	if point.Row == 0 || point.Offset == 0 || point.Passed < point.Row {
		t.Errorf("the checkpoint is %+v", point)
	}

	_, stop = b.start(t)
	from, requests := uint64(1), 0
	prototest.Poll(t, 30*time.Second, "the whole input in the stream", func() bool {
		done := b.published(t)
		for _, shard := range b.take(t, from, true) {
			from++
			for _, q := range shard.Requests {
				if int(q.Index) != requests {
					t.Fatalf("request %d follows %d", q.Index, requests-1)
				}
				requests++
			}
		}

		return done
	})

	if err := stop(); err != nil && !errors.Is(err, t.Context().Err()) && requests != 15_000 {
		t.Error(err)
	}

	if requests != 15_000 {
		t.Errorf("%d requests are in the stream", requests)
	}
}

// BenchmarkValidateRows validates tables with rows of 1 KB. On a busy machine, compare the rows
// a second of processor time.
func BenchmarkValidateRows(b *testing.B) {
	const rows = 20_000
	words := strings.Repeat("some words of a prompt, ", 41)

	var texts []string
	for i := range rows {
		texts = append(texts, fmt.Sprintf("%d %s", i, words))
	}

	for _, bb := range []struct{ name, header, cell, behind string }{
		{"csv", "id,text", strings.ReplaceAll(words, ",", "."), ""},
		{"quoted csv", "id,text", `"` + words + `"`, ""},
		{"escaped csv", "id,text", `"` + strings.ReplaceAll(words[:len(words)-2*41], "words", `""words""`) + `"`, ""},
		{"csv not ASCII", "id,text", strings.Repeat("ein paar Wörter über Mühlen ", 34), ""},
		{
			"csv of 20 columns",
			"id,text,c1,c2,c3,c4,c5,c6,c7,c8,c9,c10,c11,c12,c13,c14,c15,c16,c17,c18",
			words[:18] + strings.Repeat("some words of it. ", 45),
			strings.Repeat(",12345.67", 18),
		},
	} {
		var csv strings.Builder
		csv.WriteString(bb.header + "\n")

		for i := range rows {
			fmt.Fprintf(&csv, "%d,%s%s\n", i, bb.cell, bb.behind)
		}

		file := writeFile(b, "in.csv", csv.String())
		b.Run(bb.name, func(b *testing.B) { benchmarkValidateRows(b, file, rows) })
	}

	file := writeParquet(b, "in.parquet", texts...)
	b.Run("parquet", func(b *testing.B) { benchmarkValidateRows(b, file, rows) })
}

// benchmarkValidateRows validates a table.
func benchmarkValidateRows(b *testing.B, file string, rows int) {
	b.Helper()

	start := processorTime(b)
	for b.Loop() {
		in, report, err := Validate(b.Context(), Source{Files: []string{file}},
			rowSettings("Classify: {{.text}}"), nil)
		if err != nil || in.Requests != rows || report.Count != 0 {
			b.Fatal(in.Requests, report.Count, err)
		}
	}

	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(rows*b.N)/(processorTime(b)-start).Seconds(), "rows/CPU-s")
}

// processorTime returns the processor time of this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()

	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}

	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
