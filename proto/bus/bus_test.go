package bus_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

// admin is a user with all rights, for changes that a role does not see.
const admin = proto.Role(proto.Owner)

// bus is a server that knows each role as a user. It has the run "r" with one shard
// and one result.
type testBus struct {
	server *server.Server
	admin  *client
	runs   *bus.RunStore // as the admin
}

func newBus(t *testing.T) *testBus {
	t.Helper()

	opts := &server.Options{
		DontListen: true, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), SyncInterval: time.Second,
	}

	var accounts strings.Builder
	must(t, proto.WriteAccounts(&accounts, func(string) string { return "secret" }))
	must(t, opts.ProcessConfigString(accounts.String()))

	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}

	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})

	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not get ready")
	}

	b := &testBus{server: s}
	b.admin = b.as(t, admin)
	must(t, bus.CreateBuckets(t.Context(), b.admin, bus.Limits{}))
	opened, err := bus.Open(t.Context(), b.admin)
	must(t, err)
	b.runs = opened.Runs
	m := manifest("r")
	create(t, b.runs, m)
	must(t, bus.EnsureStreams(t.Context(), b.admin, m, limits))
	b.publish(t, proto.WorkSubject("r", "m", "0-0"), "shard")
	b.publish(t, proto.ResultsSubject("r", "0-0"), "result")

	return b
}

func (b *testBus) publish(t *testing.T, subject, payload string) {
	t.Helper()
	_, err := b.admin.Publish(t.Context(), subject, []byte(payload))
	must(t, err)
}

// client is a connection as one of the roles.
type client struct {
	jetstream.JetStream
	role proto.Role
}

func (b *testBus) as(t *testing.T, role proto.Role) *client {
	t.Helper()

	closed := make(chan struct{})
	nc, err := nats.Connect("", nats.InProcessServer(b.server), nats.NoReconnect(),
		nats.UserInfo(string(role), "secret"), nats.CustomInboxPrefix(role.InboxPrefix()),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // not to standard error; refused looks
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))

	must(t, err)
	t.Cleanup(func() {
		nc.Close()
		<-closed
	})

	// What is refused has no answer: a test must not wait for it long.
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(500*time.Millisecond))
	must(t, err)

	return &client{JetStream: js, role: role}
}

// refused returns the latest violation of the client's permissions, nil if there was none.
// The server reports violations before it answers the flush, so the test does not wait.
func (c *client) refused(t *testing.T) error {
	t.Helper()
	must(t, c.Conn().Flush())
	err := c.Conn().LastError()
	if err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
		t.Fatalf("as %s: %v", c.role, err)
	}
	return err
}

func (c *client) fetch(t *testing.T, stream, consumer string) jetstream.Msg {
	t.Helper()
	pull, err := c.Consumer(t.Context(), stream, consumer)
	must(t, err)
	msg, err := pull.Next(jetstream.FetchMaxWait(5 * time.Second))
	must(t, err)
	return msg
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
