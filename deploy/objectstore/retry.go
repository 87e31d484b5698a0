package objectstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
)

// temporaryError is an error of a request that may succeed when it is tried again.
type temporaryError struct {
	// err is the error.
	err error
	// after is the least time until the next attempt, as the server has asked for.
	after time.Duration
	// attempts is the number of attempts in a row after which the error is final. 0: that of
	// the retrier.
	attempts int
	// unanswered is set if no server was reached. The attempts are not limited then if the store
	// has answered before.
	unanswered bool
	// final is the error that is returned then. Nil: that of a store that cannot be reached.
	final error
}

// Error implements error.
func (e *temporaryError) Error() string { return e.err.Error() }

// Unwrap returns the error itself.
func (e *temporaryError) Unwrap() error { return e.err }

// retrier tries requests again that may succeed then.
type retrier struct {
	// attempts is the number of attempts in a row.
	attempts int
	// first is the longest wait before the second attempt; each later wait may be twice as long.
	first time.Duration
	// longest is the longest wait.
	longest time.Duration
	// log gets a line for each attempt that failed.
	log *zerolog.Logger
	// answered has the stores that have answered a request of this client. Such a store is there: if
	// it refuses a connection, it restarts.
	answered *sync.Map
}

// newRetrier returns a retrier that gives up after one or two minutes, in which a store that
// throttles its clients or a gateway that restarts comes back.
func newRetrier(log *zerolog.Logger) retrier {
	return retrier{
		attempts: 10,
		first:    250 * time.Millisecond,
		longest:  30 * time.Second,
		log:      log,
		answered: &sync.Map{},
	}
}

// retry calls attempt until it returns nil or an error that is not a [temporaryError], the
// attempts are used up, or ctx ends. The error names the object.
func (r retrier) retry(ctx context.Context, name string, attempt func() error) error {
	for n := 1; ; n++ {
		err := attempt()
		if err == nil {
			r.answered.Store(storeOf(name), true)
			return nil
		}

		if err := r.wait(ctx, name, n, err); err != nil {
			return err
		}
	}
}

// wait waits after the nth failed attempt in a row: a random time, so that clients that failed
// together do not come back together, and as long as the server has asked for. It returns the
// error if that is final.
func (r retrier) wait(ctx context.Context, name string, n int, failed error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	temporary, ok := errors.AsType[*temporaryError](failed)
	if !ok {
		return failed
	}

	attempts := r.attempts
	if _, isThere := r.answered.Load(storeOf(name)); temporary.attempts > 0 && !(temporary.unanswered && isThere) {
		attempts = min(attempts, temporary.attempts)
	}

	if n >= attempts && temporary.final != nil {
		return temporary.final
	}

	if n >= attempts {
		hint := "run the same command again when the store answers"
		lookup, _ := errors.AsType[*net.DNSError](temporary.err)
		if lookup != nil && strings.HasSuffix(strings.TrimSuffix(lookup.Name, "."), ".amazonaws.com") {
			hint = "for another store than Amazon's set --s3-endpoint or AWS_ENDPOINT_URL"
		}

		return exit.Unreachable(&failure{
			text: fmt.Sprintf("%s: %s, in %d attempts", name, describeBehind(name, temporary.err), n),
			kind: temporary.err,
		}, hint)
	}

	longest := r.longest
	if n < 16 {
		longest = min(longest, r.first<<(n-1))
	}

	pause := max(longest/2+rand.N(longest/2+1), min(temporary.after, r.longest))
	r.log.Warn().Str("url", name).Int("attempt", n).Stringer("wait", pause.Round(time.Millisecond)).Err(temporary.err).
		Msg("a request to the store failed; retrying")

	timer := time.NewTimer(pause)
	defer timer.Stop()

	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// storeOf returns the part of a URL that names the store.
func storeOf(name string) string {
	scheme, rest, _ := strings.Cut(name, "://")
	host, _, _ := strings.Cut(rest, "/")
	return scheme + "://" + host
}

// describeBehind returns the text of an error that stands behind a URL, without the host if
// that is in the URL.
func describeBehind(name string, err error) string {
	text := err.Error()
	if _, rest, ok := strings.Cut(name, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		return strings.TrimPrefix(text, host+": ")
	}
	return text
}
