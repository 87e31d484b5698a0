package collector

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/proto"
)

// shuffled are frames as they come: nearly in order, but not quite.
var shuffled = [][]uint32{{5, 9, 0}, {3, 7, 1}, {2, 4, 6, 8}}

func testOutput(j *Journal) Output { return Output(filepath.Join(filepath.Dir(j.path), "out")) }

// checkOneFrame walks a file block by block (RFC 8878, 3.1.1): common readers stop
// after the first frame, so there must be no other.
func checkOneFrame(t *testing.T, path string, size int) {
	t.Helper()

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	var h zstd.Header
	if err := h.Decode(data); err != nil {
		t.Fatalf("%s of %d bytes: %v", filepath.Base(path), len(data), err)
	}

	if !h.HasFCS || h.FrameContentSize != uint64(size) || !h.HasCheckSum || h.Skippable {
		t.Errorf("frame header %+v, want a checksum and content size %d", h, size)
	}

	at := h.HeaderSize
	for last := false; !last; {
		if at+3 > len(data) {
			t.Fatalf("no block at byte %d of %d", at, len(data))
		}

		block := int(data[at]) | int(data[at+1])<<8 | int(data[at+2])<<16
		at += 3
		last = block&1 == 1
		if block>>1&3 == 1 { // a repeated byte
			at++
		} else {
			at += block >> 3
		}
	}

	if at += 4; at != len(data) { // the checksum
		t.Errorf("%s: the frame ends at byte %d of %d", filepath.Base(path), at, len(data))
	}
}

func plainText(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.Write(proto.StripExtras([]byte(line)))
	}
	return b.String()
}

func TestRewrite(t *testing.T) {
	t.Parallel()

	sorted := []uint32{0, 5, 9, 1, 3, 7, 2, 4, 6, 8} // as in the journal: by frame
	for _, tt := range []struct {
		name   string
		format Format
		seqs   []uint32
	}{
		{"in the order of completion", Format{}, sorted},
		{"in the order of the input", Format{Ordered: true}, to(10)},
		{"without our extras", Format{Plain: true}, sorted},
		{"ordered and without our extras", Format{Ordered: true, Plain: true}, to(10)},
		{"seekable", Format{Seekable: true}, sorted},
		{"everything", Format{Seekable: true, Ordered: true, Plain: true}, to(10)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			j, _, _ := newTestJournal(t, 10, shuffled...)
			out := testOutput(j)

			results, failures := linesOf(succeeding, tt.seqs...), linesOf(failing, tt.seqs...)
			if tt.format.Plain {
				results, failures = plainText(results), plainText(failures)
			}

			// What an interrupted attempt left behind is in nobody's way.
			for _, path := range []string{out.Results(), out.Errors()} {
				if err := os.WriteFile(path+".tmp", bytes.Repeat([]byte("old"), 9999), 0o644); err != nil {
					t.Fatal(err)
				}
			}

			for range 2 { // a crash before the journal's removal makes it do all again
				if err := j.rewrite(t.Context(), out, tt.format); err != nil {
					t.Fatal(err)
				}

				checkText(t, out.Results(), results)
				checkText(t, out.Errors(), failures)
				checkAbsent(t, out.Results()+".tmp")
				checkAbsent(t, out.Errors()+".tmp")

				if !tt.format.Seekable {
					checkOneFrame(t, out.Results(), len(results))
					checkOneFrame(t, out.Errors(), len(failures))
				}
			}
		})
	}
}

func TestRewriteWithoutErrors(t *testing.T) {
	t.Parallel()

	j, _, _ := newTestJournal(t, 2, []uint32{0, 1})
	out := testOutput(j)
	if err := os.WriteFile(out.Errors(), []byte("of an earlier run"), 0o644); err != nil {
		t.Fatal(err)
	}

	if err := j.rewrite(t.Context(), out, Format{}); err != nil {
		t.Fatal(err)
	}

	checkAbsent(t, out.Errors())
	checkText(t, out.Results(), linesOf(either, 0, 1))
}

// A file without a line must still be a zstd file: the program zstd says "unexpected
// end of file" of an empty one.
func TestRewriteWithoutResults(t *testing.T) {
	t.Parallel()

	for _, format := range []Format{{}, {Seekable: true}} {
		t.Run(fmt.Sprintf("%+v", format), func(t *testing.T) {
			t.Parallel()

			j, _, _ := newTestJournal(t, 1, []uint32{2})
			if err := j.rewrite(t.Context(), testOutput(j), format); err != nil {
				t.Fatal(err)
			}

			data, err := os.ReadFile(testOutput(j).Results())
			if err != nil {
				t.Fatal(err)
			}

			var h zstd.Header
			if err := h.Decode(data); err != nil || h.Skippable {
				t.Errorf("a file of %d bytes without a zstd frame: %v", len(data), err)
			}

			checkText(t, testOutput(j).Results(), "")
		})
	}
}

func TestRewriteInterrupted(t *testing.T) {
	t.Parallel()

	for _, format := range []Format{{}, {Ordered: true, Seekable: true}} {
		j, _, _ := newTestJournal(t, 10, shuffled...)
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped")
		cancel(stopped)
		if err := j.rewrite(ctx, testOutput(j), format); !errors.Is(err, stopped) {
			t.Errorf("%+v: %v, want the cause of the context's end", format, err)
		}

		for _, path := range []string{testOutput(j).Results(), testOutput(j).Errors()} {
			checkAbsent(t, path)
			checkAbsent(t, path+".tmp")
		}
	}
}

// Damage that comes while the journal is open must never make lines vanish.
func TestRewriteDamaged(t *testing.T) {
	t.Parallel()

	frames := [][]uint32{{0, 1}, {4, 2}, {3}, {5, 6}}
	for _, tt := range []struct {
		name   string
		frame  int
		offset int64 // in the frame; from its end if negative
	}{
		{"contents of a middle frame", 1, -3},
		{"header of a middle frame", 1, frameFixed + 9},
		{"contents of the last frame", 3, -3},
		{"header of the last frame", 3, frameFixed + 9},
	} {
		for _, format := range []Format{{}, {Seekable: true}, {Ordered: true}} {
			t.Run(fmt.Sprintf("%s %+v", tt.name, format), func(t *testing.T) {
				t.Parallel()

				j, ends, _ := newTestJournal(t, 7, frames...)
				at := ends[tt.frame] + tt.offset
				if tt.offset < 0 {
					at = ends[tt.frame+1] + tt.offset
				}

				flip(t, j.path, at)
				if err := j.rewrite(t.Context(), testOutput(j), format); !errors.Is(err, errDamaged) {
					t.Errorf("rewrite: %v, want errDamaged", err)
				}

				checkAbsent(t, testOutput(j).Results())
				if err := j.recover(true); err != nil {
					t.Fatal(err)
				}

				checkSurvivors(t, j, frames, tt.frame)
				appendFrame(t, j, 9, frames[tt.frame]...)

				if err := j.rewrite(t.Context(), testOutput(j), Format{Ordered: true}); err != nil {
					t.Fatal(err)
				}

				checkText(t, testOutput(j).Results(), linesOf(succeeding, to(7)...))
			})
		}
	}
}

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
		line := lineOf(3*i, 40_000+int(i))
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

func TestWholeWriter(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "big")
	var want strings.Builder
	for i := range uint32(300) {
		want.Write(lineOf(3*i, 40_000+int(i)))
	}

	l, err := new(Journal).createLines(path, int64(want.Len()), false)
	if err != nil {
		t.Fatal(err)
	}

	for line := range strings.Lines(want.String()) {
		if err := l.write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}

	if err := l.commit(); err != nil {
		t.Fatal(err)
	}

	checkOneFrame(t, path, want.Len())
	if unpack(t, path) != want.String() {
		t.Error("another text")
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	checkProgram(t, data, want.String())
}

// A size that was counted wrongly must not come out as a file that lies.
func TestWholeWriterWrongSize(t *testing.T) {
	t.Parallel()

	for _, size := range []int64{1, 9} {
		w, err := newWholeWriter(io.Discard, size)
		if err != nil {
			t.Fatal(err)
		}

		_, err = w.Write([]byte("text\n"))
		if err = errors.Join(err, w.Close()); err == nil {
			t.Errorf("5 bytes are written as %d", size)
		}
	}
}
