package proto

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Objects is a run's store of payloads that do not fit into a message. The store is
// made when the first is put.
type Objects struct {
	js  jetstream.JetStream
	run string
}

// NewObjects returns the object store of a run.
func NewObjects(js jetstream.JetStream, run string) *Objects { return &Objects{js: js, run: run} }

// Put stores data under name. The same name again replaces it.
func (o *Objects) Put(ctx context.Context, name string, data []byte) error {
	store, err := o.js.ObjectStore(ctx, ObjectsBucket(o.run))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		store, err = o.js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: ObjectsBucket(o.run)})
	}
	if err != nil {
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}
	if _, err := store.PutBytes(ctx, name, data); err != nil {
		return fmt.Errorf("store object %s of run %s: %w", name, o.run, err)
	}
	return nil
}

// Get returns the object called name.
func (o *Objects) Get(ctx context.Context, name string) ([]byte, error) {
	store, err := o.js.ObjectStore(ctx, ObjectsBucket(o.run))
	if err != nil {
		return nil, fmt.Errorf("open objects of run %s: %w", o.run, err)
	}
	data, err := store.GetBytes(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read object %s of run %s: %w", name, o.run, err)
	}
	return data, nil
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
