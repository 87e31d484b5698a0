package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// held is the number of bytes at the end of a text that are written when its checksum is known.
const held = 16 << 10

// mostWindow is the largest window of a frame that is read, in bytes: that of zstd -d.
const mostWindow = 128 << 20

// mostUnstated is the longest text whose size a file does not state, in bytes.
const mostUnstated = 255

// streamText is the text of a file that is one zstd frame.
type streamText struct {
	path   string
	file   *os.File
	packed int64 // bytes of the file
	bytes  int64 // of the text
}

// openStream returns the text of a file of packed bytes.
func openStream(path string, file *os.File, packed int64) (*streamText, error) {
	start := make([]byte, zstd.HeaderMaxSize)

	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open output: %w", err)
	}

	t := &streamText{
		path:   path,
		file:   file,
		packed: packed,
	}

	var h zstd.Header
	switch err := h.Decode(start[:n]); {
	case err != nil:
		return nil, corruption(path, 0, err)
	case h.Skippable || h.FrameContentSize > 1<<62:
		return nil, corruption(path, 0, errNoSize)
	case h.HasFCS:
		t.bytes = int64(h.FrameContentSize)
		return t, nil
	}

	// The encoder does not state the size of a text that is shorter than 256 bytes.
	dec, err := t.newDecoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()

	text, err := io.ReadAll(io.LimitReader(dec, mostUnstated+1))
	if err == nil && len(text) > mostUnstated {
		err = errNoSize
	}
	if err != nil {
		return nil, corruption(path, 0, err)
	}

	t.bytes = int64(len(text))

	return t, nil
}

// newDecoder returns a decoder of the file.
func (t *streamText) newDecoder() (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(io.NewSectionReader(t.file, 0, t.packed),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(mostWindow))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return dec, nil
}

func (t *streamText) size() int64 { return t.bytes }

// copyRange unpacks the next bytes while it writes some, unless other copies use all processors.
func (t *streamText) copyRange(ctx context.Context, w io.Writer, offset, n int64) error {
	if n <= overlapStep || !furtherLanes.TryAcquire(1) {
		return t.unpackRange(ctx, w, offset, n)
	}
	defer furtherLanes.Release(1)

	return copyOverlapped(w, func(w io.Writer) error { return t.unpackRange(ctx, w, offset, n) })
}

// unpackRange unpacks a range and writes it.
func (t *streamText) unpackRange(ctx context.Context, w io.Writer, offset, n int64) error {
	out := &rangeWriter{
		ctx:  ctx,
		w:    w,
		skip: offset,
		left: n,
	}
	if offset+n == t.bytes {
		out.hold = min(n, held)
	}

	if err := t.decode(out); err != nil {
		return err
	}

	return out.release()
}

// decode writes the text to out, which ends it after its range.
func (t *streamText) decode(out *rangeWriter) error {
	dec, err := t.newDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()

	_, err = dec.WriteTo(out)
	switch {
	case errors.Is(err, errRangeEnd):
		return nil
	case out.err != nil:
		return out.err
	case err == nil && out.total != t.bytes:
		err = errShort
	}
	if err != nil {
		return corruption(t.path, out.total, err)
	}

	return nil
}

// errRangeEnd stops a decoder when the range is written.
var errRangeEnd = errors.New("the range is written")

// rangeWriter writes a range of the text that it gets.
type rangeWriter struct {
	ctx        context.Context
	w          io.Writer
	skip, left int64 // bytes before the range, and in it, that are still to come
	hold       int64 // the last bytes of the range that release writes; 0: the range ends before the text

	total int64  // bytes so far
	held  []byte // the last bytes of the range
	err   error  // of w or ctx
}

func (r *rangeWriter) Write(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		r.err = context.Cause(r.ctx)
		return 0, r.err
	}

	r.total += int64(len(p))
	part := p[min(r.skip, int64(len(p))):]
	r.skip -= int64(len(p) - len(part))

	part = part[:min(r.left, int64(len(part)))]
	r.left -= int64(len(part))

	now := min(max(0, r.left+int64(len(part))-r.hold), int64(len(part)))
	if now > 0 {
		if _, r.err = r.w.Write(part[:now]); r.err != nil {
			return 0, r.err
		}
	}
	r.held = append(r.held, part[now:]...)

	if r.left == 0 && r.hold == 0 {
		return 0, errRangeEnd
	}

	return len(p), nil
}

// release writes the bytes that were held.
func (r *rangeWriter) release() error {
	_, err := r.w.Write(r.held)
	return err
}
