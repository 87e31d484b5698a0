package busconn

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/nats-io/nats.go"

	"github.com/promptmill/promptmill/deploy/exit"
)

// silentHint is the hint for a server that does not answer a request.
const silentHint = "look at the server's log; in a cluster, more than half of the servers must run"

// Explain describes an error of a request over the connection, with the exit code of an unreachable
// bus. An error that has an exit code already stays as it is.
func (l *Connection) Explain(err error) error {
	if closed := l.ClosedErr(); closed != nil {
		return closed
	}

	last := l.Conn.LastError()
	silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
	switch {
	case err == nil, exit.IsError(err):
		return err
	case silent && errors.Is(last, nats.ErrPermissionViolation) && !isOfSamples(last):
		return exit.Unreachable(fmt.Errorf("%s of the NATS server at %s has no right to the subject %s",
			l.user, l.Name, refusedSubject(last)),
			"promptmill nats-config prints the permissions of each role, also after an upgrade")
	case silent && !l.Conn.IsConnected():
		return exit.Unreachable(fmt.Errorf("the connection to the bus at %s is lost", l.Name),
			"start it again, if it does not run; the same command continues")
	case silent:
		return exit.Unreachable(fmt.Errorf("the bus at %s does not answer", l.Name), silentHint)
	case errors.Is(err, nats.ErrNoResponders):
		return exit.Unreachable(fmt.Errorf("JetStream at the bus %s does not answer", l.Name), silentHint)
	}

	return exit.Unreachable(err, "")
}

// quotedSubject matches the subject in an error of permissions.
var quotedSubject = regexp.MustCompile(`"([^"]+)"`)

// refusedSubject returns the subject in an error of permissions.
func refusedSubject(err error) string {
	found := quotedSubject.FindStringSubmatch(err.Error())
	if found == nil {
		return "of this request"
	}
	return found[1]
}
