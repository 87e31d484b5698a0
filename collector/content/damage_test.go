package content

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/output"
	"github.com/promptmill/promptmill/proto"
)

// formats are the formats of a complete output that are read in different ways.
var formats = []output.Format{{}, {Seekable: true}}

// writeComplete makes a complete output of answers, and returns its text.
func writeComplete(t testing.TB, out output.Prefix, format output.Format, answers, pad int) string {
	t.Helper()

	j := createJournal(t, out, 3*answers)
	var text strings.Builder
	for i := range uint32(answers) {
		line := randomLine(3*i, pad)
		text.Write(line)
		appendLines(t, j, line)
	}
	completeRun(t, j, out, format)

	return text.String()
}

// randomLine returns an answer of pad random characters.
func randomLine(index uint32, pad int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(index), 0))
	text := make([]byte, pad)
	for i := range text {
		text[i] = 'a' + byte(rnd.IntN(26))
	}

	return fixture.ResultLine(index, func(r *proto.Result) { r.Body = fmt.Appendf(nil, `{"text":"%s"}`, text) })
}

// checkDamaged reads a file that may be damaged, and reports whether that is noticed. It fails
// if another text comes without an error, or a whole one with it.
func checkDamaged(t *testing.T, out output.Prefix, want string) (damaged bool) {
	t.Helper()

	var (
		got  bytes.Buffer
		size int64
	)

	c, err := Open(Config{Output: out})
	if err == nil {
		defer c.Close()
		size = c.Size()
		err = c.CopyRange(t.Context(), &got, 0, size)
	}

	if err == nil {
		if got.String() != want {
			t.Errorf("another text of %d bytes without an error, want %d bytes", got.Len(), len(want))
		}
		return false
	}

	if !errors.Is(err, proto.ErrFormat) || !strings.HasPrefix(err.Error(), out.Results()+" is corrupt at byte ") {
		t.Errorf("%v, want an error that names the file and the place", err)
	}
	if strings.Contains(err.Error(), "EOF") {
		t.Errorf("%v is no text for a person", err)
	}

	if size > 0 && int64(got.Len()) >= size {
		t.Errorf("all %d bytes are written in spite of: %v", size, err)
	}

	return true
}

// A complete file that is damaged or cut off anywhere is an error, and never a whole text.
func TestDamagedFile(t *testing.T) {
	t.Parallel()

	for _, format := range formats {
		for _, answers := range []int{1, 40} {
			t.Run(fmt.Sprintf("seekable %t, %d answers", format.Seekable, answers), func(t *testing.T) {
				t.Parallel()

				out := testOutput(t)
				want := writeComplete(t, out, format, answers, 50)
				data, err := os.ReadFile(out.Results())
				fixture.Must(t, err)

				unnoticed := 0
				for at := 0; at < len(data); at += 1 + answers/8 { // each byte of a short file
					damaged := bytes.Clone(data)
					damaged[at] ^= 1 << (at % 8)
					fixture.Must(t, os.WriteFile(out.Results(), damaged, 0o644))
					if !checkDamaged(t, out, want) {
						unnoticed++
					}

					fixture.Must(t, os.WriteFile(out.Results(), data[:at], 0o644))
					checkDamaged(t, out, want)
				}

				// Some bits of headers mean nothing: the text is right without them.
				if unnoticed > 20 {
					t.Errorf("%d of %d damaged bytes are not noticed", unnoticed, len(data))
				}
			})
		}
	}
}

// A frame of a large seekable file is not written if it is damaged, and the frames before it
// are.
func TestDamagedFrame(t *testing.T) {
	t.Parallel()

	out := testOutput(t)
	want := writeComplete(t, out, output.Format{Seekable: true}, 120, 100_000)

	file, err := os.Open(out.Results())
	fixture.Must(t, err)
	defer file.Close()
	info, err := file.Stat()
	fixture.Must(t, err)

	frames, err := output.ReadSeekTable(file, info.Size())
	if err != nil || len(frames) < 3 {
		t.Fatalf("%d frames (%v), want several", len(frames), err)
	}

	fixture.FlipBit(t, out.Results(), frames[1].Offset+frames[1].Packed/2)

	c := openContent(t, Config{Output: out})

	var got bytes.Buffer
	_, isCorruption := errors.AsType[*CorruptionError](c.CopyRange(t.Context(), &got, 0, c.Size()))
	if !isCorruption || got.String() != want[:frames[0].Size] {
		t.Errorf("%d bytes, corruption %t; want the first frame's %d", got.Len(), isCorruption, frames[0].Size)
	}

	if after := frames[0].Size + frames[1].Size; readRange(t, c, after, c.Size()-after) != want[after:] {
		t.Error("the text after the damaged frame is another one")
	}
}

// Other zstd files are refused.
func TestOtherFile(t *testing.T) {
	t.Parallel()

	enc, err := zstd.NewWriter(nil)
	fixture.Must(t, err)
	text := []byte(strings.Repeat("a line\n", 100))

	var unsized bytes.Buffer
	enc.Reset(&unsized)
	enc.Write(text)
	enc.Close()

	for name, data := range map[string][]byte{
		"an empty file":       nil,
		"a text":              text,
		"two frames":          enc.EncodeAll(text, enc.EncodeAll(text, nil)),
		"a skippable frame":   []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"),
		"bytes after a frame": append(enc.EncodeAll(text, nil), 1, 2, 3, 4),
	} {
		out := testOutput(t)
		fixture.Must(t, os.WriteFile(out.Results(), data, 0o644))
		if !checkDamaged(t, out, "") {
			t.Errorf("%s is read", name)
		}
	}
}

// FuzzFile reads a file with any content, and files that are damaged.
func FuzzFile(f *testing.F) {
	var (
		valid [][]byte
		texts []string
	)
	for _, format := range formats {
		out := testOutput(f)
		texts = append(texts, writeComplete(f, out, format, 20, 30))

		data, err := os.ReadFile(out.Results())
		fixture.Must(f, err)

		valid = append(valid, data)
		f.Add(data, uint(len(valid)), uint(30), byte(1))
	}
	f.Add([]byte{}, uint(0), uint(0), byte(0))

	f.Fuzz(func(t *testing.T, data []byte, of, at uint, mask byte) {
		want, known := "", of < uint(len(valid))
		if known { // a valid file with a byte changed
			data, want = bytes.Clone(valid[of]), texts[of]
			data[at%uint(len(data))] ^= mask
		}

		out := testOutput(t)
		fixture.Must(t, os.WriteFile(out.Results(), data, 0o644))

		c, err := Open(Config{Output: out})
		if err != nil {
			return
		}
		defer c.Close()

		var got bytes.Buffer
		if err := c.CopyRange(t.Context(), &got, 0, c.Size()); err != nil {
			return
		}

		if int64(got.Len()) != c.Size() || known && got.String() != want {
			t.Errorf("%d bytes of another text, the size is %d", got.Len(), c.Size())
		}
	})
}
