package busconn

import (
	"sync"

	"github.com/promptmill/promptmill/proto"
)

// joinSource has the join string of a connection. One of a file is read again whenever the connection is
// made again, so that a new string in the file counts before the old one is revoked.
type joinSource struct {
	// read reads the join string. Nil: it stays as it is.
	read func() (proto.Join, error)

	// mu guards the field below.
	mu   sync.Mutex
	join proto.Join
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
