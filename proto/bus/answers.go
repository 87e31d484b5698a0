package bus

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/promptmill/promptmill/proto"
)

// AnswerStore has the answers of a run that do not fit into a message. Each is a sequence of
// messages on a subject of its own, pm.RUN.answers.NAME; the message that it was too large for has
// its length and its SHA-256. Workers write only here and to the results: the requests and the
// input are in the [ObjectStore]. The collector writes here the lines of requests that a run
// leaves out.
type AnswerStore struct {
	js  jetstream.JetStream
	run string
}

// MaxAnswer is the longest answer of a model server that a worker takes, in bytes.
const MaxAnswer = 256 << 20

// maxPayload is the largest payload that is read, in bytes: the lines of a message, one of them
// with the longest answer. A header that names more is false.
const maxPayload = MaxAnswer + MaxAnswer/2

func (a *AnswerStore) subject(name string) string { return "pm." + a.run + ".answers." + name }

// Offload moves a message's payload out of it if the message would be larger than limit,
// the server's max_payload, and leaves in the header where it is.
func (a *AnswerStore) Offload(ctx context.Context, msg *nats.Msg, limit int64) error {
	if fitsMessage(msg, limit) {
		return nil
	}

	name := "results-" + msg.Header.Get(proto.HeaderShard) + "-" + rand.Text()
	chunk := make([]byte, min(chunkSize, int(limit/2)))
	r := bytes.NewReader(msg.Data)
	for i := 0; ; i++ {
		n, err := fillChunk(chunk, r)
		if n > 0 {
			part := nats.NewMsg(a.subject(name))
			part.Data = chunk[:n]
			if err := publishOnce(ctx, a.js, part, fmt.Sprintf("%s-%d", name, i)); err != nil {
				return fmt.Errorf("store a large answer of run %s: %w", a.run, err)
			}
		}

		if errors.Is(err, io.EOF) {
			break
		}
	}

	sum := sha256.Sum256(msg.Data)
	msg.Header.Set(proto.HeaderObject, name)
	msg.Header.Set(proto.HeaderSize, strconv.Itoa(len(msg.Data)))
	msg.Header.Set(proto.HeaderDigest, hex.EncodeToString(sum[:]))
	msg.Data = nil

	return nil
}

// Payload returns a message's payload, from the message or from the stream of large answers.
// [IsUnrecoverable] reports whether the payload of an error is lost for good.
func (a *AnswerStore) Payload(ctx context.Context, h nats.Header, data []byte) ([]byte, error) {
	name := h.Get(proto.HeaderObject)
	if name == "" {
		return data, nil
	}

	size, err := strconv.ParseUint(h.Get(proto.HeaderSize), 10, 63)
	if err != nil || size > maxPayload || proto.CheckRunID(name) != nil { // a name is a token, too
		return nil, fmt.Errorf("large answer of run %s: %w: no name or length that can be", a.run, proto.ErrFormat)
	}

	// The length comes from a stranger: memory is allocated for the bytes that arrive.
	var buf bytes.Buffer
	for at, parts := uint64(0), uint64(0); uint64(buf.Len()) < size; parts++ {
		msg, err := a.nextPart(ctx, name, at+1, parts)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, fmt.Errorf("read a large answer of run %s: %w: a part of it is lost", a.run, proto.ErrFormat)
		}
		if err != nil {
			return nil, fmt.Errorf("read a large answer of run %s: %w", a.run, err)
		}

		at = msg.Sequence
		buf.Write(msg.Data)
	}

	if sum := sha256.Sum256(buf.Bytes()); hex.EncodeToString(sum[:]) != h.Get(proto.HeaderDigest) {
		return nil, fmt.Errorf("read a large answer of run %s: %w: its SHA-256 has changed",
			a.run, proto.ErrFormat)
	}

	return buf.Bytes(), nil
}

// nextPart returns the first message of an answer from a sequence on. before is the number of its
// messages before that.
func (a *AnswerStore) nextPart(
	ctx context.Context, name string, from, before uint64,
) (msg *jetstream.RawStreamMsg, err error) {
	err = retryNoLeader(ctx, func(ctx context.Context) error {
		msg, err = NextMessage(ctx, a.js, proto.AnswersStream(a.run), from, a.subject(name))
		if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, errNoCopy) {
			return a.askLeader(ctx, name, before)
		}
		return err
	})
	if err == nil && proto.IsServerReply(msg.Header) {
		err = proto.NewFieldError("headers", "a part of the answer %s has the headers of a server", name)
	}

	return msg, err
}

// askLeader finds out why there is no further part of an answer. Any copy of the stream replies to
// a direct get, also one that is behind; only the leader knows how many parts there are. It
// returns [jetstream.ErrMsgNotFound] if these are all, and errNoCopy if not.
func (a *AnswerStore) askLeader(ctx context.Context, name string, parts uint64) error {
	stream, err := a.js.Stream(ctx, proto.AnswersStream(a.run))
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = stream.Info(ctx, jetstream.WithSubjectFilter(a.subject(name)))
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return jetstream.ErrMsgNotFound
	}
	if err != nil {
		return err
	}

	if info.State.Subjects[a.subject(name)] <= parts {
		return jetstream.ErrMsgNotFound
	}

	return errNoCopy
}

// Purge deletes an answer. It is no error if there is none.
func (a *AnswerStore) Purge(ctx context.Context, name string) error {
	err := PurgeStream(ctx, a.js, proto.AnswersStream(a.run), jetstream.WithPurgeSubject(a.subject(name)))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("purge a large answer of run %s: %w", a.run, err)
	}
	return nil
}
