package proto

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/promptmill/promptmill/proto/jsonscan"
)

// Bounds are the facts about a run that a receiver knows. All messages from the bus are
// compared with them, whatever their sender.
type Bounds struct {
	Run      string
	Requests int
}

// Bounds returns the bounds of the run.
func (m Manifest) Bounds() Bounds { return Bounds{Run: m.Run, Requests: m.Input.Requests} }

// maxAttempts is the most attempts that a line may name.
const maxAttempts = 1 << 20

// Batch is a message of results: its subject and its headers, checked.
type Batch struct {
	Shard string
	// Indexes are the indexes of the requests, ascending.
	Indexes []uint32
	// Object has the lines, if the message does not.
	Object string
	// Source is the object that the shard came in, if it came in one.
	Source string
	// Ending reports that the run's collector made the lines, as the run ended early.
	Ending bool

	// prefix begins the id of each line.
	prefix string
}

// ParseBatch reads the subject and the headers of a message of results. Its error is of the
// type [FieldError] where they do not fit the run.
func (b Bounds) ParseBatch(subject string, h nats.Header) (Batch, error) {
	if h.Get(HeaderShard) == "" && !IsServerReply(h) {
		return Batch{}, NewFieldError(HeaderShard, "the header is missing")
	}

	if err := b.checkShard(ResultsSubject(b.Run, h.Get(HeaderShard)), subject, h); err != nil {
		return Batch{}, err
	}

	id, indexes, err := batchHeader(h, MaxShardSize)
	if err != nil {
		return Batch{}, err
	}

	batch := Batch{
		Shard:   id,
		Indexes: indexes,
		Object:  h.Get(HeaderObject),
		Source:  h.Get(HeaderSource),
		Ending:  isEnding(id),
		prefix:  `"batch_req_` + b.Run + "_",
	}

	switch {
	case !batch.Ending && !isShardID(id):
		return Batch{}, NewFieldError(HeaderShard, "%q is no shard's id", Excerpt(id))
	case len(indexes) == 0:
		return Batch{}, NewFieldError(HeaderIndexes, "it names no request")
	case len(indexes) > MaxBatch && !batch.Ending:
		return Batch{}, NewFieldError(HeaderIndexes, "%d requests, a message has at most %d", len(indexes), MaxBatch)
	case int64(indexes[len(indexes)-1]) >= int64(b.Requests):
		return Batch{}, NewFieldError(HeaderIndexes, "request %d of %d", indexes[len(indexes)-1], b.Requests)
	}

	if name, ok := strings.CutPrefix(batch.Object, "results-"+id+"-"); batch.Object != "" && (!ok || !IsToken(name)) {
		return Batch{}, NewFieldError(HeaderObject, "%q is no object of results of shard %s", Excerpt(batch.Object), id)
	}

	if batch.Source != "" && batch.Source != ShardObject(id) {
		return Batch{}, NewFieldError(HeaderSource, "%q is not the object of shard %s", Excerpt(batch.Source), id)
	}

	return batch, nil
}

// checkShard compares the subject of a message about a shard with the expected one, and refuses
// headers that only a server adds.
func (b Bounds) checkShard(want, subject string, h nats.Header) error {
	if IsServerReply(h) {
		return NewFieldError("headers",
			"it has a header that only a NATS server adds: a stored message was redirected to this subject")
	}

	if subject != want {
		return NewFieldError("subject", "%q, and the headers belong on %q", Excerpt(subject), Excerpt(want))
	}

	return nil
}

// serverHeaders are the headers of a server's reply to a request for a stored message. A message
// that has one was not published: the reply was aimed at the subject. Servers send Status and
// Description instead of a message, and clients act on them.
var serverHeaders = []string{
	"Nats-Stream",
	"Nats-Sequence",
	"Nats-Time-Stamp",
	"Nats-Subject",
	"Nats-Num-Pending",
	"Nats-Last-Sequence",
	"Nats-UpTo-Sequence",
	"Status",
	"Description",
}

// IsServerReply reports whether a message has a header that only a server's answer has.
func IsServerReply(h nats.Header) bool {
	for _, name := range serverHeaders {
		if _, has := h[name]; has {
			return true
		}
	}
	return false
}

// SplitLines splits the batch's payload into its lines.
func (b Batch) SplitLines(payload []byte) ([][]byte, error) {
	lines, err := SplitLines(payload, len(b.Indexes))
	if err != nil {
		return nil, &FieldError{Field: "lines", Why: err.Error()}
	}
	return lines, nil
}

// ParseLine reads the i-th line of the batch. Its error is of the type [FieldError]. With
// the error it returns the parts of the line that it could read, since they may name the sender.
func (b Batch) ParseLine(s *jsonscan.Scanner, i int, line []byte) (Line, error) {
	l, head, err := scanLine(s, line)
	if err != nil {
		return l, &FieldError{Field: "line", Why: err.Error()}
	}

	index := b.Indexes[i]
	switch {
	case !b.isID(l.ID, index):
		return l, NewFieldError("id", "%q in the line of request %d, whose id is %s%d\"",
			Excerpt(string(jsonscan.Text(l.ID))), index, b.prefix, index)
	case l.Index < 0:
		return l, NewFieldError("promptmill.index", "there is none, of request %d", index)
	case l.Index != int64(index):
		return l, NewFieldError("promptmill.index", "%d in the line of request %d", l.Index, index)
	case l.Status == 0 && !head.failed:
		return l, NewFieldError("response", "neither an HTTP answer nor an error, of request %d", index)
	case l.Status != 0 && (l.Status < 100 || l.Status > 599):
		return l, NewFieldError("response.status_code", "%d, of request %d", l.Status, index)
	case !l.Hashed:
		return l, NewFieldError("promptmill.request_hash", "there is none, of request %d", index)
	case l.Attempts > maxAttempts:
		return l, NewFieldError("promptmill.attempts", "%d, of request %d", l.Attempts, index)
	case len(l.Worker) > MaxWorkerName:
		return l, NewFieldError("promptmill.worker", "a name of %d bytes, of request %d", len(l.Worker), index)
	case b.Ending != (l.ErrorCode == CodeCancelled || l.ErrorCode == CodeExpired):
		return l, NewFieldError("error.code", "%q on shard %s, of request %d", Excerpt(l.ErrorCode), b.Shard, index)
	}

	return l, nil
}

// isID reports whether a line's id, a JSON string, is the id of a request's line.
func (b Batch) isID(id []byte, index uint32) bool {
	digits, ok := bytes.CutPrefix(id, []byte(b.prefix))
	if !ok {
		return false
	}
	var own [12]byte
	return bytes.Equal(digits, append(strconv.AppendUint(own[:0], uint64(index), 10), '"'))
}

// ShardObject names the object that holds a shard which does not fit into a message.
func ShardObject(shard string) string { return "work-" + shard }

// EndingShard is the shard's id under which a collector publishes the lines of requests
// that a run leaves without an answer, the n-th message of them.
func EndingShard(s State, n int) string { return string(s) + "-" + strconv.Itoa(n) }

// isEnding reports whether id is one that [EndingShard] makes.
func isEnding(id string) bool {
	for _, s := range []State{StateCancelled, StateExpired} {
		if n, ok := strings.CutPrefix(id, string(s)+"-"); ok {
			return isNumber(n)
		}
	}
	return false
}

// isShardID reports whether id is one that [ShardID] makes.
func isShardID(id string) bool {
	round, index, ok := strings.Cut(id, "-")
	return ok && isNumber(round) && isNumber(index)
}

// isNumber reports whether text is a number as programs write it.
func isNumber(text string) bool {
	if text == "" || len(text) > 19 || text[0] == '0' && len(text) > 1 {
		return false
	}

	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return false
		}
	}

	return true
}

// IsToken reports whether text can stand in a subject as one token.
func IsToken(text string) bool {
	for _, r := range text {
		if !isTokenRune(r) {
			return false
		}
	}
	return text != "" && len(text) <= MaxRunID
}
