package natsserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/collector/atomicfile"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/proto"
)

const (
	// lookEvery is the interval between two looks at the file of join strings and at the clock. A string that was
	// revoked or has expired lets nobody in from that moment on; the connections that it has end with the next look.
	lookEvery = 250 * time.Millisecond
	// seenEvery is the interval at which the time of a string in use is written down.
	seenEvery = time.Minute
	// seenPause is the least time between two such writings, when connections come and go.
	seenPause = time.Second
	// warnEvery is the interval between equal warnings.
	warnEvery = time.Minute
)

// doorkeeper decides who may connect to a server: the owner, the roles, and the holders of join strings with names. It
// implements [server.Authentication] in place of the server's own list of users: a change of that list has the server
// configure itself once more, accounts and all.
//
// It goes by the wall clock, and looks at it again and again, so a string also ends in time where the clock was set.
type doorkeeper struct {
	state  string // folder
	dir    string // the bus's folder
	id     *localbus.Identity
	joins  *localbus.JoinFile
	log    zerolog.Logger
	server *server.Server

	// users are the owner and the roles, by their names.
	users map[string]*server.User

	// mu guards the fields below. Who is let in is in holders before the lock ends, so that a string which is revoked
	// meanwhile finds the connection.
	mu       sync.Mutex
	revision int64
	known    []localbus.NamedJoin
	byUser   map[string]localbus.NamedJoin // by the user name on the wire
	byID     map[string]localbus.NamedJoin
	holders  map[string]*joinHolders // of each string that is in use, by the ID of its record
	seen     map[string]time.Time    // by the same

	// The fields below are of the goroutine of watch. It writes without mu: nobody who connects waits for a disk.
	written localbus.Joined // what the file of the bus says
	unseen  bool            // a connection has come or gone since the times were written down
	seenAt  time.Time       // when they were written down

	// warning guards the field below.
	warning sync.Mutex
	warned  map[string]time.Time // when each warning was logged
}

// joinHolders are the connections of a join string.
type joinHolders struct {
	name    string          // of the string, whose record may be gone
	clients map[uint64]bool // by their numbers at the server
}

// newDoorkeeper returns the doorkeeper of a server that is to be made with some options, whose users it takes over. It
// returns an error if the file of join strings cannot be read.
func newDoorkeeper(cfg Config, id *localbus.Identity, opts *server.Options) (*doorkeeper, error) {
	d := &doorkeeper{
		state:   cfg.State,
		dir:     cfg.Dir,
		id:      id,
		joins:   localbus.OpenJoins(cfg.State),
		log:     cfg.Log,
		users:   map[string]*server.User{},
		holders: map[string]*joinHolders{},
		seen:    map[string]time.Time{},
		warned:  map[string]time.Time{},
	}
	for _, user := range opts.Users {
		d.users[user.Username] = user
	}

	opts.Users, opts.CustomClientAuthentication = nil, d

	return d, d.refresh()
}

// serve has the doorkeeper let clients into a server that is made, but not started.
func (d *doorkeeper) serve(s *server.Server) error {
	d.server = s
	for _, user := range d.users {
		account, err := s.LookupAccount(user.Account.Name) // the options have a copy without the exports of others
		if err != nil {
			return fmt.Errorf("account %s: %w", user.Account.Name, err)
		}
		user.Account = account
	}

	return nil
}

// Check implements [server.Authentication].
func (d *doorkeeper) Check(c server.ClientAuthentication) bool {
	d.mu.Lock()
	defer d.mu.Unlock()

	name, password := c.GetOpts().Username, c.GetOpts().Password
	if user, ok := d.users[name]; ok {
		if !isSecret(password, user.Password) {
			return false
		}
		c.RegisterUser(user)
		return true
	}

	if err := d.refresh(); err != nil {
		d.warn(err, "the join strings with names stay as they were read last")
	}

	record, ok := d.byUser[name]
	if !ok || !isSecret(password, d.id.NamedJoin(record, nil).Password()) {
		return false
	}

	now := time.Now()
	if state := record.StateAt(now, d.id); state != localbus.JoinValid {
		d.warn(fmt.Errorf("it is %s", state), "refused the join string "+record.Name)
		return false
	}

	user := *d.users[string(record.Role)]
	user.Username = name
	c.RegisterUser(&user)

	if d.holders[record.ID] == nil {
		d.holders[record.ID] = &joinHolders{name: record.Name, clients: map[uint64]bool{}}
	}
	d.holders[record.ID].clients[c.GetID()] = true
	d.seen[record.ID] = now

	return true
}

// isSecret compares a password with the right one, in a time that says nothing of how much of it is right.
func isSecret(password, right string) bool {
	return subtle.ConstantTimeCompare([]byte(password), []byte(right)) == 1
}

// refresh reads the file of join strings if it has changed. The caller holds mu, or is alone.
func (d *doorkeeper) refresh() error {
	list, revision, err := d.joins.Read()
	if err != nil || d.byUser != nil && isSameList(list, d.known) && revision == d.revision {
		return err
	}

	d.revision, d.known = revision, list
	d.byUser, d.byID = map[string]localbus.NamedJoin{}, map[string]localbus.NamedJoin{}
	for _, record := range list {
		d.byUser[proto.Join{Role: record.Role, Name: record.Name}.User()] = record
		d.byID[record.ID] = record
	}

	return nil
}

// isSameList reports whether two lists of records are one in memory, as they are until the file changes. Each client
// that connects asks, and there may be thousands of records.
func isSameList(a, b []localbus.NamedJoin) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// watch ends the connections of join strings that are revoked or expire, until ctx ends.
func (d *doorkeeper) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()

	for {
		d.look(time.Now())

		select {
		case <-ctx.Done():
			d.writeSeen()
			localbus.RemoveJoined(d.dir)
			return
		case <-tick.C:
		}
	}
}

// look ends the connections of the join strings that have ended by now, and writes down who is connected.
func (d *doorkeeper) look(now time.Time) {
	d.writeJoined(d.endJoins(now))

	since := now.Sub(d.seenAt).Abs() // the clock may have been set back
	if since >= seenEvery || d.unseen && since >= seenPause {
		d.writeSeen()
	}
}

// endJoins ends the connections of the join strings that have ended by now, and returns which strings are in use.
func (d *doorkeeper) endJoins(now time.Time) localbus.Joined {
	d.mu.Lock()
	defer d.mu.Unlock()

	if err := d.refresh(); err != nil {
		d.warn(err, "the join strings with names stay as they were read last")
	}

	for id, holders := range d.holders {
		clients := holders.clients
		maps.DeleteFunc(clients, func(client uint64, _ bool) bool { return d.server.GetClient(client) == nil })
		if len(clients) > 0 {
			d.seen[id] = now
		}

		// A record that was replaced or taken out of the file is revoked.
		record, why := d.byID[id], localbus.JoinRevoked
		if record.ID != "" {
			why = record.StateAt(now, d.id)
		}

		if why != localbus.JoinValid && len(clients) > 0 {
			d.disconnect(clients)
			d.log.Warn().Str("join", holders.name).Str("why", string(why)).Int("connections", len(clients)).
				Msg("ended the connections of a join string")
		}

		if why != localbus.JoinValid || len(clients) == 0 {
			delete(d.holders, id)
		}
	}

	says := localbus.Joined{Identity: d.id.ID(), Revision: d.revision, Connections: map[string]int{}}
	for id, holders := range d.holders {
		says.Connections[id] = len(holders.clients)
	}

	return says
}

// disconnect closes connections.
func (d *doorkeeper) disconnect(clients map[uint64]bool) {
	for client := range clients {
		d.server.DisconnectClientByID(client) // an error: it has gone
	}
}

// writeJoined writes down which strings are in use, if that has changed.
func (d *doorkeeper) writeJoined(says localbus.Joined) {
	if says.Equal(d.written) {
		return
	}

	if err := says.Write(d.dir); err != nil {
		d.warn(err, "failed to write down which join strings are in use")
		return
	}

	d.written, d.unseen = says, true
}

// writeSeen writes down when strings were used last.
func (d *doorkeeper) writeSeen() {
	d.seenAt = time.Now()

	d.mu.Lock()
	seen, known := maps.Clone(d.seen), d.known
	d.mu.Unlock()

	if len(seen) == 0 {
		return
	}

	err := localbus.AddSeen(d.state, seen, known)
	switch {
	case errors.Is(err, atomicfile.ErrLocked): // another bus of this folder writes; the next time is soon enough
	case err != nil:
		d.warn(err, "failed to write down when join strings were used")
	default:
		d.unseen = false
		d.mu.Lock()
		maps.DeleteFunc(d.seen, func(id string, at time.Time) bool { return at.Equal(seen[id]) }) // later ones stay
		d.mu.Unlock()
	}
}

// warn logs a warning, at most once each warnEvery.
func (d *doorkeeper) warn(err error, message string) {
	d.warning.Lock()
	defer d.warning.Unlock()

	text := message + err.Error()
	if time.Since(d.warned[text]) < warnEvery {
		return
	}

	if len(d.warned) > 1000 {
		clear(d.warned)
	}

	d.warned[text] = time.Now()
	d.log.Warn().Err(err).Msg(message)
}
