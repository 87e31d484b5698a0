package busconn

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// warnEvery is the interval between warnings about an absent bus.
const warnEvery = time.Minute

// GiveUpAfter is the time after which ours counts as gone, if another bus answers at its address.
const GiveUpAfter = 30 * time.Second

// absence dials the addresses of a bus, and records the time in which the bus cannot be reached:
// its start, and the answers of the addresses. It logs what happens to the connection.
type absence struct {
	log zerolog.Logger

	// mu guards the fields below.
	mu         sync.Mutex
	closeConn  func()    // closes the connection; nil before the first one
	dialled    string    // the address that was dialled last
	home       string    // the address at which the bus was reached last
	since      time.Time // zero: the bus is there
	lastWarned time.Time
	answers    []answer
	otherSince time.Time // since when another bus answers at home
	why        error     // why the connection was given up; nil: it was not

	lastErrors map[string]time.Time // when each error of the connection was logged last
}

// answer is the last answer of an address of an absent bus.
type answer struct{ address, what string }

// Dial dials an address of the bus. It implements [nats.CustomDialer].
func (a *absence) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: connectTimeout}).Dial(network, address)

	a.mu.Lock()
	defer a.mu.Unlock()

	a.dialled = address
	if err == nil {
		a.warn() // the last round: no other call may come, if the server refuses each connection
		a.record("it takes the connection, but is no bus")
		return conn, nil
	}

	if address == a.home {
		a.otherSince = time.Time{}
	}

	a.record(describeFailure(err).what)
	a.warn()

	return nil, err
}

// begin records the first connection.
func (a *absence) begin(closeConn func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closeConn, a.home, a.answers = closeConn, a.dialled, nil
}

// lose records that the connection is lost.
func (a *absence) lose(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	why := "no answer"
	if errors.Is(cause, io.EOF) || errors.Is(cause, syscall.ECONNRESET) || errors.Is(cause, syscall.EPIPE) {
		why = "it has closed the connection"
	} else if cause != nil && !errors.Is(cause, nats.ErrStaleConnection) {
		why = describeFailure(cause).what
	}

	a.since = time.Now()
	a.lastWarned, a.answers = a.since, nil
	a.log.Warn().Str("bus", a.home).Str("cause", why).Msg("lost the bus; reconnecting")
}

// end records that the bus is there again.
func (a *absence) end() {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.home = a.dialled
	a.log.Warn().Str("bus", a.home).Str("after", time.Since(a.since).Round(time.Second).String()).
		Msg("reconnected to the bus")
	a.since, a.otherSince, a.answers = time.Time{}, time.Time{}, nil
}

// recordRefusal records that a server refuses the connection. The client reports why it closes the
// connection, if it does.
func (a *absence) recordRefusal(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.record(describeFailure(err).what)
}

// recordOtherBus records that another bus answers, and gives the connection up once one has done so
// for GiveUpAfter at the address of ours. At another address it may be a machine of another
// network. The client does not report an error after an address has answered, so the check of the
// certificate calls this.
func (a *absence) recordOtherBus(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.record(describeFailure(err).what)
	switch {
	case a.closeConn == nil: // the caller of Join gets the error
		return
	case a.dialled != a.home:
	case a.otherSince.IsZero():
		a.otherSince = time.Now()
	case time.Since(a.otherSince) >= GiveUpAfter:
		a.why = err
		go a.closeConn() // it waits for the connecting that calls this
		return
	}

	a.warn()
}

// record records the answer of the address that was dialled last.
func (a *absence) record(what string) {
	i := slices.IndexFunc(a.answers, func(w answer) bool { return w.address == a.dialled })
	if i < 0 {
		i, a.answers = len(a.answers), append(a.answers, answer{address: a.dialled})
	}
	a.answers[i].what = what
}

// warn logs why the bus cannot be reached, at most once each warnEvery. The first warning is that
// the bus is lost.
func (a *absence) warn() {
	if a.since.IsZero() || time.Since(a.lastWarned) < warnEvery {
		return
	}

	a.lastWarned = time.Now()

	texts := make([]string, len(a.answers))
	for i, w := range a.answers {
		texts[i] = w.address + ": " + w.what
	}

	a.log.Warn().Str("for", time.Since(a.since).Round(time.Second).String()).Str("answers", strings.Join(texts, "; ")).
		Msg("failed to reach the bus; retrying")
}

// warnOfError logs an error that the server or the client reports beside the calls, each at most once
// each warnEvery.
func (a *absence) warnOfError(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	text := strings.TrimPrefix(err.Error(), "nats: ")
	if last, ok := a.lastErrors[text]; ok && time.Since(last) < warnEvery {
		return
	}

	if len(a.lastErrors) >= maxErrors || a.lastErrors == nil {
		a.lastErrors = map[string]time.Time{}
	}

	a.lastErrors[text] = time.Now()
	a.log.Warn().Str("error", text).Msg("the bus refuses a message, or loses one")
}

// maxErrors is the most errors whose time is kept.
const maxErrors = 100

// reachedAt returns the address at which the bus was reached last. It is empty if no address was dialled.
func (a *absence) reachedAt() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.home
}

func (a *absence) givenUpErr() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why
}
