package testrun

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/promptmill/promptmill/collector/internal/fixture"
	"github.com/promptmill/promptmill/collector/tail"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// Reader is a reader at work, and the lines that it has given out.
type Reader struct {
	// Cut stops the reader, and does not wait.
	Cut context.CancelFunc
	// Ended is closed when Run has returned.
	Ended chan struct{}

	// Missed, Manifest and Err are Run's results. They are set once Ended is closed.
	Missed   *roaring.Bitmap
	Manifest proto.Manifest
	Err      error

	t testing.TB

	mu   sync.Mutex // guards text
	text strings.Builder
}

// StartReader runs a reader, as a process of its own would. write, if given, gets the lines
// before they count as given out, and may refuse them.
func (r *Run) StartReader(cfg tail.Config, write func(lines string) error) *Reader {
	r.T.Helper()

	cfg.JS, cfg.Run = r.JS, "r"
	reader, err := tail.New(cfg)
	fixture.Must(r.T, err)

	ctx, cut := context.WithCancel(r.T.Context())
	rd := &Reader{Cut: cut, Ended: make(chan struct{}), t: r.T}

	go func() {
		defer close(rd.Ended)

		rd.Missed, rd.Manifest, rd.Err = reader.Run(ctx, func(lines []byte) error {
			if write != nil {
				if err := write(string(lines)); err != nil {
					return err
				}
			}

			rd.mu.Lock()
			defer rd.mu.Unlock()

			rd.text.Write(lines)

			return nil
		})
	}()

	r.T.Cleanup(func() {
		cut()
		<-rd.Ended
	})

	return rd
}

// Given returns the lines that were given out so far.
func (r *Reader) Given() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// Check compares the lines that were given out so far.
func (r *Reader) Check(want string) {
	r.t.Helper()

	if diff := cmp.Diff(want, r.Given()); diff != "" {
		r.t.Errorf("lines (-want +given):\n%.3000s", diff)
	}
}

// WaitGiven waits until a text was given out, and checks that it was nothing else.
func (r *Reader) WaitGiven(want string) {
	r.t.Helper()
	prototest.Poll(r.t, Patience, "the lines", func() bool { return len(r.Given()) >= len(want) })
	r.Check(want)
}

// Wait waits until the reader ends by itself.
func (r *Reader) Wait() {
	r.t.Helper()
	Await(r.t, r.Ended, "the reader's end")
}

// Finish waits for the end of the run, in a state and without an error, and checks all
// lines that were given out and the requests that were missed.
func (r *Reader) Finish(state proto.State, want string, missed ...uint32) {
	r.t.Helper()

	r.Wait()
	if r.Err != nil {
		r.t.Fatalf("Run: %v", r.Err)
	}

	if r.Manifest.State != state {
		r.t.Errorf("the run is %s, want %s", r.Manifest.State, state)
	}

	r.Check(want)

	if !r.Missed.Equals(roaring.BitmapOf(missed...)) {
		r.t.Errorf("missed %v, want %v", r.Missed, missed)
	}
}

// Stop stops the reader, and returns what Run did.
func (r *Reader) Stop() error {
	r.Cut()
	<-r.Ended
	return r.Err
}
