package natsserver_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/busconn"
	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a server until the end of the test.
func start(t *testing.T, listen natsserver.ListenAddress) (s *natsserver.Server, state string) {
	t.Helper()

	state = t.TempDir()
	s, err := natsserver.Start(natsserver.Config{State: state, Dir: state + "/serve", Listen: listen})
	must(t, err)
	t.Cleanup(s.Stop)

	return s, state
}

// joinAt joins a server over one address.
func joinAt(t *testing.T, s *natsserver.Server, host string) error {
	t.Helper()

	j, err := proto.ParseJoin(s.JoinString(proto.RoleWorker))
	must(t, err)
	_, port, err := net.SplitHostPort(s.Addr())
	must(t, err)

	j.Addresses = []string{net.JoinHostPort(host, port)}
	l, err := busconn.Join(j, zerolog.Nop())
	if err == nil {
		l.Close()
	}

	return err
}

// A server at 0.0.0.0 takes no client over IPv6, which a firewall may not know of. A server at ::
// takes all.
func TestFamilies(t *testing.T) {
	t.Parallel()

	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("SKIPPED: this machine has no IPv6: ", err)
	} else {
		l.Close()
	}

	for address, six := range map[string]bool{"0.0.0.0:0": false, "[::]:0": true, ":0": true} {
		s, state := start(t, natsserver.ListenAddress{Address: address})
		if err := joinAt(t, s, "127.0.0.1"); err != nil {
			t.Errorf("%s over IPv4: %v", address, err)
		}

		if err := joinAt(t, s, "::1"); (err == nil) != six {
			t.Errorf("%s over IPv6: %v", address, err)
		}

		host, _, _ := net.SplitHostPort(s.Addr())
		if want := map[bool]string{false: "0.0.0.0", true: "::"}[six]; host != want {
			t.Errorf("%s: the server says that it listens at %s, want %s", address, host, want)
		}

		for _, b := range localbus.List(state) {
			for _, a := range b.Addresses() {
				if strings.HasPrefix(a, "[") && !six {
					t.Errorf("%s: a join string would have %s", address, a)
				}
			}
		}
	}
}

// A server that listens to this machine alone has a string for this machine, and names the address
// that opens it.
func TestLocal(t *testing.T) {
	t.Parallel()

	s, _ := start(t, natsserver.Loopback)
	if s.Reachable() || !s.Local() || s.OpenAddress() != "0.0.0.0:4333" {
		t.Errorf("reachable %v, local %v, open at %s", s.Reachable(), s.Local(), s.OpenAddress())
	}

	j, err := proto.ParseJoin(s.JoinString(proto.RoleWorker))
	must(t, err)
	if len(j.Addresses) != 1 || j.Addresses[0] != s.Addr() {
		t.Errorf("the join string has the addresses %v, want %s", j.Addresses, s.Addr())
	}

	s, _ = start(t, natsserver.ListenAddress{Address: "127.0.0.1:0", Advertise: "head.example:4333"})
	if !s.Reachable() {
		t.Error("a server that is advertised is not reachable")
	}
}

func TestCheckListen(t *testing.T) {
	t.Parallel()

	s, state := start(t, natsserver.Loopback)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer other.Close()

	for _, tt := range []struct {
		name, address, state string
		want, hint           string
		code                 int
	}{
		{
			name:    "a bus of this state folder",
			address: s.Addr(),
			state:   state,
			want:    "cannot listen at " + s.Addr() + ": the promptmill of process ",
			hint:    "choose another port with --listen HOST:PORT",
			code:    exit.CodeError,
		},
		{
			name:    "a bus of another",
			address: s.Addr(),
			state:   t.TempDir(),
			want:    "cannot listen at " + s.Addr() + ": another promptmill has this port already",
			hint:    "choose another port with --listen HOST:PORT, for example 127.0.0.1:",
			code:    exit.CodeError,
		},
		{
			name:    "another program",
			address: other.Addr().String(),
			state:   state,
			want:    "cannot listen at " + other.Addr().String() + ": another program has this port already",
			hint:    "choose another port with --listen HOST:PORT",
			code:    exit.CodeError,
		},
		{
			name:    "an address of another machine",
			address: "198.51.100.1:4333",
			state:   state,
			want:    "--listen 198.51.100.1:4333: this machine has no address 198.51.100.1",
			hint:    "0.0.0.0 is all IPv4 addresses of this machine",
			code:    exit.CodeUsage,
		},
		{
			name:    "a name without an address",
			address: "nosuch.invalid:4333",
			state:   state,
			want:    "--listen nosuch.invalid:4333: no address has the name nosuch.invalid",
			hint:    "0.0.0.0 is all IPv4 addresses of this machine",
			code:    exit.CodeUsage,
		},
	} {
		err := natsserver.CheckListen(tt.address, tt.state)
		if exit.Code(err) != tt.code || !strings.HasPrefix(fmt.Sprint(err), tt.want) ||
			!strings.HasPrefix(exit.Hint(err), tt.hint) {
			t.Errorf("%s: exit code %d: %v (%s)", tt.name, exit.Code(err), err, exit.Hint(err))
		}
	}

	must(t, natsserver.CheckListen("127.0.0.1:0", state))
}
