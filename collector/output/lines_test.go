package output

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/collector/internal/fixture"
)

// Several blocks, several frames: more text than the seekable format's frames hold.
func TestSeekable(t *testing.T) {
	t.Parallel()

	var data bytes.Buffer
	w, err := newSeekableWriter(&data)
	if err != nil {
		t.Fatal(err)
	}

	var want strings.Builder
	for i := range uint32(300) {
		line := fixture.Line(3*i, 40_000+int(i))
		want.Write(line)
		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	var got strings.Builder
	for i, frame := range parseSeekTable(t, data.Bytes()) {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}

		text, err := dec.DecodeAll(data.Bytes()[frame.offset:frame.offset+frame.packed], nil)
		dec.Close()
		if err != nil || len(text) != frame.size || !bytes.HasSuffix(text, []byte("\n")) {
			t.Fatalf("frame %d has %d bytes, the table says %d (%v)", i, len(text), frame.size, err)
		}

		got.Write(text)
	}

	if got.String() != want.String() {
		t.Error("the frames together are another text")
	}

	checkProgram(t, data.Bytes(), want.String())
}

type seekFrame struct{ offset, packed, size int }

// parseSeekTable reads the table from the end of the file, as seeking readers do.
func parseSeekTable(t *testing.T, data []byte) (frames []seekFrame) {
	t.Helper()

	number := func(at int) int { return int(binary.LittleEndian.Uint32(data[at:])) }
	end := len(data)
	count := number(end - 9)
	if number(end-4) != 0x8F92EAB1 || data[end-5] != 0 || count < 3 {
		t.Fatalf("the file ends in % x", data[end-9:])
	}

	table := end - 9 - 8*count
	if number(table-8) != 0x184D2A5E || number(table-4) != 8*count+9 {
		t.Fatalf("the table begins with % x", data[table-8:table])
	}

	offset := 0
	for at := table; at < end-9; at += 8 {
		frames = append(frames, seekFrame{offset, number(at), number(at + 4)})
		offset += number(at)
	}

	if offset != table-8 {
		t.Errorf("the frames have %d bytes, the table begins at %d", offset, table-8)
	}

	return frames
}

// checkProgram reads data with the program zstd, which shares no code with us.
func checkProgram(t *testing.T, data []byte, want string) {
	t.Helper()

	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("the program zstd is not installed: not checked that it reads our files")
	}

	cmd := exec.CommandContext(t.Context(), "zstd", "-dc")
	cmd.Stdin = bytes.NewReader(data)

	got, err := cmd.Output()
	if err != nil || string(got) != want {
		t.Errorf("zstd -dc reads %d bytes (%v), want %d", len(got), err, len(want))
	}
}

func TestFrameWriter(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "big")
	var want strings.Builder
	for i := range uint32(300) {
		want.Write(fixture.Line(3*i, 40_000+int(i)))
	}

	l, err := createLines(path, int64(want.Len()), false)
	if err != nil {
		t.Fatal(err)
	}

	for line := range strings.Lines(want.String()) {
		if err := l.WriteLine([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}

	if err := l.Finish(); err != nil {
		t.Fatal(err)
	}

	fixture.CheckOneFrame(t, path, want.Len())
	if fixture.Unpack(t, path) != want.String() {
		t.Error("another text")
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	checkProgram(t, data, want.String())
}

// A size that was counted wrongly must not come out as a file that lies.
func TestFrameWriterWrongSize(t *testing.T) {
	t.Parallel()

	for _, size := range []int64{1, 9} {
		w, err := newFrameWriter(io.Discard, size)
		if err != nil {
			t.Fatal(err)
		}

		_, err = w.Write([]byte("text\n"))
		if err = errors.Join(err, w.Close()); err == nil {
			t.Errorf("5 bytes are written as %d", size)
		}
	}
}

// A reader that takes the first frame's content size for that of all (python-zstandard's
// decompress) must find none in a seekable file of several frames. A file of one frame says it.
func TestFirstSeekableFrameHasNoSize(t *testing.T) {
	t.Parallel()

	check := func(name string, data []byte, want bool) {
		t.Helper()
		var h zstd.Header
		if err := h.Decode(data); err != nil || h.Skippable || h.HasFCS != want {
			t.Errorf("%s: a skippable frame %t, a size %t, want %t (%v)", name, h.Skippable, h.HasFCS, want, err)
		}
	}

	for _, tt := range []struct {
		name  string
		lines int
		whole bool
	}{{"a seekable file of one frame", 1000, true}, {"one of several", 400_000, false}} {
		var file bytes.Buffer
		w, err := newSeekableWriter(&file)
		fixture.Must(t, err)

		for range tt.lines {
			_, err := w.Write([]byte("{\"custom_id\": 1}\n"))
			fixture.Must(t, err)
		}

		fixture.Must(t, w.Close())
		check(tt.name, file.Bytes(), tt.whole)
	}
}

func createLines(path string, size int64, seekable bool) (*LineWriter, error) {
	file, err := atomicfile.Create(path, Mode)
	if err != nil {
		return nil, err
	}
	return NewLineWriter(file, size, seekable)
}
