package sample

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/promptmill/promptmill/producer"
	"github.com/promptmill/promptmill/proto"
)

// A store that has much garbage writes the file again, and each line is where it was said to be, before and after.
func TestCompact(t *testing.T) {
	t.Parallel()

	s, err := newLineStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.close() }()

	padding := strings.Repeat("x", 1<<20)
	line := func(i int) string { return fmt.Sprintf("line %d %s", i, padding) }
	answer := func(i int) string { return fmt.Sprintf("%q", fmt.Sprint("answer ", i)) }

	var all, live []candidate
	for i := range 100 {
		at, err := s.add([]byte(line(i)), []byte(answer(i)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, candidate{hash: uint64(i), at: at, line: len(line(i)), answer: len(answer(i))})
	}

	before := s.size
	live = append(live, all[40:]...)
	if err := s.compact(live); err != nil || s.size != before { // 40 MB are less than the other lines
		t.Fatalf("%d bytes of %d are left (%v), want all", s.size, before, err)
	}

	live = []candidate{all[97], all[3], all[50]}
	if err := s.compact(live); err != nil || s.size > 4<<20 {
		t.Fatalf("%d bytes of %d are left (%v)", s.size, before, err)
	}

	info, err := s.file.Stat()
	if err != nil || info.Size() > 4<<20 {
		t.Errorf("the file has %d bytes (%v)", info.Size(), err)
	}

	for _, c := range live {
		gotLine, gotAnswer, err := s.read(c)
		if i := int(c.hash); err != nil || string(gotLine) != line(i) || string(gotAnswer) != answer(i) {
			t.Errorf("line %d is %.20q with the answer %q (%v)", i, gotLine, gotAnswer, err)
		}
	}

	if _, err := s.add([]byte("more"), nil); err != nil {
		t.Errorf("add after that: %v", err)
	}
}

// A sample of few of many requests is the same one, however often candidates were dropped.
func TestManyDropped(t *testing.T) {
	t.Parallel()

	const size = 20
	file := writeFile(t, "in", requests("id-", make([]int, 30_000)...))
	d := mustDraw(t, size, "", proto.Settings{}, file)

	want := chosenByRun(t, size, file)
	if got := idsOf(t, d.lines); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the requests are %s, want %s", got, want)
	}
}

// failingWriter has no room.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestDrawErrors(t *testing.T) {
	t.Parallel()

	file := writeFile(t, "in", requests("a", 1, 2, 3))
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))

	cfg := Config{Source: producer.Source{Files: []string{file}}, Size: 2, Expect: "label"}
	for _, tt := range []struct {
		name            string
		ctx             context.Context
		change          func(*Config)
		lines, expected io.Writer
		want            string
	}{
		{"no size", t.Context(), func(c *Config) { c.Size = 0 }, io.Discard, io.Discard, "the size 0 is not positive"},
		{"no folder", t.Context(), func(c *Config) { c.Folder = file + "/x" }, io.Discard, io.Discard, "keep the sample: "},
		{"no room for requests", t.Context(), func(*Config) {}, failingWriter{}, io.Discard, "write the sample: disk full"},
		{"no room for answers", t.Context(), func(*Config) {}, io.Discard, failingWriter{}, "write the sample: disk full"},
		{"an end of the context", ended, func(*Config) {}, io.Discard, io.Discard, "context canceled"},
		{"a missing file", t.Context(), func(c *Config) { c.Source.Files = []string{file + "x"} }, io.Discard, io.Discard,
			"no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			cfg, folder := cfg, t.TempDir()
			cfg.Folder = folder
			tt.change(&cfg)

			_, err := Draw(tt.ctx, cfg, tt.lines, tt.expected)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}

			if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
				t.Errorf("files are left: %v (%v)", left, err)
			}
		})
	}
}

// The size of a sample may be any number.
func TestLargestSize(t *testing.T) {
	t.Parallel()

	var lines bytes.Buffer
	cfg := Config{
		Source: producer.Source{Files: []string{writeFile(t, "in", requests("a", 1, 2, 3))}},
		Size:   int(^uint(0) >> 1),
	}
	if s, err := Draw(t.Context(), cfg, &lines, nil); err != nil || s.Requests != 3 {
		t.Errorf("%d requests (%v), want 3", s.Requests, err)
	}
}
