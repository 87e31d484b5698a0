package busconn

import (
	"net"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/proto"
)

// joinSource has the join string of a connection. One of a file is read again whenever the connection is
// made again, so that a new string in the file counts before the old one is revoked, and the bus may move.
type joinSource struct {
	// read reads the join string. Nil: it stays as it is.
	read func() (proto.Join, error)

	// mu guards the fields below.
	mu   sync.Mutex
	join proto.Join
	// client is the client of a connection that was made. Nil: there is none yet.
	client *nats.Conn
	// tried are the addresses that the client tries.
	tried []string
}

// refresh returns the join string as it is now. A file that cannot be read, or that has the string of
// another role, changes nothing.
func (s *joinSource) refresh() proto.Join {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.read != nil {
		if j, err := s.read(); err == nil && j.Role == s.join.Role {
			s.join = j
		}
	}

	return s.join
}

// latest returns the join string of the last refresh.
func (s *joinSource) latest() proto.Join {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.join
}

// credentials returns the user and the password of the join string of the last refresh. The certificate of
// the server was compared with that string.
func (s *joinSource) credentials() (user, password string) {
	j := s.latest()
	return j.User(), j.Password()
}

// follow has the addresses that a client tries follow the join string.
func (s *joinSource) follow(client *nats.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.tried = client, s.join.Addresses
}

// moveClient has the client try the addresses that the join string has now. The client takes them up with its next
// try.
func (s *joinSource) moveClient() {
	addresses := s.refresh().Addresses

	s.mu.Lock()
	defer s.mu.Unlock()

	if s.client == nil || slices.Equal(addresses, s.tried) {
		return
	}

	s.tried = addresses
	go s.client.SetServerPool(joinURLs(addresses)) // it waits for the client, which is dialling; an error: it is closed
}

// joinURLs returns the URLs of the addresses of a join string.
func joinURLs(addresses []string) []string {
	urls := make([]string, len(addresses))
	for i, a := range addresses {
		urls[i] = "tls://" + a
	}
	return urls
}

// joinDialer dials the addresses of a join string. The client asks it for each try to reach the bus.
type joinDialer struct {
	away   *absence
	source *joinSource
}

// Dial implements [nats.CustomDialer].
func (d joinDialer) Dial(network, address string) (net.Conn, error) {
	d.source.moveClient()
	return d.away.Dial(network, address)
}
