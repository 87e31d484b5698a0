package busconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
)

// A NATS server refuses a message with an error of the connection, and its sender waits for an
// answer in vain. So the rights of a user of a NATS server are checked when it connects, with
// messages that have no effect.

// nothing is a token that no run, stream or consumer has as its name.
const nothing = "~"

// infoSubject is the subject of a question for the account's JetStream.
const infoSubject = "$JS.API.INFO"

// sampleSubjects returns subjects that a role publishes to and other roles may not. Nothing listens
// to them.
func sampleSubjects(role proto.Role) []string {
	work := proto.WorkSubject(nothing, nothing, nothing)
	switch role {
	case proto.RoleWorker:
		return []string{"$JS.API.CONSUMER.MSG.NEXT." + nothing + "." + nothing}
	case proto.RoleProducer:
		return []string{work}
	case proto.RoleCollector:
		return []string{work, "$JS.API.CONSUMER.MSG.NEXT." + nothing + "." + proto.CollectorConsumer}
	}

	return []string{"$JS.API.DIRECT.GET." + nothing}
}

// isOfSamples reports whether an error of a connection is about a message of a check of rights.
func isOfSamples(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) &&
		(strings.Contains(err.Error(), "."+nothing) || strings.Contains(err.Error(), `"`+infoSubject+`"`))
}

// may reports whether the user of the connection may publish to all of some subjects.
func (l *Connection) may(subjects ...string) (bool, error) {
	for _, subject := range subjects {
		if err := l.Conn.Publish(subject, nil); err != nil {
			return false, err
		}
	}

	if err := l.Conn.FlushTimeout(connectTimeout); err != nil {
		return false, err
	}

	// The server has answered a ping after the messages, so it has refused them before.
	err := l.Conn.LastError()
	for _, subject := range subjects {
		if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`) {
			return false, nil
		}
	}

	return true, nil
}

// CheckRole returns an error with the exit code of an unreachable bus if the user of the connection
// does not have the rights of a role. needer is the name of the command that needs them.
func (l *Connection) CheckRole(role proto.Role, needer string) error {
	ok, err := l.may(sampleSubjects(role)...)
	if err != nil {
		return l.unreachable(err)
	}

	if !ok {
		return l.wrongRole(role, needer)
	}

	inbox := l.Conn.Opts.InboxPrefix + "." + nothing
	sub, err := l.Conn.SubscribeSync(inbox)
	if err != nil {
		return l.unreachable(err)
	}
	defer sub.Unsubscribe()

	if err := l.Conn.FlushTimeout(connectTimeout); err != nil {
		return l.unreachable(err)
	}

	if err := l.Conn.LastError(); isOfSamples(err) && strings.Contains(err.Error(), inbox) {
		return exit.Unreachable(finalError{fmt.Errorf("%s of the NATS server at %s may not subscribe to %s.>, as promptmill %s must",
			l.user, l.Name, l.Conn.Opts.InboxPrefix, needer)},
			"promptmill nats-config prints the permissions of each role")
	}

	return nil
}

// wrongRole returns the error of a user without the rights of a role.
func (l *Connection) wrongRole(role proto.Role, needer string) error {
	user := string(role)
	if needer == "run" { // it is a collector and has workers
		user = proto.Owner
	}

	hint := fmt.Sprintf("give the %s of promptmill nats-config: --nats-user %s, and its password in NATS_PASSWORD",
		user, user)
	for _, has := range []proto.Role{proto.RoleCollector, proto.RoleProducer, proto.RoleWorker, proto.RoleReader} {
		if ok, err := l.may(sampleSubjects(has)...); err == nil && ok {
			return exit.Unreachable(finalError{fmt.Errorf(
				"%s of the NATS server at %s has the rights of a %s, and promptmill %s needs those of a %s",
				l.user, l.Name, has, needer, role)}, hint)
		}
	}

	return exit.Unreachable(finalError{fmt.Errorf("%s of the NATS server at %s has none of the rights of a %s",
		l.user, l.Name, role)}, hint)
}

// checkJetStream returns an error if JetStream does not answer the user of the connection.
func (l *Connection) checkJetStream() error {
	if ok, err := l.may(infoSubject); err != nil || !ok {
		return err // the user may not ask, but may use it
	}

	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()

	_, err := l.JS.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return exit.Unreachable(finalError{fmt.Errorf("the account of %s at the NATS server at %s has no JetStream",
			l.user, l.Name)},
			`set "jetstream: enabled" for that account in the server's configuration, or use a user of another account`)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return exit.Unreachable(finalError{fmt.Errorf("JetStream is off at the NATS server at %s", l.Name)},
			"add jetstream { store_dir: DIR } to the server's configuration, or start it with -js")
	case errors.Is(err, context.DeadlineExceeded):
		return exit.Unreachable(fmt.Errorf("JetStream at the NATS server at %s does not answer within %s",
			l.Name, connectTimeout), silentHint)
	}

	return err
}

// minPayload is the size of the largest message without which promptmill does not work, in bytes: a
// manifest has to fit.
const minPayload = 64 << 10

// checkPayload returns an error if the server takes too small messages.
func (l *Connection) checkPayload() error {
	if l.Conn.MaxPayload() >= minPayload {
		return nil
	}
	return exit.Unreachable(finalError{fmt.Errorf(
		"the NATS server at %s takes messages of %d bytes at most, and promptmill needs %d",
		l.Name, l.Conn.MaxPayload(), minPayload)},
		"set max_payload: 16777216 in the server's configuration, as promptmill nats-config does")
}

// unreachable returns the error of a connection that has failed after it was made.
func (l *Connection) unreachable(err error) error {
	return exit.Unreachable(fmt.Errorf("the NATS server at %s does not answer: %s", l.Name, describeFailure(err).what),
		"look at the server's log")
}

// connectTimeout is the time limit of an answer of a server that a connection is made to.
const connectTimeout = 5 * time.Second
