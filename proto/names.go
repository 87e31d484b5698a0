package proto

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// RunsBucket is the key-value bucket that holds one manifest for each run.
const RunsBucket = "promptmill_runs"

// PresenceBucket is the key-value bucket in which workers and collectors announce
// themselves. Its values end by themselves after [PresenceTTL].
const PresenceBucket = "promptmill_presence"

// ReadersBucket is the key-value bucket that remembers how far named readers of
// results have come.
const ReadersBucket = "promptmill_readers"

// WebhooksBucket is the key-value bucket that holds an entry for each event and each endpoint that gets it.
// Only a bus whose owner has webhooks has it. Each of its entries ends [WebhooksTTL] after its last change.
const WebhooksBucket = "promptmill_webhooks"

// WebhooksTTL is how long an entry of [WebhooksBucket] stays after its last change.
const WebhooksTTL = 7 * 24 * time.Hour

// Headers of shard and result messages.
const (
	// HeaderVersion is the version of the message format, [Version].
	HeaderVersion = "Pm-Version"
	// HeaderShard is the shard's id, as in the subject.
	HeaderShard = "Pm-Shard"
	// HeaderIndexes lists the request indexes of the payload's lines, in their order
	// (see [FormatIndexes]).
	HeaderIndexes = "Pm-Indexes"
	// HeaderEncoding names the [Encoding] of a shard's payload. A shard without it is [Snappy].
	HeaderEncoding = "Pm-Encoding"
	// HeaderObject names the holder of a payload that does not fit into a message: for a
	// shard an object of the run's object store, for results an answer (see [bus.AnswerStore]).
	HeaderObject = "Pm-Object"
	// HeaderSize is the length of the answer that holds the payload, in bytes.
	HeaderSize = "Pm-Size"
	// HeaderDigest is the SHA-256 of that answer, in hexadecimal digits.
	HeaderDigest = "Pm-Digest"
	// HeaderSource names the object that the request of a result came in, if it did:
	// once the result is safe, it is not needed any more.
	HeaderSource = "Pm-Source"
)

// Version is the version of the message format that this package reads and writes.
const Version = "2"

// StoredPrefix begins the subjects on which the server publishes each message of the results and of
// the manifests once more when it has stored it. Other accounts import these subjects, without
// the prefix: NATS passes on no message there that came from another account itself.
const StoredPrefix = "stored."

// MaxRunID is the longest run id in bytes.
const MaxRunID = 64

// WorkStream names the stream of a run's shards.
func WorkStream(run string) string { return "pm_" + run + "_work" }

// ResultsStream names the stream of a run's results.
func ResultsStream(run string) string { return "pm_" + run + "_results" }

// AnswersStream names the stream of a run's answers that do not fit into a message.
func AnswersStream(run string) string { return "pm_" + run + "_answers" }

// ObjectsBucket names the object store of a run: requests that do not fit into a message,
// and the input of a run whose owner went away.
func ObjectsBucket(run string) string { return "pm_" + run + "_objects" }

// WorkSubject is the subject on which a shard for a model is published.
func WorkSubject(run, model, shard string) string {
	return "pm." + run + ".work." + ModelToken(model) + "." + shard
}

// WorkFilter matches the shards of a run for one model.
func WorkFilter(run, model string) string { return WorkSubject(run, model, "*") }

// ResultsSubject is the subject on which a shard's results are published.
func ResultsSubject(run, shard string) string { return "pm." + run + ".results." + shard }

// ConsumerName names the durable consumer of a run's shards for one model.
func ConsumerName(model string) string { return ModelToken(model) }

// ShardID is the id of the index-th shard of a round of publishing, both from 0.
func ShardID(round int, index uint64) string { return fmt.Sprintf("%d-%d", round, index) }

// ModelToken turns a model's name into a NATS token that a person can still read.
// Different names have different tokens: the token ends in a part of the name's
// SHA-256.
func ModelToken(model string) string {
	readable := strings.Map(func(r rune) rune {
		if isTokenRune(r) {
			return r
		}
		return '-'
	}, model)
	if len(readable) > 40 {
		readable = readable[:40]
	}

	sum := sha256.Sum256([]byte(model))

	return readable + "-" + hex.EncodeToString(sum[:5])
}

// NewRunID makes a run id from the time and four random letters.
func NewRunID(now time.Time) string {
	return now.UTC().Format("20060102-150405") + "-" + randomLetters(4)
}

// NewWorkerID makes the id of a worker. Each process has its own id, new with each
// start, even if processes have the same name.
func NewWorkerID() string { return randomLetters(8) }

// randomLetters makes n random letters and digits that people do not confuse.
func randomLetters(n int) string {
	const letters = "abcdefghijkmnpqrstuvwxyz23456789" // 32: a random byte maps evenly; no l, o, 0, 1
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand, Go 1.24)
	for i := range b {
		b[i] = letters[b[i]%32]
	}
	return string(b)
}

// CheckRunID returns an error if id cannot be a run's id: it must be 1 to [MaxRunID]
// letters, digits, '-' and '_', so that it can stand in a subject and a stream name.
func CheckRunID(id string) error {
	if id == "" || len(id) > MaxRunID {
		return fmt.Errorf("run id %q: must have 1 to %d characters", id, MaxRunID)
	}

	for _, r := range id {
		if !isTokenRune(r) {
			return fmt.Errorf("run id %q: only letters, digits, '-' and '_' are allowed", id)
		}
	}

	return nil
}

// MaxLabel is the longest label of a run in bytes.
const MaxLabel = 200

// CheckLabel returns an error if label cannot be a run's label: it must be 1 to [MaxLabel] bytes of
// printable text with spaces only between words.
func CheckLabel(label string) error {
	switch {
	case strings.TrimSpace(label) == "":
		return errors.New("must have a character besides spaces")
	case len(label) > MaxLabel:
		return fmt.Errorf("has %d bytes, must have at most %d", len(label), MaxLabel)
	case !utf8.ValidString(label):
		return fmt.Errorf("%q is not UTF-8", label)
	case label != strings.TrimSpace(label):
		return fmt.Errorf("%q must not begin or end with a space", label)
	}

	for _, r := range label {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%q has a character that cannot be printed, %q", label, r)
		}
	}

	return nil
}

// MinIDPart is the least number of bytes of a part of an id that means a run.
const MinIDPart = 4

// FindNamed returns the runs of a list that a name on a command line means: the one with that
// id; or else those with that label; or else those with an id that begins or ends with the name,
// if that has [MinIDPart] bytes or more.
func FindNamed[T any](list []T, name string, of func(T) (id, label string)) []T {
	for _, means := range []func(id, label string) bool{
		func(id, _ string) bool { return id == name },
		func(_, label string) bool { return label == name && name != "" },
		func(id, _ string) bool { return len(name) >= MinIDPart && IsIDPart(id, name) },
	} {
		var found []T
		for _, run := range list {
			if means(of(run)) {
				found = append(found, run)
			}
		}

		if len(found) > 0 {
			return found
		}
	}

	return nil
}

// IsIDPart reports whether an id begins or ends with a name.
func IsIDPart(id, name string) bool {
	return name != "" && (strings.HasPrefix(id, name) || strings.HasSuffix(id, name))
}

func isTokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}
