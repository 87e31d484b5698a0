package busconn

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/deploy/exit"
)

// Error codes of JetStream for a stream that cannot be made (nats-server, server/errors.json).
const (
	codeNoPeers          jetstream.ErrorCode = 10005
	codeAccountResources jetstream.ErrorCode = 10002
	codeMostStreams      jetstream.ErrorCode = 10027
	codeNoMemory         jetstream.ErrorCode = 10028
	codeNoStorage        jetstream.ErrorCode = 10047
	codeNoReplicas       jetstream.ErrorCode = 10074
	codeWantsLimit       jetstream.ErrorCode = 10113
	codeStreamTooLarge   jetstream.ErrorCode = 10122
)

// DescribeStreamError describes why a stream or a bucket cannot be made over the connection. Other
// errors are returned as they are.
func (l *Connection) DescribeStreamError(err error) error {
	answer, _ := errors.AsType[*jetstream.APIError](err)
	if answer == nil {
		return err
	}

	text, hint := "", ""
	switch answer.ErrorCode {
	case codeNoStorage, codeAccountResources, codeNoMemory:
		text = "has no room for another stream"
		hint = "delete ended runs with promptmill delete RUN, or raise max_file of its JetStream, or the limit of the account"
	case codeStreamTooLarge:
		text = "does not allow streams of this size"
		hint = "raise max_bytes of the streams in the limits of the account"
	case codeWantsLimit:
		text = "wants a limit of bytes for each stream, and the streams of inputs have none"
		hint = "set max_bytes_required to false in the limits of the account"
	case codeMostStreams:
		text = "has as many streams as the account may have"
		hint = "delete ended runs with promptmill delete RUN, or raise the limit of the account"
	case codeNoReplicas:
		text = fmt.Sprintf("is no cluster, and cannot have %d copies of a stream", l.Limits.Replicas)
		hint = "leave out --replicas"
	case codeNoPeers:
		text = fmt.Sprintf("has too few servers with room for %d copies of a stream", max(1, l.Limits.Replicas))
		hint = "start more servers of the cluster, or give a smaller --replicas"
	default:
		return err
	}

	return exit.Unreachable(&streamError{fmt.Sprintf("the NATS server at %s %s", l.Name, text), err}, hint)
}

// streamError is an error of JetStream in other words.
type streamError struct {
	text  string
	cause error
}

func (e *streamError) Error() string { return e.text }
func (e *streamError) Unwrap() error { return e.cause }
