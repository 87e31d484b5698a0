package busconn

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// warnEvery is the interval between warnings about an absent bus.
const warnEvery = time.Minute

// GiveUpAfter is the time after which ours counts as gone, if only another bus answers.
const GiveUpAfter = 30 * time.Second

// absence is the time in which a bus cannot be reached.
type absence struct {
	log zerolog.Logger

	// mu guards the fields below.
	mu         sync.Mutex
	conn       *nats.Conn // the lost connection; nil before the first one
	lastWarned time.Time
	otherSince time.Time // since when only another bus answers
	why        error     // why the connection was given up; nil: it was not
}

func (a *absence) setConnection(conn *nats.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = conn
}

// end ends the absence: the bus is there again.
func (a *absence) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastWarned, a.otherSince = time.Time{}, time.Time{}
}

// recordNoAnswer records that no server answers at an address.
func (a *absence) recordNoAnswer(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.otherSince = time.Time{}
	a.warn(err)
}

// recordOtherBus records that another bus answers, and gives the connection up once that was so
// for GiveUpAfter. The client does not report an error after an address has answered, so the check
// of the certificate calls this.
func (a *absence) recordOtherBus(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()

	switch {
	case a.conn == nil: // the caller of Join gets the error
	case a.otherSince.IsZero():
		a.otherSince = time.Now()
		a.warn(err)
	case time.Since(a.otherSince) >= GiveUpAfter:
		a.why = err
		go a.conn.Close() // it waits for the connecting that calls this
	default:
		a.warn(err)
	}
}

// warn logs why the bus cannot be reached, at most once each warnEvery.
func (a *absence) warn(err error) {
	if time.Since(a.lastWarned) >= warnEvery {
		a.lastWarned = time.Now()
		a.log.Warn().Err(err).Msg("failed to reach the bus; retrying")
	}
}

func (a *absence) givenUpErr() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why
}
