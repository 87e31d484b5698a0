package bus

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// ObjectStore has a run's requests that do not fit into a message, and its input. It is one of
// NATS's object stores (ADR-20), which any client can read.
type ObjectStore struct {
	js  jetstream.JetStream
	run string
}

// Put stores data under name, unless it is there already.
func (o *ObjectStore) Put(ctx context.Context, name string, data []byte) error {
	sum := sha256.New()
	sum.Write(data)

	before, err := o.findObject(ctx, name)
	if err == nil && before.Digest == jetstream.GetObjectDigestValue(sum) && o.isWhole(ctx, before) {
		return nil
	}

	if putErr := o.PutReader(ctx, name, bytes.NewReader(data)); putErr != nil {
		return putErr
	}

	if err == nil {
		o.purgeChunks(ctx, before)
	}

	return nil
}

// isWhole reports whether all chunks of an object are there. A server that came back with
// less may have its name without them.
func (o *ObjectStore) isWhole(ctx context.Context, info *jetstream.ObjectInfo) bool {
	if !proto.IsToken(info.NUID) || info.Size > 0 && info.Chunks == 0 {
		return false
	}

	var state *jetstream.StreamInfo
	err := retryNoLeader(ctx, func(ctx context.Context) error {
		stream, err := o.js.Stream(ctx, "OBJ_"+info.Bucket)
		if err == nil {
			state, err = stream.Info(ctx, jetstream.WithSubjectFilter(chunkSubject(info)))
		}
		return err
	})

	return err == nil && state.State.Subjects[chunkSubject(info)] == uint64(info.Chunks)
}

// findObject returns the metadata of an object. A cluster that has no leader is waited for, 30 s.
func (o *ObjectStore) findObject(ctx context.Context, name string) (info *jetstream.ObjectInfo, err error) {
	err = retryNoLeader(ctx, func(ctx context.Context) error {
		store, err := o.js.ObjectStore(ctx, proto.ObjectsBucket(o.run))
		if err == nil {
			info, err = store.GetInfo(ctx, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for object %s of run %s: %w", name, o.run, err)
	}

	return info, nil
}

// chunkSize is the most bytes of an object in a message. One message is on its way at a time, so
// larger ones are faster over a long line, and smaller ones get through a thin one in time.
const chunkSize = 256 << 10

// PutReader stores the bytes of r under name, which must be new. The library's own Put has many
// chunks in flight, all in the same memory (nats.go 1.55): one that it must send again, since the
// stream had no leader, has the bytes of a later one by then, and comes after it.
func (o *ObjectStore) PutReader(ctx context.Context, name string, r io.Reader) error {
	bucket := proto.ObjectsBucket(o.run)
	if _, err := FindStream(ctx, o.js, "OBJ_"+bucket); err != nil {
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = jetstream.ErrBucketNotFound
		}
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}

	size := min(chunkSize, int(o.js.Conn().MaxPayload()/2))
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: uint32(size)}},
		Bucket:     bucket, NUID: rand.Text(),
	}

	err := o.putChunks(ctx, &info, r, make([]byte, size))
	if err == nil {
		err = o.putInfo(ctx, info)
	}
	if err == nil {
		return nil
	}

	o.purgeChunks(ctx, &info)

	return fmt.Errorf("store object %s of run %s: %w", name, o.run, err)
}

// purgeChunks deletes an object's chunks, even if ctx has ended. Without the right to do so it
// leaves them until the run is deleted.
func (o *ObjectStore) purgeChunks(ctx context.Context, info *jetstream.ObjectInfo) {
	if !proto.IsToken(info.NUID) {
		return // a pattern would match the chunks of other objects
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	PurgeStream(ctx, o.js, "OBJ_"+info.Bucket, jetstream.WithPurgeSubject(chunkSubject(info)))
}

// chunkSubject is the subject of an object's chunks.
func chunkSubject(info *jetstream.ObjectInfo) string { return "$O." + info.Bucket + ".C." + info.NUID }

// putChunks stores the bytes of r, and records their number and digest in info.
func (o *ObjectStore) putChunks(ctx context.Context, info *jetstream.ObjectInfo, r io.Reader, chunk []byte) error {
	sum := sha256.New()
	for {
		n, err := fillChunk(chunk, r)
		if n > 0 {
			sum.Write(chunk[:n])
			info.Size += uint64(n)
			info.Chunks++
			msg := nats.NewMsg(chunkSubject(info))
			msg.Data = chunk[:n]
			if err := publishOnce(ctx, o.js, msg, fmt.Sprintf("%s-%d", info.NUID, info.Chunks)); err != nil {
				return err
			}
		}

		if errors.Is(err, io.EOF) {
			info.Digest = jetstream.GetObjectDigestValue(sum)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fillChunk reads until the chunk is full. Unlike [io.ReadFull] it distinguishes the end of r,
// which is [io.EOF], from an end that r reports as too early.
func fillChunk(chunk []byte, r io.Reader) (n int, err error) {
	for n < len(chunk) && err == nil {
		var more int
		more, err = r.Read(chunk[n:])
		n += more
	}
	return n, err
}

// putInfo stores an object's name, in place of an earlier object of that name.
func (o *ObjectStore) putInfo(ctx context.Context, info jetstream.ObjectInfo) error {
	msg := nats.NewMsg("$O." + info.Bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(info.Name)))
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	var err error
	if msg.Data, err = json.Marshal(info); err != nil {
		return err
	}
	return publishOnce(ctx, o.js, msg, info.NUID)
}

// Has reports whether an object is there, with all that belongs to it.
func (o *ObjectStore) Has(ctx context.Context, name string) (bool, error) {
	info, err := o.findObject(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	return o.isWhole(ctx, info), nil
}

// Get returns the object called name, which may be no larger than a message's payload.
// [IsUnrecoverable] reports whether another attempt is in vain.
func (o *ObjectStore) Get(ctx context.Context, name string) ([]byte, error) {
	buf := limited{left: maxPayload}
	if err := o.Copy(ctx, &buf, name); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// limited is a buffer with a most size.
type limited struct {
	bytes.Buffer
	left int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("%w: it has more than %d bytes", proto.ErrFormat, maxPayload)
	}
	return l.Buffer.Write(p)
}

// Copy writes the object called name to w. It reads chunk by chunk, where the
// library's own Get makes a consumer: that needs a permission to make and delete
// consumers, and one that is lost with its server is waited for.
func (o *ObjectStore) Copy(ctx context.Context, w io.Writer, name string) error {
	info, err := o.findObject(ctx, name)
	if err != nil {
		return err
	}

	stream, err := FindStream(ctx, o.js, "OBJ_"+proto.ObjectsBucket(o.run))
	if err != nil {
		return fmt.Errorf("open objects of run %s: %w", o.run, err)
	}

	if !proto.IsToken(info.NUID) {
		return fmt.Errorf("read object %s of run %s: %w",
			name, o.run, proto.NewFieldError("object", "its chunks are under %q", proto.Excerpt(info.NUID)))
	}

	sum, at, size := sha256.New(), uint64(0), uint64(0)
	for left := info.Chunks; left > 0; left-- {
		var msg *jetstream.RawStreamMsg
		begin := time.Now()
		each := func() time.Duration { return AckTimeout(chunkSize, time.Since(begin)) }
		err := retryNoLeaderFor(ctx, electionTime, each, func(ctx context.Context) error {
			msg, err = stream.GetMsg(ctx, at+1, jetstream.WithGetMsgSubject(chunkSubject(info)))
			return err
		})
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			err = fmt.Errorf("%w: a part of it is lost", proto.ErrFormat)
		}
		if err != nil {
			return fmt.Errorf("read object %s of run %s: %w", name, o.run, err)
		}

		if size += uint64(len(msg.Data)); msg.Sequence <= at || size > info.Size {
			return fmt.Errorf("read object %s of run %s: %w",
				name, o.run, proto.NewFieldError("object", "it has more than the %d bytes that it says", info.Size))
		}

		at = msg.Sequence
		sum.Write(msg.Data)

		if _, err := w.Write(msg.Data); err != nil {
			return fmt.Errorf("copy object %s of run %s: %w", name, o.run, err)
		}
	}

	if jetstream.GetObjectDigestValue(sum) != info.Digest {
		return fmt.Errorf("read object %s of run %s: %w: its SHA-256 has changed", name, o.run, proto.ErrFormat)
	}

	return nil
}

// Delete removes the object called name, if it is there.
func (o *ObjectStore) Delete(ctx context.Context, name string) error {
	info, err := o.findObject(ctx, name)
	if err == nil && !proto.IsToken(info.NUID) { // with it the library would purge the chunks of others
		err = proto.NewFieldError("object", "%s has chunks under %q", name, proto.Excerpt(info.NUID))
	}
	if err == nil {
		err = retryNoLeader(ctx, func(ctx context.Context) error {
			store, err := o.js.ObjectStore(ctx, proto.ObjectsBucket(o.run))
			if err == nil {
				err = store.Delete(ctx, name)
			}
			return err
		})
	}
	if err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("delete object %s of run %s: %w", name, o.run, err)
	}

	return nil
}

// Offload moves a message's payload into the object store if the message would be
// larger than limit, the server's max_payload, and leaves its name in the header.
func (o *ObjectStore) Offload(ctx context.Context, msg *nats.Msg, name string, limit int64) error {
	if fitsMessage(msg, limit) {
		return nil
	}

	if err := o.Put(ctx, name, msg.Data); err != nil {
		return err
	}

	msg.Header.Set(proto.HeaderObject, name)
	msg.Data = nil

	return nil
}

// fitsMessage reports whether a message is not larger than limit, a server's max_payload.
func fitsMessage(msg *nats.Msg, limit int64) bool {
	const headers = 64 << 10 // room for the headers, and for what servers add on the way
	return int64(len(msg.Data)) <= limit-headers
}
