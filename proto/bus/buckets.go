package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// BucketConfigs returns the streams of the key-value buckets that all runs share.
func BucketConfigs(l Limits) []jetstream.StreamConfig {
	manifests := l.bucketConfig(proto.RunsBucket, "manifests", 64<<20, 4<<20, 0)
	manifests.RePublish = republishStored()

	return []jetstream.StreamConfig{
		manifests,
		l.bucketConfig(proto.PresenceBucket, "workers and collectors", 16<<20, 256<<10, proto.PresenceTTL),
		l.bucketConfig(proto.ReadersBucket, "positions of readers", 64<<20, 8<<20, 0),
	}
}

// WebhooksConfig returns the stream of the bucket of webhooks, which only a bus with webhooks has.
func WebhooksConfig(l Limits) jetstream.StreamConfig {
	return l.bucketConfig(proto.WebhooksBucket, "webhooks", 64<<20, 16<<10, proto.WebhooksTTL)
}

// bucketConfig returns the stream of a key-value bucket of a size, in bytes, whose values have a size at
// most and end after a time; 0: never. The library's own have no bounds, and let every writer empty the
// bucket by a header (Nats-Rollup).
func (l Limits) bucketConfig(name, holds string, size, value int64, ttl time.Duration) jetstream.StreamConfig {
	if l.ResultsBytes > 0 { // on a small disk
		size = min(size, max(l.ResultsBytes/4, 1<<20))
	}

	cfg := jetstream.StreamConfig{
		Name:              "KV_" + name,
		Description:       "promptmill: " + holds,
		Subjects:          []string{"$KV." + name + ".>"},
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardNew,
		MaxMsgsPerSubject: 1,
		MaxBytes:          size,
		MaxMsgSize:        int32(min(value, size)),
		MaxAge:            ttl,
		Duplicates:        2 * time.Minute,
		Replicas:          max(1, l.Replicas),
		AllowDirect:       true,
		DenyDelete:        true,
	}
	if ttl > 0 {
		cfg.Duplicates = min(cfg.Duplicates, ttl)
	}

	return cfg
}

// CreateBuckets makes the missing buckets of [BucketConfigs]. A cluster that has no leader is
// waited for, 30 s.
func CreateBuckets(ctx context.Context, js jetstream.JetStream, l Limits) error {
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()

	for _, cfg := range BucketConfigs(l) {
		if err := createStream(ctx, js, cfg); err != nil {
			return fmt.Errorf("make bucket %s: %w", strings.TrimPrefix(cfg.Name, "KV_"), err)
		}
	}

	return nil
}

// UpgradeBuckets sets the bounds and the locks of this version on the buckets and the streams of
// runs that an earlier version made. It needs the right to change streams, which the owner of a bus
// and a collector have.
func UpgradeBuckets(ctx context.Context, js jetstream.JetStream, l Limits) error {
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()

	for _, want := range BucketConfigs(l) {
		err := updateStream(ctx, js, want.Name, func(has *jetstream.StreamConfig, state jetstream.StreamState) {
			if has.MaxBytes <= 0 {
				has.MaxBytes = max(want.MaxBytes, 2*int64(state.Bytes))
			}
			if has.MaxMsgSize <= 0 {
				has.MaxMsgSize = want.MaxMsgSize
			}
			has.AllowRollup = false
			if want.RePublish != nil {
				has.RePublish = want.RePublish
			}
		})
		if err != nil {
			return err
		}
	}

	list, err := New(js).Runs.List(ctx)
	if err != nil {
		return err
	}

	for _, m := range list {
		for _, name := range []string{proto.WorkStream(m.Run), objectsStream(m.Run)} {
			err := updateStream(ctx, js, name, func(has *jetstream.StreamConfig, _ jetstream.StreamState) {
				has.AllowDirect = false
			})
			if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				return err
			}
		}
	}

	return nil
}

// updateStream changes a stream's configuration, if that makes a difference.
func updateStream(
	ctx context.Context, js jetstream.JetStream, name string,
	change func(*jetstream.StreamConfig, jetstream.StreamState),
) error {
	return retryNoLeader(ctx, func(ctx context.Context) error {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("look at stream %s: %w", name, err)
		}

		info := stream.CachedInfo()
		cfg := info.Config
		change(&cfg, info.State)
		if cfg.MaxBytes == info.Config.MaxBytes && cfg.MaxMsgSize == info.Config.MaxMsgSize &&
			cfg.AllowRollup == info.Config.AllowRollup && cfg.AllowDirect == info.Config.AllowDirect &&
			(cfg.RePublish == nil) == (info.Config.RePublish == nil) {
			return nil
		}

		if _, err := js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("change stream %s: %w", name, err)
		}

		return nil
	})
}

// entry is a value of a bucket, or the deletion of one.
type entry struct {
	key   string
	value []byte
	// at is the time at which the entry was stored.
	at      time.Time
	deleted bool
}

// entriesAfter returns the entries of a bucket under keys, a pattern, that were stored after a
// sequence, and the sequence of the last of them. A bucket keeps one message for each key, so
// these are all that changed since. Where no copy of the bucket replies, it is waited for, 30 s.
func entriesAfter(
	ctx context.Context, js jetstream.JetStream, bucket, keys string, after uint64,
) (entries []entry, last uint64, err error) {
	last = after
	subject := "$KV." + bucket + "." + keys
	at := map[string]int{} // of the entry of each key: one that changes while we read comes twice
	take := func(msg *jetstream.RawStreamMsg) {
		last = msg.Sequence
		if proto.IsServerReply(msg.Header) {
			return
		}

		e := entry{
			key:     strings.TrimPrefix(msg.Subject, "$KV."+bucket+"."),
			value:   msg.Data,
			at:      msg.Time,
			deleted: msg.Header.Get("KV-Operation") != "" || msg.Header.Get("Nats-Marker-Reason") != "",
		}
		if i, ok := at[e.key]; ok {
			entries[i] = e
		} else {
			at[e.key] = len(entries)
			entries = append(entries, e)
		}
	}
	for more := true; more; {
		err := retryNoLeader(ctx, func(ctx context.Context) error {
			messages, err := jetstreamext.GetBatch(ctx, js, "KV_"+bucket, 512, jetstreamext.GetBatchSeq(last+1),
				jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchMaxBytes(8<<20))
			if err != nil {
				return err
			}

			got := false
			for msg, err := range messages {
				if err != nil || len(msg.Header[jetstream.SequenceHeader]) != 1 {
					break // the end, or a message that was published with the headers of an answer
				}

				// Pending when the server began to reply; later messages come with the next batch.
				more, got = msg.Header.Get(numPendingHeader) != "0", true
				StripServerHeaders(msg.Header)
				take(msg)
			}

			if got {
				return nil
			}

			msg, err := NextMessage(ctx, js, "KV_"+bucket, last+1, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				more = false
				return nil
			}
			if err == nil {
				more = true
				take(msg)
			}

			return err
		})
		if err != nil {
			return nil, after, fmt.Errorf("read bucket %s: %w", bucket, err)
		}
	}

	return entries, last, nil
}

// lastEntry returns the entry of a key and its revision. It returns [jetstream.ErrKeyNotFound]
// where there is none; if the key was deleted, the revision is the revision of the deletion.
// Where no copy of the bucket answers, it waits for one, 30 s.
func lastEntry(
	ctx context.Context, js jetstream.JetStream, bucket, key string,
) (value []byte, revision uint64, err error) {
	var msg *jetstream.RawStreamMsg
	err = retryNoLeader(ctx, func(ctx context.Context) error {
		msg, err = LastMessage(ctx, js, "KV_"+bucket, "$KV."+bucket+"."+key)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, 0, jetstream.ErrKeyNotFound
	case err != nil:
		return nil, 0, err
	case proto.IsServerReply(msg.Header):
		return nil, msg.Sequence, proto.NewFieldError("headers",
			"a server sent the entry %s as the answer to a question", proto.Excerpt(key))
	case msg.Header.Get("KV-Operation") != "" || msg.Header.Get("Nats-Marker-Reason") != "":
		return nil, msg.Sequence, jetstream.ErrKeyNotFound
	}

	return msg.Data, msg.Sequence, nil
}

// createEntry stores the entry of a key that has none. It returns [jetstream.ErrKeyExists]
// if there is one.
func createEntry(ctx context.Context, js jetstream.JetStream, bucket, key string, value []byte) error {
	_, revision, err := lastEntry(ctx, js, bucket, key)
	switch {
	case err == nil:
		return jetstream.ErrKeyExists
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return err
	}

	err = updateEntry(ctx, js, bucket, key, value, revision)
	if IsWrongSequence(err) {
		return jetstream.ErrKeyExists // since this moment
	}

	return err
}

// updateEntry stores the entry of a key that is at a revision, or else returns an error of
// which [IsWrongSequence] is true.
func updateEntry(ctx context.Context, js jetstream.JetStream, bucket, key string, value []byte, revision uint64) error {
	msg := nats.NewMsg("$KV." + bucket + "." + key)
	msg.Data = value
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	id := rand.Text()
	err := publishOnce(ctx, js, msg, id)
	if !IsWrongSequence(err) {
		return err
	}

	// A server looks at the revision before it looks at the id. If the confirmation of the
	// first attempt was lost, the entry is ours.
	now, lookErr := LastMessage(ctx, js, "KV_"+bucket, msg.Subject)
	if lookErr == nil && now.Header.Get(jetstream.MsgIDHeader) == id {
		return nil
	}

	return err
}

// putEntry stores the entry of a key, in place of any other.
func putEntry(ctx context.Context, js jetstream.JetStream, bucket, key string, value []byte) error {
	msg := nats.NewMsg("$KV." + bucket + "." + key)
	msg.Data = value
	return publishOnce(ctx, js, msg, rand.Text())
}

// deleteEntry stores a deletion marker in place of the entry of a key. Nobody but a reader of the
// marker sees its text.
func deleteEntry(ctx context.Context, js jetstream.JetStream, bucket, key string, text []byte) error {
	msg := nats.NewMsg("$KV." + bucket + "." + key)
	msg.Data = text
	msg.Header.Set("KV-Operation", "DEL")
	return publishOnce(ctx, js, msg, rand.Text())
}
