package busconn

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
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
	away := &absence{log: log}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The certificate is pinned below, which is stronger than a chain of trust.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].Raw); !bytes.Equal(sum[:], j.Fingerprint[:]) {
				away.recordOtherBus(errOtherCertificate)
				return errOtherCertificate
			}
			return nil
		},
	}

	urls := make([]string, len(j.Addresses))
	for i, a := range j.Addresses {
		urls[i] = "tls://" + a
	}

	opts = append(opts, nats.Secure(config), nats.UserInfo(j.User(), j.Password()),
		nats.CustomInboxPrefix(j.Role.InboxPrefix()))
	where := strings.Join(j.Addresses, ", ")
	l := &Connection{}
	err := l.connect(strings.Join(urls, ","), log, away, opts...)
	if err == nil {
		return l, nil
	}
	if exit.IsError(err) {
		return nil, err
	}

	refused, other := classifyJoinErrors(urls, err, opts)
	switch {
	case refused:
		return nil, exit.Unreachable(finalError{fmt.Errorf("the bus at %s refuses this join string: it was revoked",
			where)},
			"take the one that promptmill join prints there now")
	case other:
		return nil,
			exit.Unreachable(finalError{fmt.Errorf("the server at %s is not the bus of this join string: it has another certificate",
				where)},
				"the string is old, or of another machine: take the one that promptmill join prints there now")
	}

	return nil, exit.Unreachable(fmt.Errorf("no bus answers at %s: %w", where, err),
		"is promptmill serve, or run --listen, running there, and does a firewall let this port through?")
}

// classifyJoinErrors finds out why no address could be joined: the client returns only the error of
// the last. refused is set if a server with the right certificate refuses the string. other is set
// if another bus answers at each address: where one does not answer, ours may be there, since an
// address such as 127.0.0.1 may be of another machine.
func classifyJoinErrors(urls []string, last error, opts []nats.Option) (refused, other bool) {
	errs := []error{last}
	if len(urls) > 1 {
		errs = make([]error, len(urls))
		var all sync.WaitGroup
		for i, u := range urls {
			all.Go(func() {
				conn, err := nats.Connect(u, append(slices.Clip(opts), nats.NoReconnect(),
					nats.Timeout(5*time.Second))...)
				if errs[i] = err; err == nil { // it is there now
					conn.Close()
				}
			})
		}

		all.Wait()
	}

	others := 0
	for _, err := range errs {
		refused = refused || errors.Is(err, nats.ErrAuthorization)
		if errors.Is(err, errOtherCertificate) {
			others++
		}
	}

	return refused, others == len(errs)
}
