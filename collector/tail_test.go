package collector

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// tail is a reader at work, and what it has given out.
type tail struct {
	t     testing.TB
	cut   context.CancelFunc // tells it to stop, and does not wait
	ended chan struct{}

	mu   sync.Mutex
	text strings.Builder

	// What Run returned, once it has ended.
	missed *roaring.Bitmap
	m      proto.Manifest
	err    error
}

// tail runs a reader of its own, as a new process would. write, if given, gets the
// lines before they count as given out, and may refuse them.
func (b *bench) tail(cfg ReaderConfig, write func(lines string) error) *tail {
	b.t.Helper()

	cfg.JS, cfg.Run = b.js, "r"
	ctx, cut := context.WithCancel(b.t.Context())
	tl := &tail{t: b.t, cut: cut, ended: make(chan struct{})}
	go func() {
		defer close(tl.ended)

		tl.missed, tl.m, tl.err = NewReader(cfg).Run(ctx, func(lines []byte) error {
			if write != nil {
				if err := write(string(lines)); err != nil {
					return err
				}
			}

			tl.mu.Lock()
			defer tl.mu.Unlock()

			tl.text.Write(lines)

			return nil
		})
	}()

	b.t.Cleanup(func() {
		cut()
		<-tl.ended
	})

	return tl
}

// given is what was given out so far.
func (tl *tail) given() string {
	tl.mu.Lock()
	defer tl.mu.Unlock()
	return tl.text.String()
}

// waitGiven waits until a text was given out, and checks that it was nothing else.
func (tl *tail) waitGiven(want string) {
	tl.t.Helper()
	prototest.Poll(tl.t, patience, "the lines", func() bool { return len(tl.given()) >= len(want) })
	tl.check(want)
}

func (tl *tail) check(want string) {
	tl.t.Helper()
	if diff := cmp.Diff(want, tl.given()); diff != "" {
		tl.t.Errorf("lines (-want +given):\n%.3000s", diff)
	}
}

// wait waits until the reader ends by itself.
func (tl *tail) wait() {
	tl.t.Helper()
	await(tl.t, tl.ended, "the reader's end")
}

// finish waits for the end of the run, in a state and without an error, and checks all
// that was given out and what was missed.
func (tl *tail) finish(state proto.State, want string, missed ...uint32) {
	tl.t.Helper()

	tl.wait()
	if tl.err != nil {
		tl.t.Fatalf("Run: %v", tl.err)
	}

	if tl.m.State != state {
		tl.t.Errorf("the run is %s, want %s", tl.m.State, state)
	}

	tl.check(want)
	if !tl.missed.Equals(roaring.BitmapOf(missed...)) {
		tl.t.Errorf("missed %v, want %v", tl.missed, missed)
	}
}

// stop stops the reader, and returns what Run did.
func (tl *tail) stop() error {
	tl.cut()
	<-tl.ended
	return tl.err
}
