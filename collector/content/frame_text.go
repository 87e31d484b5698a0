package content

import (
	"context"
	"io"
	"sort"
	"sync"

	"github.com/promptmill/promptmill/collector/output"
)

// mostKept is the most memory that is kept for the next frame, in bytes. Only frames of one
// very long line need more.
const mostKept = 32 << 20

// decoders keeps decoders of frames with their memory.
var decoders sync.Pool

// frameText is a text in frames that can be unpacked one by one.
type frameText struct {
	// read returns the text of a frame, valid until the next use of dec.
	read func(i int, dec *output.FrameDecoder) ([]byte, error)

	frames []textFrame // those with text
}

// textFrame is a frame with text.
type textFrame struct {
	frame int   // for read
	end   int64 // of its text, in the whole text
}

// add adds the next frame, of size bytes.
func (t *frameText) add(frame int, size int64) {
	if size > 0 {
		t.frames = append(t.frames, textFrame{frame, t.size() + size})
	}
}

func (t *frameText) size() int64 { return t.startOf(len(t.frames)) }

// startOf returns the offset of the text of a frame of frames.
func (t *frameText) startOf(i int) int64 {
	if i == 0 {
		return 0
	}
	return t.frames[i-1].end
}

func (t *frameText) copyRange(ctx context.Context, w io.Writer, offset, n int64) error {
	end := offset + n
	first := sort.Search(len(t.frames), func(i int) bool { return t.frames[i].end > offset })
	last := sort.Search(len(t.frames), func(i int) bool { return t.frames[i].end >= end })

	dec, err := takeDecoder()
	if err != nil {
		return err
	}
	defer giveDecoder(dec)

	for i := first; i <= last; i++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		text, err := t.read(t.frames[i].frame, dec)
		if err != nil {
			return err
		}

		start := t.startOf(i)
		if _, err := w.Write(text[max(0, offset-start):min(int64(len(text)), end-start)]); err != nil {
			return err
		}
	}

	return nil
}

// takeDecoder returns a decoder that giveDecoder takes back.
func takeDecoder() (*output.FrameDecoder, error) {
	if dec, ok := decoders.Get().(*output.FrameDecoder); ok {
		return dec, nil
	}
	return output.NewFrameDecoder()
}

// giveDecoder keeps a decoder for the next one who needs it.
func giveDecoder(dec *output.FrameDecoder) {
	if dec.Capacity() > mostKept {
		dec.Close()
		return
	}
	decoders.Put(dec)
}
