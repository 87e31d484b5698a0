// Package busconn connects to a bus: to the user's own server (a URL), to another machine's bus (a
// join string), or to the bus of this machine.
//
// [Options] hold the flags of a command, and [Connect] finds the bus that they mean. It
// ends in [Join], which pins the certificate of the join string, or in [Dial]. A [Connection]
// reconnects for as long as it takes. Only a bus that another one has replaced is given up, see
// [Connection.ClosedErr].
package busconn

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto/bus"
)

// ReaderName is the name of connections that read results.
const ReaderName = "promptmill reader"

// SharedStreamBytes is the size of each stream of a run on a bus for many runs. The server sets it
// aside, used or not. Results are the slack of readers.
const SharedStreamBytes = bus.DefaultStreamBytes

// Connection is a connection to a bus. It stays connected until it is closed or, with a join
// string, until only another bus answers at the addresses.
type Connection struct {
	// Conn and JS are the connection and its JetStream API.
	Conn *nats.Conn
	JS   jetstream.JetStream
	// Limits are the limits of the streams of runs that are created over it.
	Limits bus.Limits
	// Name is the address of the server that was reached first, for people.
	Name string

	user  string      // describes the user, such as "the user reader"
	local bool        // the bus was found on this machine
	join  *joinSource // of what it was joined with; nil: it was not
	away  *absence
}

// Close closes the connection.
func (l *Connection) Close() { l.Conn.Close() }

// ClosedErr returns why the connection has closed itself, or nil if it has not: another bus has taken
// the place of ours, or the bus refuses the user of the connection when that reconnects.
func (l *Connection) ClosedErr() error {
	if !l.Conn.IsClosed() {
		return nil
	}

	where := cmp.Or(l.away.reachedAt(), l.Name)
	refused := "the NATS server at " + where + " does not let " + l.user + " in any more"
	hint := "give the user and the password that the server has now"
	if l.user == "" {
		refused, hint = "the bus at "+where+" does not let this command in any more", joinHint
	}

	why := l.away.givenUpErr()
	switch last := l.Conn.LastError(); {
	case l.local && (why != nil || isRefusal(last)):
		return exit.Unreachable(fmt.Errorf("the bus of this machine at %s was replaced: the server there has another identity",
			where), "start this command again: it finds the new one")
	case why != nil:
		return exit.Unreachable(fmt.Errorf("%s: %w", refused, why), hint)
	case isRefusal(last) && l.join != nil && l.join.latest().Name != "":
		refusal, hint := describeRefusal(l.join.latest())
		return exit.Unreachable(fmt.Errorf("the bus at %s refuses %s", where, refusal), hint)
	case isRefusal(last):
		return exit.Unreachable(errors.New(refused), hint)
	}

	return nil
}

// finalError is an error of a bus that does not change while a command waits.
type finalError struct{ error }

// Unwrap returns the error.
func (e finalError) Unwrap() error { return e.error }

// reconnectDelay returns how long to wait before all addresses are tried again.
func reconnectDelay(attempts int) time.Duration {
	wait := min(time.Duration(attempts)*500*time.Millisecond, 5*time.Second)
	return wait/2 + time.Duration(rand.Int64N(int64(wait)/2+1))
}

// Dial connects to a bus and reconnects whenever the connection is lost. It refuses a server that
// is too old.
func Dial(url string, log zerolog.Logger, opts ...nats.Option) (*Connection, error) {
	l := &Connection{}
	if err := l.connect(url, log, &absence{log: log}, opts...); err != nil {
		return nil, err
	}
	return l, nil
}

// connect opens the connection. away records the times in which the bus cannot be reached.
func (l *Connection) connect(url string, log zerolog.Logger, away *absence, opts ...nats.Option) error {
	opts = append([]nats.Option{
		nats.Name("promptmill"), nats.MaxReconnects(-1), nats.CustomReconnectDelay(reconnectDelay),
		nats.Timeout(connectTimeout), nats.DontRandomize(), nats.SetCustomDialer(away),
		// A node that vanishes silently is noticed after 8 to 12 s. A slow line may delay an
		// answer for as long.
		nats.PingInterval(4 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			switch {
			case isOfSamples(err):
			case errors.Is(err, nats.ErrAuthorization):
				away.recordRefusal(err)
			default:
				away.warnOfError(err)
			}
		}),
		nats.DisconnectErrHandler(func(c *nats.Conn, err error) {
			if !c.IsClosed() {
				away.lose(err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { away.end() }),
	}, opts...)

	var wanted atomic.Bool
	conn, err := nats.Connect(url, append(opts, recordCertificateRequest(&wanted))...)
	if err != nil && wanted.Load() && isClosedByServer(err) {
		return fmt.Errorf("%w: %w", errCertificateRefused, err)
	}
	if err != nil {
		return err
	}

	if err := CheckVersion(conn.ConnectedAddr(), conn.ConnectedServerVersion(), log); err != nil {
		conn.Close()
		return err
	}

	js, err := jetstream.New(conn, jetstream.WithPublishAsyncTimeout(30*time.Second))
	if err != nil {
		conn.Close()
		return err
	}

	away.begin(conn.Close)
	*l = Connection{
		Conn:   conn,
		JS:     js,
		away:   away,
		Limits: bus.Limits{WorkBytes: SharedStreamBytes, ResultsBytes: SharedStreamBytes},
		Name:   conn.ConnectedAddr(),
	}

	return nil
}
