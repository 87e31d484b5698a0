package content

import (
	"errors"
	"io"
	"sync"
)

// overlapStep is the number of bytes that are written at once while the next ones are unpacked.
const overlapStep = 1 << 20

// errWriterGone stops an unpacking whose bytes are no longer wanted.
var errWriterGone = errors.New("the writer has failed")

// copyOverlapped writes to w what unpack writes, and unpacks the next bytes meanwhile. It returns the
// error of w, or that of unpack, whose bytes until then are written.
func copyOverlapped(w io.Writer, unpack func(io.Writer) error) error {
	o := &overlap{
		step:    make([]byte, 0, overlapStep),
		full:    make(chan []byte),
		written: make(chan []byte, 1),
		stop:    make(chan struct{}),
	}
	o.written <- make([]byte, 0, overlapStep)

	var unpackErr error
	var unpacking sync.WaitGroup
	defer unpacking.Wait()
	defer close(o.stop)

	unpacking.Go(func() {
		defer close(o.full)

		unpackErr = unpack(o)
		if len(o.step) > 0 {
			o.pass() // it fails only after w has failed
		}
	})

	for step := range o.full {
		if _, err := w.Write(step); err != nil {
			return err
		}
		o.written <- step[:0]
	}

	return unpackErr
}

// overlap passes bytes in large steps from the goroutine that unpacks them to the one that writes them.
type overlap struct {
	// step is being filled. Its goroutine is the one that unpacks.
	step []byte

	full    chan []byte
	written chan []byte   // steps that may be overwritten
	stop    chan struct{} // closed when no more is wanted
}

var _ io.Writer = (*overlap)(nil)

// Write implements io.Writer. It waits while both steps are full.
func (o *overlap) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), cap(o.step)-len(o.step))]
		o.step = append(o.step, part...)
		n += len(part)
		p = p[len(part):]

		if len(o.step) == cap(o.step) {
			if err := o.pass(); err != nil {
				return n, err
			}
		}
	}

	return n, nil
}

// pass gives the step away and takes the other one, once it is written.
func (o *overlap) pass() error {
	select {
	case o.full <- o.step:
	case <-o.stop:
		return errWriterGone
	}

	select {
	case o.step = <-o.written:
		return nil
	case <-o.stop:
		return errWriterGone
	}
}
