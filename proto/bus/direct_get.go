package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NextMessage gets the first stored message of a stream from a sequence on, whose subject matches.
// It returns [jetstream.ErrMsgNotFound] if there is none.
//
// The library reads the first headers of the reply, and a server appends its own behind the
// headers of the message. So the library would take a message that was published with such
// headers for the end of the stream, or for another message, and its reader would stay there
// for ever.
func NextMessage(
	ctx context.Context, js jetstream.JetStream, stream string, from uint64, subject string,
) (*jetstream.RawStreamMsg, error) {
	question, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": subject})
	if err != nil {
		return nil, err
	}
	return getDirect(ctx, js, stream, question)
}

// LastMessage gets the newest stored message on a subject of a stream, as [NextMessage]
// does.
func LastMessage(ctx context.Context, js jetstream.JetStream, stream, subject string) (*jetstream.RawStreamMsg, error) {
	return getDirect(ctx, js, stream+"."+subject, nil)
}

func getDirect(
	ctx context.Context, js jetstream.JetStream, of string, question []byte,
) (*jetstream.RawStreamMsg, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, directTime)
		defer cancel()
	}

	nc, prefix := js.Conn(), jetstream.DefaultAPIPrefix
	switch options := js.Options(); {
	case options.APIPrefix != "":
		prefix = strings.TrimSuffix(options.APIPrefix, ".") + "."
	case options.Domain != "":
		prefix = "$JS." + options.Domain + ".API."
	}

	// The library's requests share a subscription, which is cheaper for the bus than one for each
	// request. They misread one message, an empty one that was published with the status 503, and
	// end when the connection does.
	subject := prefix + "DIRECT.GET." + of
	asking, stop := context.WithTimeout(ctx, askCopyAgain)
	msg, err := nc.RequestWithContext(asking, subject, question)
	silent := asking.Err() != nil && ctx.Err() == nil
	stop()
	if silent || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrDisconnected) {
		msg, err = getBySubscription(ctx, nc, subject, question)
	}
	if err != nil {
		return nil, cmp.Or(context.Cause(ctx), err)
	}

	return parseReply(msg)
}

// getBySubscription requests with a subscription of its own, which delivers messages as they are,
// also after a connection was lost.
//
// Any copy of the stream may get the request, also one on a node that has just vanished. So
// another is sent if no reply comes, after a longer time each time: a reply may be large, and the
// line thin.
func getBySubscription(ctx context.Context, nc *nats.Conn, subject string, question []byte) (*nats.Msg, error) {
	answers, inbox := make(chan *nats.Msg, 8), nc.NewInbox()
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()

	again := time.NewTimer(askCopyAgain)
	defer again.Stop()

	for wait := 2 * askCopyAgain; ; wait *= 2 {
		again.Reset(wait)
		if err := nc.PublishRequest(subject, inbox, question); err != nil {
			return nil, err
		}

		select {
		case msg := <-answers:
			return msg, nil
		case <-again.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// askCopyAgain is after how long a request is sent again for the first time.
const askCopyAgain = 500 * time.Millisecond

// directTime bounds a request whose context has no deadline.
const directTime = 5 * time.Second

// parseReply returns the message in a server's reply, as it was published.
func parseReply(msg *nats.Msg) (*jetstream.RawStreamMsg, error) {
	sequence, err := strconv.ParseUint(lastValue(msg.Header, jetstream.SequenceHeader), 10, 64)
	if err != nil { // there is no message in it
		switch status := msg.Header.Get(statusHeader); status {
		case "404":
			return nil, jetstream.ErrMsgNotFound
		case "503":
			return nil, errNoCopy
		default:
			return nil, fmt.Errorf("get a stored message: status %q: %s", status, msg.Header.Get(descriptionHeader))
		}
	}

	at, err := time.Parse(time.RFC3339Nano, lastValue(msg.Header, jetstream.TimeStampHeaer))
	if err != nil {
		return nil, errors.New("get a stored message: its time is unreadable")
	}

	raw := &jetstream.RawStreamMsg{
		Subject:  lastValue(msg.Header, jetstream.SubjectHeader),
		Sequence: sequence,
		Time:     at,
		Header:   msg.Header,
		Data:     msg.Data,
	}

	StripServerHeaders(raw.Header)

	return raw, nil
}

func lastValue(h nats.Header, name string) string {
	values := h[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// StripServerHeaders removes the headers that the server added to a message that was got directly.
func StripServerHeaders(h nats.Header) {
	for _, name := range addedHeaders {
		switch values := h[name]; len(values) {
		case 0:
		case 1:
			delete(h, name)
		default:
			h[name] = values[:len(values)-1]
		}
	}
}

// addedHeaders are the headers that a server adds to a message in its reply to a direct get.
var addedHeaders = []string{
	jetstream.StreamHeader,
	jetstream.SequenceHeader,
	jetstream.TimeStampHeaer,
	jetstream.SubjectHeader,
	numPendingHeader,
	jetstream.LastSequenceHeader,
}

// The headers of replies to direct gets for which nats.go has no names.
const (
	numPendingHeader  = "Nats-Num-Pending"
	statusHeader      = "Status"
	descriptionHeader = "Description"
)
