package busconn

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// errOtherCertificate is the error of a server that is not the bus of the join string.
var errOtherCertificate = errors.New(
	"the server there has another certificate: this join string is old, or of another machine",
)

// Join connects with a join string: over TLS, and only to a server with the certificate that the
// string pins.
func Join(j proto.Join, log zerolog.Logger, opts ...nats.Option) (*Connection, error) {
	return joinBus(&joinSource{join: j}, false, log, opts...)
}

// joinBus is [Join]. local is set if the string was made from the identity of this machine, so that
// the user gave none.
func joinBus(source *joinSource, local bool, log zerolog.Logger, opts ...nats.Option) (*Connection, error) {
	j := source.join
	away := &absence{log: log}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The certificate is pinned below, which is stronger than a chain of trust.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].Raw); sum != source.latest().Fingerprint {
				away.recordOtherBus(errOtherCertificate)
				return errOtherCertificate
			}
			return nil
		},
	}

	urls := joinURLs(j.Addresses)
	opts = append(opts, nats.Secure(config), nats.UserInfoHandler(source.credentials),
		nats.CustomInboxPrefix(j.Role.InboxPrefix()), nats.SetCustomDialer(joinDialer{away, source}))
	l := &Connection{}
	err := l.connect(strings.Join(urls, ","), log, away, opts...)
	if err == nil {
		l.local, l.join = local, source
		source.follow(l.Conn)

		return l, nil
	}
	if exit.IsError(err) {
		return nil, err
	}

	errs := tryEach(urls, opts)
	tried := source.latest()
	tried.Addresses = j.Addresses

	return nil, describeJoinErrors(tried, local, errs)
}

// joinHint is the hint for a join string that is of no use any more.
const joinHint = "take the join string that promptmill join prints there now"

// clockDifference is the largest difference between the clocks of two machines that is not surprising.
const clockDifference = 10 * time.Minute

// describeRefusal returns why a bus refuses a join string, and a hint. The bus says no more than that it does. Strings
// of roles end with the identity of their bus alone.
func describeRefusal(j proto.Join) (text, hint string) {
	if j.Name == "" {
		return "this join string: it was revoked", joinHint
	}

	end, left := j.Expires.UTC().Format(time.DateTime)+" UTC", time.Until(j.Expires)
	switch {
	case j.Expires.IsZero() || left > clockDifference:
		text = fmt.Sprintf("the join string %s: it was revoked", j.Name)
	case left > 0:
		text = fmt.Sprintf("the join string %s: it was revoked, or the clock there says that it expired (at %s)", j.Name, end)
	default:
		text = fmt.Sprintf("the join string %s: it expired at %s", j.Name, end)
	}

	return text, "promptmill join create " + j.Name + ", on the machine of the bus, makes a new one"
}

// describeJoinErrors returns the error of a join string at whose addresses no bus answers.
func describeJoinErrors(j proto.Join, local bool, errs []error) error {
	addresses := j.Addresses
	where := strings.Join(addresses, ", ")
	others, dead, refused, texts := 0, 0, 0, make([]string, len(errs))
	for i, err := range errs {
		if errors.Is(err, nats.ErrAuthorization) {
			refusal, hint := describeRefusal(j)
			return exit.Unreachable(finalError{fmt.Errorf("the bus at %s refuses %s", where, refusal)}, hint)
		}
		if errors.Is(err, errOtherCertificate) {
			others++
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			refused++
		} else if dialling, ok := errors.AsType[*net.OpError](err); ok && dialling.Op == "dial" {
			dead++
		}
		texts[i] = describeFailure(err).what
	}

	// Where an address does not answer, ours may be there: the others may be of another network.
	if others == len(errs) && local {
		return exit.Unreachable(finalError{fmt.Errorf(
			"the bus at %s has another identity than identity.pem in the state folder", where)},
			"start the promptmill serve or run of that bus again: that file was replaced since its start")
	}
	if others == len(errs) {
		return exit.Unreachable(finalError{fmt.Errorf(
			"the server at %s is not the bus of this join string: it has another certificate", where)},
			"the string is old, or of another machine: "+joinHint)
	}

	hint := "start promptmill serve or run --listen there, and let this port through its firewall"
	switch {
	case dead > 0:
		hint += "; if this box reaches it at another address, start it with --advertise ADDRESS"
	case refused == 0:
		hint = "start promptmill serve or run --listen there again: it is stopped, or another program has its port"
	}

	return exit.Unreachable(&noAnswerError{"no bus answers at " + joinAnswers(addresses, texts), errs}, hint)
}

// noAnswerError is the error of addresses at which no bus answers.
type noAnswerError struct {
	text string
	errs []error // of each address
}

func (e *noAnswerError) Error() string { return e.text }

// isGone reports whether no process listens at any of the addresses.
func (e *noAnswerError) isGone() bool {
	return !slices.ContainsFunc(e.errs, func(err error) bool { return !errors.Is(err, syscall.ECONNREFUSED) })
}

// joinAnswers joins addresses and their answers. Equal answers are named once.
func joinAnswers(addresses, answers []string) string {
	var parts []string
	for i := 0; i < len(addresses); {
		end := i + 1
		for end < len(addresses) && answers[end] == answers[i] {
			end++
		}
		parts = append(parts, strings.Join(addresses[i:end], ", ")+": "+answers[i])
		i = end
	}

	return strings.Join(parts, "; ")
}

// tryEach connects to each URL alone, and returns why that fails: the client returns only the error
// of the last of several. An error is [errThereNow] if it does not fail.
func tryEach(urls []string, opts []nats.Option) []error {
	errs := make([]error, len(urls))
	var all sync.WaitGroup
	for i, u := range urls {
		all.Go(func() { errs[i] = tryOne(u, opts) })
	}

	all.Wait()

	return errs
}

// errThereNow is the error of a server that answers at the second try.
var errThereNow = errors.New("it answers now")

// tryOne connects to a URL and returns why that fails.
func tryOne(u string, opts []nats.Option) error {
	d := &tryDialer{}
	conn, err := nats.Connect(u, append(slices.Clip(opts), nats.NoReconnect(), nats.Timeout(connectTimeout),
		nats.SetCustomDialer(d))...)
	if err == nil {
		conn.Close()
		return errThereNow
	}
	if d.err != nil { // the client hides that the connection was refused
		return d.err
	}

	return err
}

// tryDialer keeps the error of its dialling.
type tryDialer struct{ err error }

// Dial implements [nats.CustomDialer].
func (d *tryDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: connectTimeout}).Dial(network, address)
	d.err = err
	return conn, err
}
