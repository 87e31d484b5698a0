package filestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A body that ends early, with whatever error, leaves nothing behind, and its error is kept.
func TestBodyEndsEarly(t *testing.T) {
	t.Parallel()

	ended := errors.New("ended")
	for _, tt := range []struct {
		name string
		err  error
		body func(cancel context.CancelCauseFunc) io.Reader
	}{
		{
			name: "error",
			err:  ended,
			body: func(context.CancelCauseFunc) io.Reader {
				return io.MultiReader(newPattern(copyStep+10), iotest.ErrReader(ended))
			},
		},
		{
			name: "a form that was cut off",
			err:  io.ErrUnexpectedEOF,
			body: func(context.CancelCauseFunc) io.Reader {
				return io.MultiReader(newPattern(10), iotest.ErrReader(io.ErrUnexpectedEOF))
			},
		},
		{
			name: "the end of the context",
			err:  ended,
			body: func(cancel context.CancelCauseFunc) io.Reader {
				return io.MultiReader(newPattern(10), readerFunc(func([]byte) (int, error) {
					cancel(ended)
					return 0, nil
				}), newPattern(10))
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := openTest(t, t.TempDir())
			up, err := s.CreateUpload(Upload{})
			must(t, err)

			for _, store := range []func(context.Context, io.Reader) error{
				func(ctx context.Context, r io.Reader) error {
					_, err := s.Create(ctx, File{}, r)
					return err
				},
				func(ctx context.Context, r io.Reader) error {
					_, err := s.AddPart(ctx, up.ID, r)
					return err
				},
			} {
				ctx, cancel := context.WithCancelCause(t.Context())
				err := store(ctx, tt.body(cancel))
				cancel(nil)
				if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			}

			left := append(listTree(t, s.filesDir), listTree(t, s.uploadsDir)...)
			if diff := cmp.Diff([]string{up.ID + ".json"}, left); diff != "" {
				t.Errorf("left on disk (-want +got):\n%s", diff)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Bytes in small steps, and an error together with the last bytes, are read whole.
func TestBodyInSteps(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	text := string(randomBytes(3000))
	for _, r := range []io.Reader{
		iotest.OneByteReader(strings.NewReader(text)),
		iotest.DataErrReader(strings.NewReader(text)),
	} {
		f, err := s.Create(t.Context(), File{}, r)
		must(t, err)
		if readFile(t, s, f.ID) != text {
			t.Errorf("the file has other bytes")
		}
	}
}

// A file that goes to the disk in several steps is stored whole.
func TestLargeFile(t *testing.T) {
	t.Parallel()

	const size = 2*writebackStep + 12345

	hash := sha256.New()
	_, err := io.Copy(hash, newPattern(size))
	must(t, err)

	s := openTest(t, t.TempDir())
	f, err := s.Create(t.Context(), File{}, newPattern(size))
	must(t, err)

	stored := sha256.Sum256([]byte(readFile(t, s, f.ID)))
	want := hex.EncodeToString(hash.Sum(nil))
	if f.Bytes != size || f.SHA256 != want || hex.EncodeToString(stored[:]) != want {
		t.Errorf("%d bytes with %s and %x on disk, want %d with %s", f.Bytes, f.SHA256, stored, size, want)
	}
}

// Calls that complete one upload at the same time return one file, and a part that comes at this
// time is either in its upload or refused.
func TestCompleteAtOnce(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	up, err := s.CreateUpload(Upload{Bytes: 3})
	must(t, err)
	part, err := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	must(t, err)

	var (
		calls sync.WaitGroup
		files [4]*File
	)
	for i := range files {
		calls.Go(func() {
			done, err := s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, "")
			if err != nil {
				t.Error(err)
				return
			}
			files[i] = done.File
		})

		calls.Go(func() {
			_, err := s.AddPart(t.Context(), up.ID, strings.NewReader("def"))
			if err != nil && !errors.Is(err, ErrUploadEnded) {
				t.Error(err)
			}
		})
	}

	calls.Wait()

	for _, f := range files {
		if f == nil || f.ID != files[0].ID {
			t.Fatalf("files %v", files)
		}
	}

	if got := append(listTree(t, s.filesDir), listTree(t, s.uploadsDir)...); len(got) != 3 {
		t.Errorf("on disk: %v", got)
	}
}

// goneContext is a context that ends just after the call had its turn.
type goneContext struct{ context.Context }

func (goneContext) Done() <-chan struct{} { return nil }
func (goneContext) Err() error            { return context.Canceled }

// A completion does not stop when its client has waited too long.
func TestCompleteOutlivesRequest(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	up, err := s.CreateUpload(Upload{Bytes: 3})
	must(t, err)
	part, err := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	must(t, err)

	done, err := s.CompleteUpload(goneContext{t.Context()}, up.ID, []string{part.ID}, "")
	must(t, err)
	if text := readFile(t, s, done.File.ID); text != "abc" {
		t.Errorf("file %q", text)
	}
}

// After Close, calls that change the store are refused, and change nothing.
func TestClosed(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := openTest(t, dir)
	f, err := s.Create(t.Context(), File{}, strings.NewReader("abc"))
	must(t, err)
	up, err := s.CreateUpload(Upload{Bytes: 3})
	must(t, err)
	part, err := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	must(t, err)
	p, err := s.Begin(t.Context(), strings.NewReader("abc"))
	must(t, err)
	defer p.Abort()

	must(t, s.Close())
	must(t, s.Close())

	_, createErr := s.Create(t.Context(), File{}, strings.NewReader("abc"))
	_, commitErr := p.Commit(File{})
	_, uploadErr := s.CreateUpload(Upload{})
	_, partErr := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	_, completeErr := s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, "")
	_, cancelErr := s.CancelUpload(up.ID)
	_, expireErr := s.RemoveExpired(time.Now(), func(string) bool { return false })
	for i, err := range []error{
		createErr, commitErr, uploadErr, partErr, completeErr, cancelErr, expireErr, s.Delete(f.ID),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("call %d: %v, want ErrClosed", i, err)
		}
	}

	want := []string{
		"files/" + f.ID, "files/" + f.ID + ".json", "lock", "uploads/" + up.ID + ".json",
		"uploads/" + up.ID + "/" + part.ID,
	}
	if diff := cmp.Diff(want, listTree(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

// Close stops a completion, which leaves the upload as it was.
func TestCloseStopsCompletion(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := openTest(t, dir)
	up, err := s.CreateUpload(Upload{Bytes: 3})
	must(t, err)
	part, err := s.AddPart(t.Context(), up.ID, strings.NewReader("abc"))
	must(t, err)

	s.stop(ErrClosed) // as Close does first
	if _, err := s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, ""); !errors.Is(err, ErrClosed) {
		t.Errorf("CompleteUpload: %v, want ErrClosed", err)
	}

	must(t, s.Close())

	s = openTest(t, dir)
	_, err = s.CompleteUpload(t.Context(), up.ID, []string{part.ID}, "")
	must(t, err)
}

// A call that waits for another to end an upload stops waiting with its context.
func TestCompleteWaits(t *testing.T) {
	t.Parallel()

	s := openTest(t, t.TempDir())
	up, err := s.CreateUpload(Upload{})
	must(t, err)
	_, release, err := s.takeUpload(t.Context(), up.ID)
	must(t, err)
	defer release()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.CompleteUpload(ctx, up.ID, nil, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("CompleteUpload: %v, want the end of its context", err)
	}

	if _, err := s.AddPart(context.WithoutCancel(ctx), "upload_", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("AddPart to an unknown upload: %v", err)
	}
}
