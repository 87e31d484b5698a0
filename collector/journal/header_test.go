package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/metadata"
	"github.com/promptmill/promptmill/proto"
)

func testHeader() header {
	m := fixture.Manifest(9)

	return header{
		Run:      "r",
		Manifest: &m,
		Indexes:  "0-3,7",
		Failed:   "2",
		Bytes:    100,
		Packed:   4,
		CRC:      1 << 31,
		Sizes:    Sizes{OK: 1, Failed: 2, OKPlain: 3, FailedPlain: 4},
		Counts: proto.Counts{
			Done:             5,
			Failed:           1,
			PromptTokens:     6,
			CompletionTokens: 7,
			Attempts:         8,
			Truncated:        12,
			Duplicates:       9,
		},
		Stats:          statsOf(0, 1, 2, 3, 7),
		WorkerSessions: []WorkerSession{testSession()},
		Position:       Position{Created: fixture.Created, Sequence: 10, Time: fixture.Created},
		At:             fixture.Created,
		Worked:         11,
		Stops:          []proto.ReachedLimit{{Limit: "failed>1", Metric: "failed", Count: 2, Ended: 3, At: fixture.Created}},
	}
}

// testSession returns the session of a worker with one card.
func testSession() WorkerSession {
	return WorkerSession{
		Name:      "gpu1",
		Host:      "box",
		Version:   "v1",
		Platform:  "vLLM 0.11",
		Since:     fixture.Created,
		GPUs:      []metadata.GPU{{Name: "H200", MemoryBytes: new(int64(139 << 30))}},
		Meters:    []*float64{nil},
		Usage:     &proto.RunUsage{Requests: 3, EnergyJoules: new(40.0)},
		FirstSeen: fixture.Created,
		LastSeen:  fixture.Created,
	}
}

// readerOf returns a reader of some bytes.
func readerOf(data []byte) *frameReader {
	return &frameReader{path: "test", file: bytes.NewReader(data), size: int64(len(data))}
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
	data = append(data, "zstd and more after it"...)
	got, length, err := readerOf(data).readHeader(int64(len(prefix)))
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
		{"only the fixed part", whole[:fixedSize]},
		{"the text cut", whole[:fixedSize+9]},
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
			if h, _, err := readerOf(tt.data).readHeader(0); !isCorruption(err) {
				t.Errorf("readHeader = %+v, %v; want a CorruptionError", h, err)
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
		got, err := readerOf(data).nextHeader(0)
		if err != nil || got != int64(len(junk)) {
			t.Errorf("with %d bytes before it: nextHeader = %d, %v; want %d", before, got, err, len(junk))
		}
	}

	if got, err := readerOf(frame).nextHeader(1); got != -1 || err != nil {
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

		r := &boundedReader{bytes.NewReader(data), len(data) + fixedSize}
		h, length, err := (&frameReader{path: "test", file: r, size: int64(len(data))}).readHeader(offset)
		if r.left < 0 {
			t.Fatal("it asks for more than the file has")
		}

		if err != nil {
			if !isCorruption(err) {
				t.Fatalf("error %v is no CorruptionError", err)
			}
			return
		}

		if length < fixedSize || h.Packed < 0 || offset+length+h.Packed > int64(len(data)) {
			t.Fatalf("frame of %d and %d bytes at %d in a file of %d", length, h.Packed, offset, len(data))
		}
	})
}

// boundedReader counts the bytes that are asked for: buffers are made before they are filled.
type boundedReader struct {
	*bytes.Reader
	left int
}

func (r *boundedReader) ReadAt(p []byte, offset int64) (int, error) {
	r.left -= len(p)
	return r.Reader.ReadAt(p, offset)
}

// A reader that takes the first frame's content size for that of all (python-zstandard's
// decompress) must find none, in a journal that was written, cut and compacted.
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
	fixture.Must(t, err)
	check("a journal", data, false)
	j.Close()
	fixture.FlipBit(t, j.path, ends[1]+9)

	j = open(t, j.path)
	if data, err = os.ReadFile(j.path); err != nil || j.State().CutBytes == 0 {
		t.Fatalf("nothing was cut out (%v)", err)
	}

	check("a journal that was compacted", data, false)

	j = reopen(t, j)
	if j.State().CutBytes != 0 {
		t.Errorf("%d bytes were cut out of a whole journal", j.State().CutBytes)
	}
}

// The start of a journal is damaged: all its frames are read, and it is written again.
func TestJournalStartDamaged(t *testing.T) {
	t.Parallel()

	for at := range int64(len(fileStart)) {
		j, _, _ := newTestJournal(t, 3, []uint32{0, 1}, []uint32{2})
		j.Close()
		fixture.FlipBit(t, j.path, at)

		j = open(t, j.path)
		if got := j.State().Done.GetCardinality(); got != 3 {
			t.Errorf("byte %d: %d requests are done, want 3", at, got)
		}

		fixture.CheckText(t, j.path, fixture.Lines(fixture.Any, 0, 1, 2))
		if m, err := ReadManifest(j.path); err != nil || m.Run != "r" {
			t.Errorf("byte %d: the manifest is of run %q, %v", at, m.Run, err)
		}
	}
}
