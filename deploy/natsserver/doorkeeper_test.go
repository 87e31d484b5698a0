package natsserver

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/secretfile"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/prototest"
)

// startDoor starts a server with a state folder of its own, or with one that is there.
func startDoor(t *testing.T, state string) *Server {
	t.Helper()

	s, err := Start(Config{State: state, Dir: state + "/serve"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)

	return s
}

// createJoin makes a join string for a server.
func createJoin(t *testing.T, s *Server, state, name string, role proto.Role, expires time.Time) proto.Join {
	t.Helper()

	record, _, err := localbus.OpenJoins(state).Create(name, role, expires, s.identity)
	if err != nil {
		t.Fatal(err)
	}

	return s.identity.NamedJoin(record, s.record().JoinAddresses())
}

// connectJoin connects with a join string. closed is closed when the connection is for good.
func connectJoin(t *testing.T, j proto.Join) (l *busconn.Connection, closed <-chan struct{}) {
	t.Helper()

	gone := make(chan struct{})
	l, err := busconn.Join(j, zerolog.Nop(), nats.ClosedHandler(func(*nats.Conn) { close(gone) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)

	return l, gone
}

// awaitClosed waits until a connection is closed for good, and returns why.
func awaitClosed(t *testing.T, l *busconn.Connection, closed <-chan struct{}) string {
	t.Helper()

	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Fatal("the connection is still there after 30 s")
	}

	err := l.ClosedErr()
	if exit.Code(err) != exit.CodeUnreachable {
		t.Errorf("%v has the exit code %d", err, exit.Code(err))
	}

	return err.Error()
}

// askBus checks that a connection and its JetStream work, and have done so without an interruption.
func askBus(t *testing.T, l *busconn.Connection) {
	t.Helper()

	_, err := l.JS.AccountInfo(t.Context())
	if err != nil && !errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		t.Error(err)
	}
	if n := l.Conn.Stats().Reconnects; n > 0 || l.Conn.IsClosed() {
		t.Errorf("%d reconnects, closed %v", n, l.Conn.IsClosed())
	}
}

// A revoked string loses its connections, and no other string does.
func TestRevoke(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	one := createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{})
	other := createJoin(t, s, state, "box2", proto.RoleWorker, time.Time{})
	role, err := proto.ParseJoin(s.JoinString(proto.RoleWorker))
	if err != nil {
		t.Fatal(err)
	}

	first, firstClosed := connectJoin(t, one)
	second, secondClosed := connectJoin(t, one)
	stays, _ := connectJoin(t, other)
	ofRole, _ := connectJoin(t, role)

	if _, _, err := localbus.OpenJoins(state).Revoke("box1"); err != nil {
		t.Fatal(err)
	}

	if _, err := busconn.Join(one, zerolog.Nop()); err == nil { // at once, before the bus looks
		t.Error("the revoked string lets in")
	}

	want := "the bus at " + first.Name + " refuses the join string box1: it was revoked"
	if got := awaitClosed(t, first, firstClosed); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	awaitClosed(t, second, secondClosed)

	for _, l := range []*busconn.Connection{stays, ofRole, s.Connection} {
		askBus(t, l)
	}

	_, err = busconn.Join(one, zerolog.Nop())
	if exit.Code(err) != exit.CodeUnreachable || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}

	again := createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{})
	if again.Token == one.Token {
		t.Error("the name has its old secret")
	}
	l, _ := connectJoin(t, again)
	askBus(t, l)
}

// A string that expires loses its open connections.
func TestExpiry(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	end := time.Now().Add(2 * time.Second).Truncate(time.Second)
	l, closed := connectJoin(t, createJoin(t, s, state, "box1", proto.RoleWorker, end))

	want := "the bus at " + l.Name + " refuses the join string box1: it expired at " +
		end.UTC().Format(time.DateTime) + " UTC"
	if got := awaitClosed(t, l, closed); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if time.Now().Before(end) {
		t.Error("the string ended before its time")
	}
}

// The clock counts as it is when the doorkeeper looks: a string also ends where the clock was set forward.
func TestClockSetForward(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	l, _ := connectJoin(t, createJoin(t, s, state, "box1", proto.RoleWorker, time.Now().Add(24*time.Hour)))
	stays, _ := connectJoin(t, createJoin(t, s, state, "box2", proto.RoleWorker, time.Time{}))

	s.door.endJoins(time.Now().Add(48 * time.Hour))

	for end := time.Now().Add(30 * time.Second); l.Conn.Stats().Reconnects == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection was not interrupted within 30 s")
		}
	}
	askBus(t, stays)
}

// A name gives the rights of its role and no others, and neither a name nor a role gets in with the secret of another.
func TestRightsOfNames(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	reader := createJoin(t, s, state, "box1", proto.RoleReader, time.Time{})
	worker := createJoin(t, s, state, "box2", proto.RoleWorker, time.Time{})
	l, _ := connectJoin(t, reader)
	if err := l.CheckRole(proto.RoleReader, "tail"); err != nil {
		t.Error(err)
	}
	if err := l.CheckRole(proto.RoleWorker, "worker"); err == nil {
		t.Error("the string of a reader has the rights of a worker")
	}

	for what, change := range map[string]func(*proto.Join){
		"the role of another":       func(j *proto.Join) { j.Role = proto.RoleCollector },
		"the name of another":       func(j *proto.Join) { j.Name = "box2" },
		"the name of none":          func(j *proto.Join) { j.Name = "box3" },
		"no name":                   func(j *proto.Join) { j.Name = "" },
		"the secret of another":     func(j *proto.Join) { j.Token = worker.Token },
		"the secret of its role":    func(j *proto.Join) { j.Token = s.identity.Join(j.Role, nil).Token },
		"another name and its role": func(j *proto.Join) { j.Name, j.Role = "box2", proto.RoleWorker },
	} {
		j := reader
		change(&j)
		if _, err := busconn.Join(j, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "refuses") {
			t.Errorf("a string with %s: %v", what, err)
		}
	}
}

// A bus that starts again knows its strings, and one whose identity was replaced accepts none of them.
func TestJoinsAfterRestart(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	j := createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{})
	s.Stop()

	s = startDoor(t, state)
	j.Addresses = s.record().JoinAddresses()
	l, _ := connectJoin(t, j)
	l.Close()
	s.Stop()

	if err := os.Remove(state + "/" + localbus.IdentityFile); err != nil {
		t.Fatal(err)
	}

	s = startDoor(t, state)
	j.Addresses = s.record().JoinAddresses()
	j.Fingerprint = s.identity.Join(j.Role, nil).Fingerprint // or else the client refuses the bus
	if _, err := busconn.Join(j, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "refuses") {
		t.Errorf("a string of the identity before: %v", err)
	}
}

// What the bus writes down says who is connected, and when the others were.
func TestJoined(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	j := createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{})
	joins, revision, err := localbus.OpenJoins(state).Read()
	if err != nil {
		t.Fatal(err)
	}
	id := joins[0].ID

	awaitJoined := func(connections int) {
		t.Helper()

		var says localbus.Joined
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			says, _ = localbus.ReadJoined(s.door.dir)
			if says.Connections[id] == connections && says.Revision == revision {
				return
			}
		}
		t.Fatalf("the bus says %+v, want %d connections after change %d", says, connections, revision)
	}

	start := time.Now().Truncate(time.Second)
	one, _ := connectJoin(t, j)
	two, _ := connectJoin(t, j)
	awaitJoined(2)
	one.Close()
	awaitJoined(1)
	two.Close()
	awaitJoined(0)
	s.Stop()

	if seen := localbus.ReadSeen(state)[id]; seen.Before(start) || seen.After(time.Now()) {
		t.Errorf("the string was seen at %s, after %s", seen, start)
	}
	if _, err := localbus.ReadJoined(s.door.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a bus that has ended still says who is connected: %v", err)
	}
}

// A damaged file keeps a bus from starting. One that runs goes on with the strings that it has read.
func TestDamagedJoinFile(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	j := createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{})
	l, _ := connectJoin(t, j)

	file := localbus.OpenJoins(state)
	if err := os.WriteFile(file.Path(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	again, _ := connectJoin(t, j)
	askBus(t, again)
	askBus(t, l)
	l.Close()
	s.Stop()

	_, err := Start(Config{State: state, Dir: state + "/serve"})
	if !errors.Is(err, localbus.ErrJoinFile) || !strings.Contains(exit.Hint(err), "move it away") {
		t.Errorf("%v, hint %q", err, exit.Hint(err))
	}
}

// A file that was moved away revokes the strings in it.
func TestJoinFileMovedAway(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	l, closed := connectJoin(t, createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{}))
	if err := os.Remove(localbus.OpenJoins(state).Path()); err != nil {
		t.Fatal(err)
	}

	awaitClosed(t, l, closed)
}

// A connection goes on with the string that its file has by then, and ends with that string, by its name.
func TestRevokeStringsOfAFile(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	s := startDoor(t, state)
	file := filepath.Join(t.TempDir(), "join")
	write := func(j proto.Join) {
		if err := os.WriteFile(file, []byte(j.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(name string) {
		if _, _, err := localbus.OpenJoins(state).Revoke(name); err != nil {
			t.Fatal(err)
		}
	}

	write(createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{}))
	l := connectByFile(t, file)

	write(createJoin(t, s, state, "box2", proto.RoleWorker, time.Time{}))
	revoke("box1")
	prototest.Poll(t, 30*time.Second, "the connection with the second string", func() bool {
		return l.Conn.Stats().Reconnects == 1 && l.Conn.IsConnected()
	})

	revoke("box2")
	prototest.Poll(t, 30*time.Second, "the end of the connection", l.Conn.IsClosed)

	want := "the bus at " + l.Name + " refuses the join string box2: it was revoked"
	if got := l.ClosedErr(); got == nil || got.Error() != want {
		t.Errorf("%v, want %s", got, want)
	}
}

// connectByFile connects a worker with the join string in a file.
func connectByFile(t *testing.T, file string) *busconn.Connection {
	t.Helper()

	options := busconn.Options{JoinFile: secretfile.New("--join-file", file), Command: "worker"}
	list, err := busconn.ConnectAll(options, proto.RoleWorker, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(list[0].Close)

	return list[0]
}

// A connection is made again at the addresses that its file has by then, also after those of before were tried.
func TestMovedBus(t *testing.T) {
	t.Parallel()

	state := t.TempDir()
	old := startDoor(t, state)
	next, err := Start(Config{State: state, Dir: filepath.Join(state, "next")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Stop)

	file := filepath.Join(t.TempDir(), "join")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write(old.JoinString(proto.RoleWorker))
	l := connectByFile(t, file)

	old.Stop()
	prototest.Poll(t, 30*time.Second, "the loss of the bus", l.Conn.IsReconnecting)
	write(next.JoinString(proto.RoleWorker))
	prototest.Poll(t, 30*time.Second, "the connection to the bus at its new address", l.Conn.IsConnected)

	if got := l.Conn.ConnectedAddr(); got != next.Addr() {
		t.Errorf("connected to %s, want %s", got, next.Addr())
	}
}

// The log names a string whose record is gone, because another one got its name.
func TestRevokedNameInLog(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer
	state := t.TempDir()
	s, err := Start(Config{State: state, Dir: state + "/serve", Log: zerolog.New(zerolog.SyncWriter(&log))})
	if err != nil {
		t.Fatal(err)
	}

	// As Create does with a name that is free again, between two looks.
	l, closed := connectJoin(t, createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{}))
	if err := os.Remove(localbus.OpenJoins(state).Path()); err != nil {
		t.Fatal(err)
	}
	createJoin(t, s, state, "box1", proto.RoleWorker, time.Time{})
	awaitClosed(t, l, closed)
	s.Stop()

	if want := `"join":"box1","why":"revoked","connections":1`; !strings.Contains(log.String(), want) {
		t.Errorf("the log does not have %s:\n%s", want, &log)
	}
}
