package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
)

// ErrWrongState is returned when a run cannot be changed as wanted in the state that it is in.
var ErrWrongState = errors.New("not possible in this state")

// errNoCopy is returned when no copy of a stream that is up to date has answered. The copies of a
// cluster answer once they have caught up.
var errNoCopy = fmt.Errorf("%w: no copy of the stream is there that is up to date", nats.ErrNoResponders)

// Codes of errors of the JetStream API for which nats.go has no names (nats-server,
// server/errors.json).
const (
	codeNoSuitablePeers     = 10005 // no place for all copies, among others because a node is away
	codeNotAvailable        = 10008 // the cluster has no leader
	codeNotLeader           = 10009
	codeInsufficientStorage = 10047 // the disk has no room for a stream of that size
	codeWrongSequence       = 10164 // JSErrCodeStreamWrongLastSequence without the sequence
)

// IsNoLeader reports whether an error comes from a cluster without a leader: no node replies,
// or the node that replies is not the leader.
func IsNoLeader(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeNoSuitablePeers:
			return strings.Contains(api.Description, "peer offline")
		case codeNotAvailable, codeNotLeader:
			return true
		}
		return false
	}

	// Where no responder hears other requests, there is no JetStream, and waiting is in vain.
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, errNoCopy)
}

// IsWrongSequence reports whether a message was refused because the stream, or its subject, was
// not at the sequence that the publisher expected.
func IsWrongSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongSequence)
}

// IsStreamFull reports whether a stream cannot store a message now: it is full, most of the time.
// A server returns the status 503 for this and for every other reason why it cannot store.
func IsStreamFull(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.Code == 503
}

// IsNoStorage reports whether a stream could not be made because the disk of the bus has no room
// for one of its size.
func IsNoStorage(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == codeInsufficientStorage
}

// IsUnrecoverable reports whether an error of [ObjectStore] or [AnswerStore] means that the object
// is not there or damaged, so that another attempt is in vain.
func IsUnrecoverable(err error) bool {
	return errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) ||
		errors.Is(err, proto.ErrFormat)
}
