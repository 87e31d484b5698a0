package content

import (
	"context"
	"io"
	"runtime"
	"sort"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/promptmill/promptmill/collector/output"
)

// mostLanes is the number of frames that a copy unpacks at once. Writing is slower than that.
const mostLanes = 4

// furtherLanes are the lanes beyond the first that all copies share: more than there are
// processors would only cost memory, about 6 MB for each.
var furtherLanes = semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0)))

// frameText is a text in frames that can be unpacked one by one.
type frameText struct {
	// read returns the text of a frame, valid until the next use of dec.
	read func(i int, dec *output.FrameDecoder) ([]byte, error)
	// decoders are for read.
	decoders *decoderPool

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

// copyRange unpacks the next frames while it writes one.
func (t *frameText) copyRange(ctx context.Context, w io.Writer, offset, n int64) error {
	end := offset + n
	first := sort.Search(len(t.frames), func(i int) bool { return t.frames[i].end > offset })
	last := sort.Search(len(t.frames), func(i int) bool { return t.frames[i].end >= end })

	lanes := make([]lane, 1, mostLanes)
	for len(lanes) < min(mostLanes, last-first+1) && furtherLanes.TryAcquire(1) {
		defer furtherLanes.Release(1)
		lanes = lanes[:len(lanes)+1]
	}

	ctx, cancel := context.WithCancel(ctx)
	var unpacking sync.WaitGroup
	defer unpacking.Wait()
	defer cancel()

	for k := range lanes {
		lanes[k] = lane{texts: make(chan frameResult), written: make(chan struct{}, 1)}
		unpacking.Go(func() { t.unpackLane(ctx, lanes[k], first+k, last, len(lanes)) })
	}

	for i := first; i <= last; i++ {
		lane := lanes[(i-first)%len(lanes)]

		text, err := lane.next(ctx)
		if err != nil {
			return err
		}

		start := t.startOf(i)
		if _, err := w.Write(text[max(0, offset-start):min(int64(len(text)), end-start)]); err != nil {
			return err
		}

		lane.written <- struct{}{}
	}

	return nil
}

// unpackLane unpacks the frames of a lane: each step-th one from i to last.
func (t *frameText) unpackLane(ctx context.Context, to lane, i, last, step int) {
	dec, err := t.decoders.take()
	if err != nil {
		to.give(ctx, frameResult{err: err})
		return
	}
	defer t.decoders.give(dec)

	for ; i <= last; i += step {
		text, err := t.read(t.frames[i].frame, dec)
		if !to.give(ctx, frameResult{text, err}) {
			return
		}
	}
}

// lane passes texts from the goroutine that unpacks them to the one that writes them.
type lane struct {
	texts   chan frameResult
	written chan struct{} // the text may be overwritten
}

// frameResult is the text of a frame, or why there is none.
type frameResult struct {
	text []byte
	err  error
}

// give passes on a text and waits until it is written. It reports whether another is wanted.
func (l lane) give(ctx context.Context, r frameResult) bool {
	select {
	case l.texts <- r:
	case <-ctx.Done():
		return false
	}

	select {
	case <-l.written:
		return true
	case <-ctx.Done():
		return false
	}
}

// next returns the next text, valid until written has a value. It returns the cause of the end
// of ctx.
func (l lane) next(ctx context.Context) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}

	select {
	case r := <-l.texts:
		return r.text, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// mostKept is the most memory that is kept for the next copy, in bytes. Only a frame of one
// very long line needs more.
const mostKept = 16 << 20

// decoderPool keeps decoders of frames with their memory.
type decoderPool struct {
	sync.Pool

	create func() (*output.FrameDecoder, error)
}

var (
	journalDecoders = decoderPool{create: output.NewCheckedFrameDecoder}
	outputDecoders  = decoderPool{create: output.NewFrameDecoder}
)

// take returns a decoder that give takes back.
func (p *decoderPool) take() (*output.FrameDecoder, error) {
	if dec, ok := p.Get().(*output.FrameDecoder); ok {
		return dec, nil
	}
	return p.create()
}

// give keeps a decoder for another copy.
func (p *decoderPool) give(dec *output.FrameDecoder) {
	if dec.Capacity() > mostKept {
		dec.Close()
		return
	}
	p.Put(dec)
}
