package collector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/proto"
)

func testHeader() header {
	m := manifest(9)

	return header{
		Run: "r", Manifest: &m, Seqs: "0-3,7", Failed: "2", Bytes: 100, Packed: 4, CRC: 1 << 31,
		Sizes:    Sizes{OK: 1, Failed: 2, OKPlain: 3, FailedPlain: 4},
		Counts:   proto.Counts{Done: 5, Failed: 1, PromptTokens: 6, CompletionTokens: 7, Attempts: 8, Duplicates: 9},
		Tally:    tallyOf(0, 1, 2, 3, 7),
		Workers:  []WorkerSession{stintOf("gpu1", 3, 40)},
		Position: Position{Created: born, Seq: 10, Time: born}, At: born, Worked: 11,
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	t.Parallel()

	want := testHeader()
	prefix := "before"
	data, err := appendHeader([]byte(prefix), want)
	if err != nil {
		t.Fatal(err)
	}

	end := len(data)
	data = append(data, "zstd and what is behind"...)
	got, length, err := readHeader(bytes.NewReader(data), int64(len(prefix)), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}

	if int(length) != end-len(prefix) {
		t.Errorf("length %d, want %d", length, end-len(prefix))
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

func TestReadHeaderTorn(t *testing.T) {
	t.Parallel()

	whole, err := appendHeader(nil, testHeader())
	if err != nil {
		t.Fatal(err)
	}

	whole = append(whole, "zstd"...)
	// raw makes a header of any text, with the checksum that fits.
	raw := func(text string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, frameMagic)
		b = binary.LittleEndian.AppendUint32(b, uint32(8+len(text)))
		b = append(b, frameTag...)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum([]byte(text), crcTable))
		return append(b, text...)
	}

	with := func(offset int, value byte) []byte {
		b := bytes.Clone(whole)
		b[offset] = value
		return b
	}
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"only the fixed part", whole[:frameFixed]},
		{"the text cut", whole[:frameFixed+9]},
		{"the zstd frame cut", whole[:len(whole)-1]},
		{"another magic number", with(0, 0x56)},
		{"a length beyond the file", with(6, 1)},
		{"a length beyond all bounds", with(7, 0xff)},
		{"a length of zero", append(bytes.Clone(whole[:4]), make([]byte, 100)...)},
		{"another tag", with(11, '2')},
		{"another checksum", with(12, whole[12]+1)},
		{"a text that is not JSON", raw("{")},
		{"a negative size", raw(`{"packed":-1}`)},
		{"a negative length of lines", raw(`{"bytes":-1}`)},
		{"a size beyond the file", raw(`{"packed":1}`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if h, _, err := readHeader(bytes.NewReader(tt.data), 0, int64(len(tt.data))); !errors.Is(err, errTorn) {
				t.Errorf("readHeader = %+v, %v; want errTorn", h, err)
			}
		})
	}
}

// The search for the next frame reads in pieces of 1 MiB, and a magic number may lie
// across two of them.
func TestNextHeaderAcrossReads(t *testing.T) {
	t.Parallel()

	frame, err := appendHeader(nil, header{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}

	for _, before := range []int{0, 1, 1<<20 - 4, 1<<20 - 3, 1<<20 - 2, 1<<20 - 1, 1 << 20, 2<<20 - 5} {
		// A false magic number first must not end the search.
		junk := append(binary.LittleEndian.AppendUint32(nil, frameMagic), make([]byte, before)...)
		data := append(bytes.Clone(junk), frame...)
		got, err := nextHeader(bytes.NewReader(data), 0, int64(len(data)))
		if err != nil || got != int64(len(junk)) {
			t.Errorf("with %d bytes before it: nextHeader = %d, %v; want %d", before, got, err, len(junk))
		}
	}

	if got, err := nextHeader(bytes.NewReader(frame), 1, int64(len(frame))); got != -1 || err != nil {
		t.Errorf("nextHeader behind the last = %d, %v", got, err)
	}
}

func FuzzReadHeader(f *testing.F) {
	whole, err := appendHeader(nil, testHeader())
	if err != nil {
		f.Fatal(err)
	}

	f.Add(append(whole, "zstd"...), int64(0))
	f.Add(whole[:20], int64(3))
	f.Add([]byte("W*M\x18\xff\xff\xff\x7fpmj1"), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, offset int64) {
		if offset < 0 || offset > int64(len(data)) {
			return // callers give places in the file
		}

		r := &boundedReader{bytes.NewReader(data), len(data) + frameFixed}
		h, length, err := readHeader(r, offset, int64(len(data)))
		if r.left < 0 {
			t.Fatal("it asks for more than the file has")
		}

		if err != nil {
			if !errors.Is(err, errTorn) {
				t.Fatalf("error %v is not errTorn", err)
			}
			return
		}

		if length < frameFixed || h.Packed < 0 || offset+length+h.Packed > int64(len(data)) {
			t.Fatalf("frame of %d and %d bytes at %d in a file of %d", length, h.Packed, offset, len(data))
		}
	})
}

// boundedReader counts what is asked for: buffers are made before they are filled.
type boundedReader struct {
	*bytes.Reader
	left int
}

func (r *boundedReader) ReadAt(p []byte, offset int64) (int, error) {
	r.left -= len(p)
	return r.Reader.ReadAt(p, offset)
}

// A reader that takes the first frame's content size for that of all (python-zstandard's
// decompress) must find none, in a journal that was written, cut and compacted, and in a seekable
// file of several frames. A file of one frame says it.
func TestFirstFrameHasNoSize(t *testing.T) {
	t.Parallel()

	check := func(name string, data []byte, want bool) {
		t.Helper()
		var h zstd.Header
		if err := h.Decode(data); err != nil || h.Skippable || h.HasFCS != want {
			t.Errorf("%s: a skippable frame %t, a size %t, want %t (%v)", name, h.Skippable, h.HasFCS, want, err)
		}
	}

	j, ends, _ := newTestJournal(t, 5, []uint32{0, 1}, []uint32{2}, []uint32{3, 4})
	data, err := os.ReadFile(j.path)
	must(t, err)
	check("a journal", data, false)
	j.Close()
	flip(t, j.path, ends[1]+9)

	j = open(t, j.path)
	if data, err = os.ReadFile(j.path); err != nil || j.State().Cut == 0 {
		t.Fatalf("nothing was cut out (%v)", err)
	}

	check("a journal that was compacted", data, false)

	j = reopen(t, j)
	if j.State().Cut != 0 {
		t.Errorf("%d bytes were cut out of a whole journal", j.State().Cut)
	}

	for _, tt := range []struct {
		name  string
		lines int
		whole bool
	}{{"a seekable file of one frame", 1000, true}, {"one of several", 400_000, false}} {
		var file bytes.Buffer
		w, err := newSeekableWriter(&file)
		must(t, err)

		for range tt.lines {
			_, err := w.Write([]byte("{\"custom_id\": 1}\n"))
			must(t, err)
		}

		must(t, w.Close())
		check(tt.name, file.Bytes(), tt.whole)
	}
}

// The start of a journal is damaged: all its frames are read, and it is written again.
func TestJournalStartDamaged(t *testing.T) {
	t.Parallel()

	for at := range int64(len(journalStart)) {
		j, _, _ := newTestJournal(t, 3, []uint32{0, 1}, []uint32{2})
		j.Close()
		flip(t, j.path, at)

		j = open(t, j.path)
		if got := j.State().Done.GetCardinality(); got != 3 {
			t.Errorf("byte %d: %d requests are done, want 3", at, got)
		}

		checkText(t, j.path, linesOf(either, 0, 1, 2))
		if m, err := ReadManifest(j.path); err != nil || m.Run != "r" {
			t.Errorf("byte %d: the manifest is of run %q, %v", at, m.Run, err)
		}
	}
}
