package proto

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Objects is a run's store of payloads that do not fit into a message. The store is

type Objects struct {
	js  jetstream.JetStream
	run string
}

// NewObjects returns the object store of a run.
func NewObjects(js jetstream.JetStream, run string) *Objects { return &Objects{js: js, run: run} }

// Put stores data under name, unless it is there already. Other data must have
// another name: replacing an object purges the old one, which not everybody may.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	store, err := o.js.ObjectStore(ctx, ObjectsBucket(o.run))
	if err != nil {
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}
	sum := sha256.New()
	sum.Write(data)
	if info, err := store.GetInfo(ctx, name); err == nil && info.Digest == jetstream.GetObjectDigestValue(sum) && o.whole(ctx, info) {
		return nil
	}
	return o.PutReader(ctx, name, bytes.NewReader(data))
}

// whole reports whether all chunks of an object are there. The library may leave the
// name of one whose chunks were refused, for a full stream.
func (o *Objects) whole(ctx context.Context, info *jetstream.ObjectInfo) bool {
	stream, err := o.js.Stream(ctx, "OBJ_"+info.Bucket)
	if err != nil {
		return false
	}
	chunks := "$O." + info.Bucket + ".C." + info.NUID
	state, err := stream.Info(ctx, jetstream.WithSubjectFilter(chunks))
	return err == nil && state.State.Subjects[chunks] == uint64(info.Chunks)
}

// PutReader stores all that r gives under name, which must be new.
func (o *Objects) PutReader(ctx context.Context, name string, r io.Reader) error {
	store, err := o.js.ObjectStore(ctx, ObjectsBucket(o.run))
	if err != nil {
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}
	if _, err := store.Put(ctx, jetstream.ObjectMeta{Name: name}, r); err != nil {
		return fmt.Errorf("store object %s of run %s: %w", name, o.run, err)
	}
	return nil
}

// Get returns the object called name. The error says whether it can never be had:
// [Lost].
func (o *Objects) Get(ctx context.Context, name string) ([]byte, error) {
	var buf bytes.Buffer
	if err := o.Copy(ctx, &buf, name); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// Copy writes the object called name to w. It reads chunk by chunk, where the
// library's own Get makes a consumer: that needs a permission to make and delete
// consumers, and one that is lost with its server is waited for.
func (o *Objects) Copy(ctx context.Context, w io.Writer, name string) error {
	bucket := ObjectsBucket(o.run)
	store, err := o.js.ObjectStore(ctx, bucket)
	if err != nil {
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}
	info, err := store.GetInfo(ctx, name)
	if err != nil {
		return fmt.Errorf("look for object %s of run %s: %w", name, o.run, err)
	}
	stream, err := o.js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}
	chunks := jetstream.WithGetMsgSubject("$O." + bucket + ".C." + info.NUID) // ADR-20
	sum, at := sha256.New(), uint64(0)
	for left := info.Chunks; left > 0; left-- {
		msg, err := stream.GetMsg(ctx, at+1, chunks)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			err = fmt.Errorf("%w: a part of it is lost", ErrFormat)
		}
		if err != nil {
			return fmt.Errorf("read object %s of run %s: %w", name, o.run, err)
		}
		at = msg.Sequence
		sum.Write(msg.Data)
		if _, err := w.Write(msg.Data); err != nil {
			return fmt.Errorf("copy object %s of run %s: %w", name, o.run, err)
		}
	}
	if jetstream.GetObjectDigestValue(sum) != info.Digest {
		return fmt.Errorf("read object %s of run %s: %w: its SHA-256 is not what it was", name, o.run, ErrFormat)
	}
	return nil
}

// Delete removes the object called name, if it is there.
func (o *Objects) Delete(ctx context.Context, name string) error {
	store, err := o.js.ObjectStore(ctx, ObjectsBucket(o.run))
	if err == nil {
		err = store.Delete(ctx, name)
	}
	if err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("delete object %s of run %s: %w", name, o.run, err)
	}
	return nil
}

// Offload moves a message's payload into the object store if the message would be
// larger than limit, the server's max_payload, and leaves its name in the header.
func (o *Objects) Offload(ctx context.Context, msg *nats.Msg, name string, limit int64) error {
	const headers = 64 << 10 // room for the headers, and for what servers add on the way
	if int64(len(msg.Data)) <= limit-headers {
		return nil
	}
	if err := o.Put(ctx, name, msg.Data); err != nil {
		return err
	}
	msg.Header.Set(HeaderObject, name)
	msg.Data = nil
	return nil
}

// Payload returns a message's payload, from the object store if it was offloaded.
func (o *Objects) Payload(ctx context.Context, h nats.Header, data []byte) ([]byte, error) {
	name := h.Get(HeaderObject)
	if name == "" {
		return data, nil
	}
	return o.Get(ctx, name)
}

// Lost reports whether an error of [Objects.Get], [Objects.Copy] or [Objects.Payload]
// says that the object is not there or damaged, so that trying again is in vain.
func Lost(err error) bool {
	return errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, ErrFormat)
}
