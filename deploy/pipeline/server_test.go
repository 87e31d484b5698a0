package pipeline

import (
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/proto/bus"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testServer is a NATS server with the buckets of runs.
type testServer struct{ *natsserver.Server }

// startServer starts a server until the end of the test.
func startServer(t *testing.T) testServer {
	t.Helper()

	dir := t.TempDir()
	s, err := natsserver.Start(natsserver.Config{State: dir, Dir: dir, Shared: true, Log: zerolog.Nop()})
	must(t, err)
	t.Cleanup(s.Stop)
	must(t, bus.CreateBuckets(t.Context(), s.JS, s.Limits))

	return testServer{s}
}

// as connects with the join string of a role.
func (s testServer) as(t *testing.T, role proto.Role) *busconn.Connection {
	t.Helper()

	j, err := proto.ParseJoin(s.JoinString(role))
	must(t, err)
	l, err := busconn.Join(j, zerolog.Nop())
	must(t, err)
	t.Cleanup(l.Close)

	return l
}
