package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// readSnapshot returns the text of the failed or of the answered lines.
func readSnapshot(s *Snapshot, failed, plain bool) (string, error) {
	dec, err := output.NewCheckedFrameDecoder()
	if err != nil {
		return "", err
	}
	defer dec.Close()

	var b strings.Builder
	for i := range s.Frames() {
		text, err := s.ReadText(i, failed, plain, dec)
		if err != nil {
			return b.String(), err
		}
		b.Write(text)
	}

	return b.String(), nil
}

// checkSnapshot compares the text of a snapshot with the lines of requests.
func checkSnapshot(t *testing.T, path string, done int, indexes ...uint32) {
	t.Helper()

	s, err := OpenSnapshot(path, done)
	fixture.Must(t, err)
	defer s.Close()

	for _, failed := range []bool{false, true} {
		want := fixture.Lines(func(index uint32) bool { return fixture.Failed(index) == failed }, indexes...)
		for _, plain := range []bool{false, true} {
			if plain {
				want = plainText(want)
			}

			got, err := readSnapshot(s, failed, plain)
			if err != nil || got != want {
				t.Errorf("failed %t, plain %t: %q (%v), want %q", failed, plain, got, err, want)
			}
		}
	}
}

func TestSnapshot(t *testing.T) {
	t.Parallel()

	// Frames of both kinds, of answers alone and of failures alone.
	j, _, _ := newTestJournal(t, 12, []uint32{5, 9, 0}, []uint32{3, 7, 1}, []uint32{2, 8}, []uint32{4})

	sorted := []uint32{0, 5, 9, 1, 3, 7, 2, 8, 4}
	for done, frames := range map[int]int{
		0:             0,
		2:             0,
		3:             3,
		5:             3,
		6:             6,
		8:             8,
		9:             9,
		math.MaxInt32: 9,
	} {
		checkSnapshot(t, j.path, done, sorted[:frames]...)
	}
}

func TestSnapshotMissing(t *testing.T) {
	t.Parallel()

	if _, err := OpenSnapshot(filepath.Join(t.TempDir(), "none"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenSnapshot: %v, want os.ErrNotExist", err)
	}
}

// A file that ends anywhere in its last frame, as while it is written, has the frames before.
func TestSnapshotTornTail(t *testing.T) {
	t.Parallel()

	j, ends, _ := newTestJournal(t, 7, []uint32{0, 1}, []uint32{2, 3}, []uint32{4})
	data, err := os.ReadFile(j.path)
	fixture.Must(t, err)

	path := filepath.Join(t.TempDir(), "torn")
	for size := range data {
		fixture.Must(t, os.WriteFile(path, data[:size], 0o644))

		want := []uint32{0, 1, 2, 3, 4}[:0]
		switch {
		case int64(size) >= ends[2]:
			want = []uint32{0, 1, 2, 3}
		case int64(size) >= ends[1]:
			want = []uint32{0, 1}
		}
		checkSnapshot(t, path, math.MaxInt, want...)

		// Blocks of the last frame that are not written yet are zero in some file systems.
		if int64(size) > ends[2] {
			zeros := append(bytes.Clone(data[:size]), make([]byte, len(data)-size)...)
			fixture.Must(t, os.WriteFile(path, zeros, 0o644))
			checkSnapshot(t, path, math.MaxInt, want...)
		}
	}
}

// Damage before the last frame is an error, and never a shorter text.
func TestSnapshotDamaged(t *testing.T) {
	t.Parallel()

	j, ends, _ := newTestJournal(t, 7, []uint32{0, 1}, []uint32{2, 3}, []uint32{4})
	data, err := os.ReadFile(j.path)
	fixture.Must(t, err)

	want := fixture.Lines(fixture.Answered, 0, 1, 3, 4)
	path := filepath.Join(t.TempDir(), "damaged")
	for at := range data[:ends[2]] {
		damaged := bytes.Clone(data)
		damaged[at] ^= 1 << (at % 8)
		fixture.Must(t, os.WriteFile(path, damaged, 0o644))

		s, err := OpenSnapshot(path, math.MaxInt)
		if err == nil {
			var got string
			if got, err = readSnapshot(s, false, false); !strings.HasPrefix(want, got) {
				t.Errorf("byte %d: another text: %q", at, got)
			}
			s.Close()
		}

		place := path + " is corrupt at byte "
		if !isCorruption(err) || !errors.Is(err, proto.ErrFormat) || !strings.HasPrefix(err.Error(), place) {
			t.Errorf("byte %d: %v, want a CorruptionError", at, err)
		}
	}
}

func TestSnapshotOfOtherFile(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "text")
	fixture.Must(t, os.WriteFile(path, []byte("This is no journal, but a text of some length.\n"), 0o644))
	if _, err := OpenSnapshot(path, math.MaxInt); !isCorruption(err) {
		t.Errorf("OpenSnapshot: %v, want a CorruptionError", err)
	}
}

// A journal is read while frames are appended to it, and after it is removed.
func TestSnapshotWhileWritten(t *testing.T) {
	t.Parallel()

	const requests = 300
	j, _, _ := newTestJournal(t, requests)
	text := fixture.Lines(fixture.Answered, fixture.Indexes(requests)...)

	var writing sync.WaitGroup
	written := make(chan struct{})
	writing.Go(func() {
		defer close(written)
		for index := range uint32(requests) {
			appendFrame(t, j, uint64(index), index)
		}
	})
	defer writing.Wait()

	var s *Snapshot
	for last := false; !last; {
		select {
		case <-written:
			last = true
		default:
		}

		next, err := OpenSnapshot(j.path, math.MaxInt)
		fixture.Must(t, err)

		if s != nil {
			if len(next.Frames()) < len(s.Frames()) {
				t.Errorf("%d frames after %d", len(next.Frames()), len(s.Frames()))
			}
			fixture.Must(t, s.Close())
		}
		s = next

		got, err := readSnapshot(s, false, false)
		if err != nil || !strings.HasPrefix(text, got) {
			t.Fatalf("the text of %d frames is another one (%v)", len(s.Frames()), err)
		}
	}

	fixture.Must(t, j.Remove())

	got, err := readSnapshot(s, false, false)
	if err != nil || got != text {
		t.Errorf("%d bytes of the removed journal (%v), want %d", len(got), err, len(text))
	}
	fixture.Must(t, s.Close())
}

// Whatever a file holds, its text is as long as its index says, or there is an error.
func FuzzSnapshot(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	j, err := Create(path, fixture.Manifest(9))
	fixture.Must(f, err)
	defer j.Close()

	var scan jsonscan.Scanner
	for _, indexes := range [][]uint32{{0, 2, 3}, {1}, {5, 8}} {
		var frame Frame
		for _, index := range indexes {
			line := fixture.Line(index, 0)
			info, err := proto.ParseLine(&scan, line)
			fixture.Must(f, err)
			frame.Add(index, line, info)
		}
		fixture.Must(f, j.Append(&frame))
	}

	data, err := os.ReadFile(path)
	fixture.Must(f, err)
	f.Add(data, 100)
	f.Add(data[:len(data)-9], 3)

	rnd := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		damaged := bytes.Clone(data)
		damaged[rnd.IntN(len(data))] ^= byte(1 + rnd.IntN(255))
		f.Add(damaged, 100)
	}

	f.Fuzz(func(t *testing.T, data []byte, done int) { checkAnySnapshot(t, data, done) })
}

// The same with headers that have the right checksum.
func FuzzSnapshotHeader(f *testing.F) {
	lines := fixture.AllLines(0, 2)
	enc, err := zstd.NewWriter(nil)
	fixture.Must(f, err)
	packed := enc.EncodeAll([]byte(lines), nil)
	sum := crc32.Checksum(packed, crcTable)

	for _, header := range []string{
		`{"run":"r","indexes":"0,2","failed":"2","bytes":%d,"packed":%d,"crc":%d,"sizes":{"ok":%d,"failed":%d,` +
			`"ok_plain":%d,"failed_plain":%d},"counts":{"done":2,"failed":1}}`,
		`{"indexes":"2,0","failed":"0","bytes":%d,"packed":%d,"crc":%d,"sizes":{"ok":%d,"failed":%d,` +
			`"ok_plain":%d,"failed_plain":%d},"counts":{"done":2,"failed":1}}`,
	} {
		ok, failed := fixture.Line(0, 0), fixture.Line(2, 0)
		f.Add(fmt.Sprintf(header, len(lines), len(packed), sum, len(ok), len(failed), proto.PlainSize(ok),
			proto.PlainSize(failed)))
	}
	f.Add(`{"bytes":9223372036854775807,"packed":5,"sizes":{"ok":9223372036854775807},"counts":{"done":1}}`)

	f.Fuzz(func(t *testing.T, header string) {
		data := binary.LittleEndian.AppendUint32([]byte(fileStart), frameMagic)
		data = binary.LittleEndian.AppendUint32(data, uint32(len(frameTag)+4+len(header)))
		data = append(data, frameTag...)
		data = binary.LittleEndian.AppendUint32(data, crc32.Checksum([]byte(header), crcTable))
		data = append(append(data, header...), packed...)

		checkAnySnapshot(t, append(data, data[len(fileStart):]...), math.MaxInt)
	})
}

// checkAnySnapshot reads a file that may be damaged.
func checkAnySnapshot(t *testing.T, data []byte, done int) {
	path := filepath.Join(t.TempDir(), "journal")
	fixture.Must(t, os.WriteFile(path, data, 0o644))

	s, err := OpenSnapshot(path, done)
	if err != nil {
		return
	}
	defer s.Close()

	lines := 0
	for _, f := range s.Frames() {
		lines += f.Done
	}
	if lines > max(0, done) {
		t.Errorf("%d lines, and %d are synced", lines, done)
	}

	for _, failed := range []bool{false, true} {
		for _, plain := range []bool{false, true} {
			text, err := readSnapshot(s, failed, plain)
			if err != nil {
				continue
			}

			size := int64(0)
			for _, f := range s.Frames() {
				size += f.Sizes.Of(failed, plain)
			}
			if int64(len(text)) != size {
				t.Errorf("%d bytes, the index says %d", len(text), size)
			}
		}
	}
}
