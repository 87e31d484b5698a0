package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
	"github.com/promptmill/promptmill/proto/prototest"
)

// chunk is the size of an object's part in a message.
const chunk = 256 << 10

// openObjects returns the store of the run "r", and the stream behind it.
func openObjects(t *testing.T) (*bus.ObjectStore, jetstream.Stream, jetstream.JetStream) {
	t.Helper()
	_, js := prototest.Server(t)
	must(t, bus.EnsureStreams(t.Context(), js, manifest("r"), limits))
	stream, err := js.Stream(t.Context(), "OBJ_"+proto.ObjectsBucket("r"))
	must(t, err)
	return bus.New(js).Objects("r"), stream, js
}

// pattern is text without two chunks that are the same.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func state(t *testing.T, stream jetstream.Stream) jetstream.StreamState {
	t.Helper()
	info, err := stream.Info(t.Context())
	must(t, err)
	return info.State
}

func TestObjectsRoundTrip(t *testing.T) {
	t.Parallel()

	o, _, _ := openObjects(t)
	for _, tt := range []struct {
		name string // of the object too: it need not be a token
		size int
	}{
		{"nothing", 0},
		{"one byte", 1},
		{"a chunk", chunk},
		{"a chunk and a byte", chunk + 1},
		{"many/chunks, *.>", 5*chunk + 17},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := pattern(tt.size)
			must(t, o.PutReader(t.Context(), tt.name, iotest.HalfReader(bytes.NewReader(want))))
			got, err := o.Get(t.Context(), tt.name)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
		})
	}
}

// writes counts its writes, and fails at one of them.
type writes struct {
	n, failAt int
	bytes.Buffer
}

func (w *writes) Write(b []byte) (int, error) {
	if w.n++; w.n == w.failAt {
		return 0, io.ErrShortWrite
	}
	return w.Buffer.Write(b)
}

func TestObjectsCopy(t *testing.T) {
	t.Parallel()

	o, stream, js := openObjects(t)
	want := pattern(3*chunk + 1)
	must(t, o.Put(t.Context(), "other", pattern(chunk)))
	must(t, o.Put(t.Context(), "x", want))
	must(t, o.Put(t.Context(), "another", pattern(chunk)))

	var w writes
	if err := o.Copy(t.Context(), &w, "x"); err != nil || !bytes.Equal(w.Bytes(), want) {
		t.Errorf("%d bytes of %d, %v", w.Len(), len(want), err)
	}

	if w.n != 4 { // it must not take the memory of the whole
		t.Errorf("%d writes of 4 chunks", w.n)
	}

	if n := state(t, stream).Consumers; n != 0 { // not every role that reads may make them
		t.Errorf("%d consumers", n)
	}

	w = writes{failAt: 3}
	if err := o.Copy(t.Context(), &w, "x"); !errors.Is(err, io.ErrShortWrite) || w.n != 3 {
		t.Errorf("after %d writes, the third of which fails: %v", w.n, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Copy(ctx, io.Discard, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}

	if err := o.Copy(t.Context(), io.Discard, "nothing"); !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("no object: %v", err)
	}

	if err := bus.New(js).Objects("no-run").Copy(t.Context(), io.Discard, "x"); !errors.Is(err,
		jetstream.ErrBucketNotFound) {
		t.Errorf("no store: %v", err)
	}
}

func TestObjectsDamaged(t *testing.T) {
	t.Parallel()

	o, stream, js := openObjects(t)
	// The first message of an object is its first chunk.
	put := func(name string, size int) (seq uint64, subject string) {
		t.Helper()
		seq = state(t, stream).LastSeq + 1
		must(t, o.Put(t.Context(), name, pattern(size)))
		msg, err := stream.GetMsg(t.Context(), seq)
		must(t, err)
		return seq, msg.Subject
	}

	seq, subject := put("damaged", 10)
	must(t, stream.DeleteMsg(t.Context(), seq))
	_, err := js.Publish(t.Context(), subject, []byte("0123456789"))
	must(t, err)
	if _, err := o.Get(t.Context(), "damaged"); !errors.Is(err, proto.ErrFormat) {
		t.Errorf("a chunk that was changed: %v; want ErrFormat", err)
	}

	seq, _ = put("lost", 2*chunk)
	must(t, stream.DeleteMsg(t.Context(), seq))

	if got, err := o.Get(t.Context(), "lost"); err == nil {
		t.Errorf("an object without its first chunk is read as %d bytes", len(got))
	}

	_, subject = put("longer", 10)
	_, err = js.Publish(t.Context(), subject, []byte("more"))
	must(t, err)
	if got, err := o.Get(t.Context(), "longer"); err != nil || !bytes.Equal(got, pattern(10)) {
		t.Errorf("bytes after the end of an object are read: %d bytes, %v", len(got), err)
	}

	store, err := js.ObjectStore(t.Context(), proto.ObjectsBucket("r"))
	must(t, err)
	put("swapped", 10)
	info, err := store.GetInfo(t.Context(), "swapped")
	must(t, err)
	info.Digest = "SHA-256=AAAA"
	data, err := json.Marshal(info)
	must(t, err)
	last, err := stream.GetMsg(t.Context(), state(t, stream).LastSeq)
	must(t, err)
	_, err = js.PublishMsg(t.Context(), &nats.Msg{
		Subject: last.Subject,
		Header:  nats.Header{"Nats-Rollup": {"sub"}},
		Data:    data,
	})

	must(t, err)
	if _, err := o.Get(t.Context(), "swapped"); !errors.Is(err, proto.ErrFormat) {
		t.Errorf("another digest: %v; want ErrFormat", err)
	}
}

// An object that has lost a part is stored again, and the rest of the old one is deleted.
func TestObjectsPutRestores(t *testing.T) {
	t.Parallel()

	o, stream, _ := openObjects(t)
	data := pattern(2*chunk + 1)
	must(t, o.Put(t.Context(), "x", data))
	whole := state(t, stream).Msgs
	must(t, stream.DeleteMsg(t.Context(), state(t, stream).FirstSeq))
	must(t, o.Put(t.Context(), "x", data))
	if got, err := o.Get(t.Context(), "x"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	if n := state(t, stream).Msgs; n != whole {
		t.Errorf("%d messages, want the %d of one object", n, whole)
	}
}

func TestObjectsPutStoresOnce(t *testing.T) {
	t.Parallel()

	o, stream, _ := openObjects(t)
	data := pattern(chunk + 1)
	must(t, o.Put(t.Context(), "x", data))

	once := state(t, stream)
	if once.Msgs != 3 { // two chunks and the description
		t.Errorf("%d messages", once.Msgs)
	}

	must(t, o.Put(t.Context(), "x", data))
	if again := state(t, stream); again.LastSeq != once.LastSeq {
		t.Errorf("put again it is stored again: %d messages more", again.LastSeq-once.LastSeq)
	}

	must(t, o.Delete(t.Context(), "x"))
	must(t, o.Put(t.Context(), "x", data)) // the name of a deleted object is free

	if got, err := o.Get(t.Context(), "x"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// reading is a reader of one function.
type reading func() (int, error)

func (r reading) Read([]byte) (int, error) { return r() }

func TestObjectsPutReaderFails(t *testing.T) {
	t.Parallel()

	o, stream, _ := openObjects(t)
	ctx, cancel := context.WithCancel(t.Context())
	for _, tt := range []struct {
		err  error
		read func() (int, error) // of the rest
	}{
		{errors.New("the disk is gone"), nil},
		{io.ErrUnexpectedEOF, nil}, // as from a compressed file that is cut off
		{context.Canceled, func() (int, error) { cancel(); return 1, nil }},
	} {
		rest := iotest.ErrReader(tt.err)
		if tt.read != nil {
			rest = reading(tt.read)
		}

		if err := o.PutReader(ctx, "x", io.MultiReader(bytes.NewReader(pattern(2*chunk)), rest)); !errors.Is(err,
			tt.err) {
			t.Errorf("error %v; want %v", err, tt.err)
		}
	}

	if _, err := o.Get(t.Context(), "x"); !errors.Is(err, jetstream.ErrObjectNotFound) {
		t.Errorf("half an object: %v", err)
	}

	if n := state(t, stream).Msgs; n != 0 {
		t.Errorf("%d messages of half an object stay", n)
	}
}
