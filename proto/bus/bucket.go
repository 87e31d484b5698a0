package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bucket is a key-value bucket whose values only their owner understands. The library's own reads it with
// consumers, which no role may make.
type Bucket struct {
	js   jetstream.JetStream
	name string
}

// Entry is the value of a key, or its deletion.
type Entry struct {
	Key   string
	Value []byte
	// Deleted reports that the key has no value any more.
	Deleted bool
}

// Make makes the bucket, unless it is there. A cluster that has no leader is waited for, 30 s.
func (b *Bucket) Make(ctx context.Context, l Limits) error {
	cfg, _ := StreamConfigByName("KV_"+b.name, l)
	if err := createStream(ctx, b.js, cfg); err != nil {
		return fmt.Errorf("make bucket %s: %w", b.name, err)
	}
	return nil
}

// State returns the time at which the bucket was made, and the sequence of its last change. It returns an
// error that wraps [jetstream.ErrStreamNotFound] if there is no such bucket.
func (b *Bucket) State(ctx context.Context) (made time.Time, last uint64, err error) {
	stream, err := FindStream(ctx, b.js, "KV_"+b.name)
	if err != nil {
		return time.Time{}, 0, err
	}

	info := stream.CachedInfo()

	return info.Created, info.State.LastSeq, nil
}

// Changes returns the entries that changed after a sequence, and the sequence of the last of them. From 0
// on these are all entries.
func (b *Bucket) Changes(ctx context.Context, after uint64) (changed []Entry, last uint64, err error) {
	entries, last, err := entriesAfter(ctx, b.js, b.name, ">", after)
	for _, e := range entries {
		changed = append(changed, Entry{e.key, e.value, e.deleted})
	}
	return changed, last, err
}

// Get returns the value of a key, and its revision for [Bucket.Update]. It returns
// [jetstream.ErrKeyNotFound] if there is none.
func (b *Bucket) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	return lastEntry(ctx, b.js, b.name, key)
}

// Create stores the value of a key that has none. It returns [jetstream.ErrKeyExists] if it has one.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) error {
	return createEntry(ctx, b.js, b.name, key, value)
}

// Update stores the value of a key whose value has a revision. If it has another one by now,
// [IsWrongSequence] is true of the error.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) error {
	return updateEntry(ctx, b.js, b.name, key, value, revision)
}

// Put stores the value of a key, in place of any other.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) error {
	return putEntry(ctx, b.js, b.name, key, value)
}
