package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/promptmill/promptmill/deploy/exit"
)

// readTimeout is the longest wait for the next bytes of an answer.
const readTimeout = time.Minute

// errStalled is the cause of the end of a request that got no bytes for [readTimeout].
var errStalled = errors.New("no bytes arrived for a minute")

// headSize is the number of bytes that opening a file reads. The readers of inputs look at as
// many to find out the format, so that looking makes no further request.
const headSize = 256 << 10

// windowSize is the number of bytes that ReadAt reads at least where reads follow each other.
const windowSize = 1 << 20

// remoteFile is an open file of a store. Opening it reads its beginning. Reading on from there
// is one request for the rest, which is repeated from where it broke; ReadAt is a request for
// one range, and of some more bytes if the ranges follow each other.
type remoteFile struct {
	ctx   context.Context
	store store
	key   string
	// name is the URL for people.
	name    string
	retrier retrier
	// object describes the file. All requests must find its version.
	object object
	// head is the beginning of the file.
	head []byte
	// recent keeps the head and the last small ranges, also for the next one who opens the file.
	recent *recentParts

	// mu guards readEnd.
	mu sync.Mutex
	// readEnd is the end of the last range that ReadAt was asked for.
	readEnd int64

	// offset is the offset of the next Read.
	offset int64
	// body is the answer that is being read. Nil: none.
	body *watchedBody
	// bodyOffset is the offset of its next byte.
	bodyOffset int64
}

// openRemote opens a file of a store, with a version if that is not empty.
func openRemote(
	ctx context.Context, s store, key, name, version string, r retrier, recent *recentParts,
) (*remoteFile, error) {
	f := &remoteFile{
		ctx:     ctx,
		store:   s,
		key:     key,
		name:    name,
		retrier: r,
		recent:  recent,
		object:  object{Size: -1, Version: version},
	}

	if head, found := recent.find(name, version, 0); head != nil {
		f.object, f.head = found, head
		return f, nil
	}

	if err := r.retry(ctx, name, f.readHead); err != nil {
		return nil, err
	}

	return f, nil
}

// readHead reads the beginning of the file and describes the file.
func (f *remoteFile) readHead() error {
	body, found, err := f.open(part{
		Length:  headSize,
		Version: f.object.Version,
	})
	if err != nil {
		return err
	}

	head := make([]byte, min(headSize, found.Size))
	if _, err := io.ReadFull(body, head); err != nil {
		body.Close()
		return connectionFailure(err)
	}

	f.object, f.head = found, head
	f.recent.add(recentPart{
		name:   f.name,
		object: found,
		data:   head,
	})

	if found.Sequential && found.Size > headSize { // the answer is the whole file
		f.body, f.bodyOffset = body, headSize
		return nil
	}

	body.Close()

	return nil
}

// open makes a request for a part of the file, and refuses another version of it.
func (f *remoteFile) open(p part) (*watchedBody, object, error) {
	body, found, err := openWatched(f.ctx, f.store, f.key, p)
	if f.object.Version != "" && errors.Is(err, fs.ErrNotExist) {
		return nil, object{}, changedObject(f.name, "is no longer there")
	}
	if err != nil {
		return nil, object{}, err
	}

	changed := ""
	switch {
	case f.object.Version != "" && found.Version != f.object.Version:
		changed = "has another ETag now"
	case f.object.Size >= 0 && found.Size != f.object.Size:
		changed = fmt.Sprintf("has %d bytes now, not %d", found.Size, f.object.Size)
	}

	if changed != "" {
		body.Close()
		return nil, object{}, changedObject(f.name, changed)
	}

	return body, found, nil
}

// Size implements inputfile.File.
func (f *remoteFile) Size() int64 { return f.object.Size }

// Read implements io.Reader.
func (f *remoteFile) Read(p []byte) (int, error) {
	left := f.object.Size - f.offset
	switch {
	case left <= 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	case f.offset < int64(len(f.head)):
		n := copy(p, f.head[f.offset:])
		f.offset += int64(n)
		return n, nil
	}

	p = p[:min(int64(len(p)), left)]
	for failures := 1; ; failures++ {
		n, err := f.readBody(p)
		if n > 0 {
			f.offset += int64(n)
			return n, nil
		}

		f.closeBody()

		if err := f.retrier.wait(f.ctx, f.name, failures, err); err != nil {
			return 0, err
		}
	}
}

// readBody reads from the answer that is being read, or from a new one. It returns an error if
// it reads nothing.
func (f *remoteFile) readBody(p []byte) (int, error) {
	if err := f.moveBody(); err != nil {
		return 0, err
	}

	n, err := io.ReadAtLeast(f.body, p, 1)
	f.bodyOffset += int64(n)
	if n > 0 {
		return n, nil
	}

	return 0, connectionFailure(err)
}

// moveBody makes the answer that is being read continue at the offset.
func (f *remoteFile) moveBody() error {
	if f.body != nil && f.bodyOffset > f.offset {
		f.closeBody()
	}

	if f.body == nil {
		body, found, err := f.open(part{
			Offset:  f.offset,
			Length:  -1,
			Version: f.object.Version,
		})
		if err != nil {
			return err
		}

		f.body, f.bodyOffset = body, found.First // a server may send the whole file in place of a part
	}

	skipped, err := io.CopyN(io.Discard, f.body, f.offset-f.bodyOffset)
	f.bodyOffset += skipped
	if err != nil {
		return connectionFailure(err)
	}

	return nil
}

// closeBody closes the answer that is being read.
func (f *remoteFile) closeBody() {
	if f.body != nil {
		f.body.Close()
		f.body = nil
	}
}

// skippedBytes is the largest distance that Seek moves forward by reading. A new request costs
// more.
const skippedBytes = 256 << 10

// Seek implements io.Seeker.
func (f *remoteFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.object.Size
	}

	if offset < 0 {
		return 0, fmt.Errorf("%s: byte %d is before its beginning", f.name, offset)
	}

	f.offset = offset
	if f.body != nil && !f.object.Sequential && offset-f.bodyOffset > skippedBytes {
		f.closeBody()
	}

	return offset, nil
}

// ReadAt implements io.ReaderAt. It makes one request at most.
func (f *remoteFile) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("%s: byte %d is before its beginning", f.name, offset)
	}

	end := min(offset+int64(len(p)), f.object.Size)
	n := 0
	if offset < int64(len(f.head)) {
		n = copy(p, f.head[offset:])
	}

	if at := offset + int64(n); at < end {
		if f.object.Sequential {
			return n, f.refuseReadAt()
		}

		got, err := f.readRange(p[n:end-offset], at)
		n += got
		if err != nil {
			return n, err
		}
	}

	if n < len(p) {
		return n, io.EOF
	}

	return n, nil
}

// refuseReadAt returns the error of a file whose server sends no parts.
func (f *remoteFile) refuseReadAt() error {
	return exit.Usage("download it first",
		"%s: the server cannot send a part of a file, and this format is read in parts", f.name)
}

// readRange reads a range of the file behind its head.
func (f *remoteFile) readRange(p []byte, offset int64) (n int, err error) {
	kept, _ := f.recent.find(f.name, f.object.Version, offset)
	n = copy(p, kept)

	f.mu.Lock()
	gap := offset - f.readEnd
	f.readEnd = offset + int64(len(p))
	f.mu.Unlock()

	left := p[n:]
	if len(left) == 0 {
		return n, nil
	}

	if len(left) >= windowSize || f.object.Version == "" {
		got, err := f.readParts(left, len(left), offset+int64(n))
		return n + got, err
	}

	window := int64(len(left))
	if gap >= 0 && gap <= windowSize {
		window = min(windowSize, f.object.Size-offset-int64(n))
	}

	data := make([]byte, window)
	got, err := f.readParts(data, len(left), offset+int64(n))
	f.recent.add(recentPart{
		name:   f.name,
		object: f.object,
		offset: offset + int64(n),
		data:   data[:got],
	})

	return n + copy(left, data[:got]), err
}

// readParts reads a range of the file, and continues where a connection breaks. It is content
// with the bytes that are needed if the connection breaks behind them.
func (f *remoteFile) readParts(p []byte, needed int, offset int64) (n int, err error) {
	for failures := 1; ; failures++ {
		got, err := f.readPart(p[n:], offset+int64(n))
		if n += got; err == nil || n >= needed {
			return n, nil
		}

		if got > 0 {
			failures = 1
		}

		if err := f.retrier.wait(f.ctx, f.name, failures, err); err != nil {
			return n, err
		}
	}
}

// readPart reads a part of the file with a request of its own.
func (f *remoteFile) readPart(p []byte, offset int64) (int, error) {
	body, found, err := f.open(part{
		Offset:  offset,
		Length:  int64(len(p)),
		Version: f.object.Version,
	})
	if err != nil {
		return 0, err
	}
	defer body.Close()

	if found.First != offset { // to skip to each part would read the file once a part
		return 0, &temporaryError{
			err:      errors.New("the server answers a request for a part with the whole file"),
			attempts: 3,
			final:    f.refuseReadAt(),
		}
	}

	n, err := io.ReadFull(body, p)
	if err != nil {
		return n, connectionFailure(err)
	}

	return n, nil
}

// Close implements io.Closer.
func (f *remoteFile) Close() error {
	f.closeBody()
	f.head = nil

	return nil
}

// watchedBody is an answer that ends when no bytes arrive for [readTimeout]. The time between
// two reads does not count.
type watchedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// openWatched opens a part of an object.
func openWatched(ctx context.Context, s store, key string, p part) (*watchedBody, object, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(readTimeout, func() { cancel(errStalled) })
	body, found, err := s.Open(ctx, key, p)
	timer.Stop()

	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = connectionFailure(errStalled)
		}
		cancel(nil)
		return nil, object{}, err
	}

	return &watchedBody{
		body:   body,
		ctx:    ctx,
		cancel: cancel,
		timer:  timer,
	}, found, nil
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(readTimeout)
	n, err := b.body.Read(p)
	b.timer.Stop()

	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}

	return n, err
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.body.Close()
	b.cancel(nil)

	return err
}
