package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

// impostor is a listener that begins as a NATS server does, and keeps what it is told.
type impostor struct {
	address string

	mu    sync.Mutex
	told  []byte // by clients: inside TLS, or in the clear
	conns int
}

// newImpostor listens with a certificate, or without TLS if it is nil.
func newImpostor(t *testing.T, cert *tls.Certificate) *impostor {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	i := &impostor{address: l.Addr().String()}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { i.talk(conn, cert) })
		}
	})

	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})

	return i
}

func (i *impostor) talk(conn net.Conn, cert *tls.Certificate) {
	defer conn.Close()

	conn.SetDeadline(time.Now().Add(pollTime))
	i.mu.Lock()
	i.conns++
	i.mu.Unlock()
	fmt.Fprintf(conn,
		"INFO {\"server_id\":\"X\",\"version\":\"2.15.2\",\"proto\":1,\"headers\":true,\"max_payload\":1048576,\"tls_required\":%t}\r\n",
		cert != nil)

	if cert != nil {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}

	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf) // of TLS: the handshake, and then what is inside
		i.mu.Lock()
		i.told = append(i.told, buf[:n]...)
		enough := bytes.Contains(i.told, []byte("PING\r\n"))
		i.mu.Unlock()
		if err != nil || enough {
			return
		}
	}
}

// heard is what clients have said so far, and how many there were.
func (i *impostor) heard() (string, int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return string(i.told), i.conns
}

// The password goes to a server with the certificate of the join string, and to no
// other: not to one with another certificate, and not to one without.
func TestPasswordOnlyToTheRightServer(t *testing.T) {
	t.Parallel()

	right, err := loadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	wrong, err := loadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name string
		cert *tls.Certificate
		told bool
		want string // in the error
	}{
		{"the right certificate", &right.cert, true, ""}, // so that silence of the others means something
		{"another certificate", &wrong.cert, false, "another certificate"},
		{"no TLS", nil, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			i := newImpostor(t, test.cert)
			j := right.join(proto.RoleWorker, []string{i.address})
			l, err := joinBus(j, zerolog.Nop())
			if err == nil {
				l.close()
				t.Fatal("joined what is no bus")
			}
			if exit.Code(err) != exit.CodeUnreachable || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), i.address) {
				t.Errorf("exit code %d: %v", exit.Code(err), err)
			}

			told, conns := i.heard()
			if conns == 0 {
				t.Error("nobody came")
			}

			if strings.Contains(told, j.Password()) != test.told || !test.told && told != "" {
				t.Errorf("the server was told %q", told)
			}
		})
	}
}

// A join string is taken back by deleting the identity: at the same place another bus
// runs then, which does not know it. That is another thing than a bus that is down.
func TestJoinStringsThatAreNotGood(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	address := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])
	cmd, out := c.serve("--listen", address)
	join := joinOf(t, out)
	stop := func() {
		cmd.Process.Signal(syscall.SIGTERM)
		waitExit(t, cmd, out, pollTime)
	}

	refused := func(what, join, want string, commands ...[]string) {
		t.Helper()

		for _, args := range commands {
			stdout, stderr, code := c.output(append(args, "--join", join)...)
			if code != exit.CodeUnreachable || stdout != "" || !strings.Contains(stderr, want) ||
				!strings.Contains(stderr, "promptmill: hint: ") {
				t.Errorf("%s: %s: exit code %d:\n%s%s", what, args[0], code, stdout, stderr)
			}
		}
	}

	c.must("list", "--join", join)
	stop()
	refused("down", join, "no bus answers at "+address, []string{"list"}) // a worker waits: TestWorkerAwaitsItsBus

	cmd, out = c.serve("--listen", address)
	if again := joinOf(t, out); again != join {
		t.Errorf("the join string has changed with a restart: %s and %s", join, again)
	}

	stop()
	if err := os.Remove(filepath.Join(c.state, identityFile)); err != nil {
		t.Fatal(err)
	}

	cmd, out = c.serve("--listen", address)
	fresh := joinOf(t, out)
	if fresh == join {
		t.Error("another identity has the same join string")
	}

	refused("another identity", join, "another certificate", []string{"list"}, []string{"worker", "--sim"})
	c.must("list", "--join", fresh)

	// The certificate is right, the secret is not: made up, or of before a change.
	j := parseJoin(t, fresh)
	j.Token[0]++
	refused("another secret", j.String(), "the bus at "+address+" refuses this join string", []string{"list"},
		[]string{"worker", "--sim"})

	// A string that was cut or mistyped on the way never leaves the machine.
	for _, text := range []string{
		fresh[:len(fresh)-1], fresh[:len(fresh)/2], fresh[:5], fresh[1:], fresh + "x", "x" + fresh,
		strings.ToLower(fresh), fresh[:20] + "-" + fresh[21:], fresh[:20] + fresh[21:], fresh + fresh,
	} {
		if text == fresh {
			continue
		}

		stdout, stderr, code := c.output("list", "--join", text)
		if code != exit.CodeUsage || stdout != "" || !strings.Contains(stderr, "error: --join: not a join string: ") ||
			!strings.Contains(stderr, "hint: paste all of it") {
			t.Errorf("%s: exit code %d:\n%s%s", text, code, stdout, stderr)
		}
	}

	if _, stderr, code := c.output("list", "--join", "\n  "+fresh+" \n"); code != exit.CodeOK { // as it is pasted
		t.Errorf("with blanks around it: exit code %d:\n%s", code, stderr)
	}
}

// A bus that cannot begin says why, and the one that is there is not disturbed.
func TestBusCannotBegin(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, out := c.serve()
	address := parseJoin(t, joinOf(t, out)).Addresses[0]
	if text, code := c.run("serve", "--listen", "127.0.0.1:0"); code != exit.CodeError ||
		!strings.Contains(text, "another promptmill serve is running with this state folder") {
		t.Errorf("the same state: exit code %d:\n%s", code, text)
	}

	elsewhere := newCommand(t)
	if text, code := elsewhere.run("serve", "--listen", address); code != exit.CodeError || !strings.Contains(text,
		"address already in use") || !strings.Contains(text, "choose another port with --listen") {
		t.Errorf("the same port: exit code %d:\n%s", code, text)
	}

	c.must("list")
}

// What a bus is called by, for those on this machine and elsewhere.
func TestAddressesOfABus(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		listen, advertise string
		want              string // the first
		here              string
	}{
		{"127.0.0.1:4333", "", "127.0.0.1:4333", "127.0.0.1:4333"},
		{"192.0.2.7:4333", "", "192.0.2.7:4333", "192.0.2.7:4333"},
		{"192.0.2.7:4333", "head", "head:4333", "192.0.2.7:4333"},
		{"0.0.0.0:4333", "head", "head:4333", "127.0.0.1:4333"},
		{"0.0.0.0:4333", "head:9999", "head:9999", "127.0.0.1:4333"}, // a port that is forwarded
		{"[::]:4333", "2001:db8::7", "[2001:db8::7]:4333", "127.0.0.1:4333"},
		{":4333", "head", "head:4333", "127.0.0.1:4333"},
	} {
		if got := addressesOf(test.listen, test.advertise); len(got) != 1 || got[0] != test.want {
			t.Errorf("listening at %s, advertised as %q: %v, want %s", test.listen, test.advertise, got, test.want)
		}
		if got := (localBus{Listen: test.listen}).here(); got != test.here {
			t.Errorf("listening at %s: %s from here, want %s", test.listen, got, test.here)
		}
	}

	// At all addresses: those of the machine, and last the one that always works here.
	for _, listen := range []string{"0.0.0.0:4333", "[::]:4333", ":4333"} {
		got := addressesOf(listen, "")
		if len(got) != len(machineAddresses())+1 || got[len(got)-1] != "127.0.0.1:4333" {
			t.Errorf("listening at %s: %v", listen, got)
		}
	}
}

// passwords sets those that nats-config asks for, and returns what each user gives as
// --nats-user.
func passwords(t *testing.T) map[string]string {
	t.Helper()
	users := map[string]string{}
	for _, user := range append([]string{"owner"}, roleNames()...) {
		t.Setenv("PROMPTMILL_"+strings.ToUpper(user)+"_PASSWORD", "secret-of-"+user)
		users[user] = user + ":secret-of-" + user
	}
	return users
}

func roleNames() (names []string) {
	for _, role := range proto.Roles() {
		names = append(names, string(role))
	}
	return names
}

// natsConfig is what nats-config prints, as nats-server reads it when it is included in
// a configuration.
func natsConfig(t *testing.T) *server.Options {
	t.Helper()

	dir := t.TempDir()
	var text bytes.Buffer
	if err := writeNATSConfig(&text); err != nil {
		t.Fatal(err)
	}

	main := fmt.Sprintf("listen: \"127.0.0.1:-1\"\njetstream { store_dir: %q }\ninclude ./promptmill.conf\n",
		filepath.Join(dir, "store"))
	for name, data := range map[string]string{"promptmill.conf": text.String(), "main.conf": main} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	opts, err := server.ProcessConfigFile(filepath.Join(dir, "main.conf"))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text.String())
	}

	return opts
}

// nats-server understands what nats-config prints as what the bus inside is set up
// with.
func TestNATSConfig(t *testing.T) {
	passwords(t)

	opts := natsConfig(t)
	if opts.MaxPayload != maxPayload || opts.MaxPending != 256<<20 {
		t.Errorf("payload %d, pending %d", opts.MaxPayload, opts.MaxPending)
	}

	accounts := map[string]string{proto.Owner: proto.OwnerAccount}
	for _, role := range proto.Roles() {
		accounts[string(role)] = role.Account()
	}

	if len(opts.Accounts) != len(accounts) {
		t.Errorf("accounts: %v", opts.Accounts)
	}

	got := map[string]*server.User{}
	for _, u := range opts.Users {
		got[u.Username] = u
		if u.Password != "secret-of-"+u.Username || u.Account == nil || u.Account.Name != accounts[u.Username] {
			t.Errorf("user %s: password %q, account %v", u.Username, u.Password, u.Account)
		}
	}

	if len(got) != len(proto.Roles())+1 || got["owner"] == nil {
		t.Fatalf("users: %v", got)
	}

	if p := got["owner"].Permissions; p != nil {
		t.Errorf("the owner is bound by %+v", p)
	}

	for _, role := range proto.Roles() {
		u, want := got[string(role)], role.Permissions()
		if u == nil || u.Permissions == nil || u.Permissions.Publish == nil || u.Permissions.Subscribe == nil {
			t.Errorf("%s: %+v", role, u)
			continue
		}

		want.Import = nil // of the account
		is := proto.Permissions{
			Publish:   u.Permissions.Publish.Allow,
			Deny:      u.Permissions.Publish.Deny,
			Subscribe: u.Permissions.Subscribe.Allow,
		}
		if diff := cmp.Diff(want, is, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: want -, is +:\n%s", role, diff)
		}

		if len(u.Permissions.Subscribe.Deny) > 0 || u.Permissions.Response != nil {
			t.Errorf("%s: more than was wanted: %+v", role, u.Permissions)
		}
	}
}

// On a server that is set up so, the owner serves and a collector owns runs: it makes
// them, collects them and deletes them. Passwords are checked.
func TestNATSConfigUsers(t *testing.T) {
	users := passwords(t)
	opts := natsConfig(t)
	opts.NoSigs, opts.NoLog = true, true

	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}

	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})

	if !s.ReadyForConnections(pollTime) {
		t.Fatal("the NATS server does not get ready")
	}

	c := newCommand(t)
	as := func(user string, args ...string) []string {
		return slices.Concat(args, []string{"--nats", s.ClientURL(), "--nats-user", users[user]})
	}

	_, out := c.start(as("owner", "serve", "--flush", "200ms")...)
	poll(t, pollTime, "the server of runs", func() bool {
		return strings.Contains(out.String(), "serving the runs on ")
	})

	m := newModel(t, sim.Config{Tokens: 5})
	c.start(as("worker", "worker", "--url", m.url)...)
	in := c.input("in.jsonl", 100)
	c.must(as("producer", "submit", in, "--model", "sim", "--run", "served")...)
	c.must(as("collector", "submit", in, "--model", "sim", "--run", "mine", "--wait", "-o", "mine.jsonl.zst")...)
	c.verified(in, "mine")
	c.must(as("collector", "delete", "mine")...)
	c.ended("served", pollTime)
	c.verified(in, "served")

	t.Setenv("NATS_PASSWORD", "secret-of-reader")
	c.must("list", "--nats", s.ClientURL(), "--nats-user", "reader")

	_, stderr, code := c.output("list", "--nats", s.ClientURL(), "--nats-user", "worker")
	if code != exit.CodeUnreachable || !strings.Contains(stderr, "refuses these credentials") ||
		!strings.Contains(stderr, "hint: give --nats-creds FILE, --nats-user USER") {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
}
