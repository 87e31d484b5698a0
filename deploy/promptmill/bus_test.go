package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/deploy/localbus"
	"github.com/promptmill/promptmill/deploy/natsserver"
	"github.com/promptmill/promptmill/proto"
	"github.com/promptmill/promptmill/worker/sim"
)

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
	if err := os.Remove(filepath.Join(c.state, localbus.IdentityFile)); err != nil {
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
	j := mustParseJoin(t, fresh)
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

// A bus that cannot start reports the reason, and the running bus is not disturbed.
func TestBusCannotBegin(t *testing.T) {
	t.Parallel()

	c := newCommand(t)
	_, out := c.serve()
	address := mustParseJoin(t, joinOf(t, out)).Addresses[0]
	if text, code := c.run("serve", "--listen", "127.0.0.1:0"); code != exit.CodeError ||
		!strings.Contains(text, "another promptmill serve is running with this state folder") {
		t.Errorf("the same state: exit code %d:\n%s", code, text)
	}

	elsewhere := newCommand(t)
	if text, code := elsewhere.run("serve", "--listen", address); code != exit.CodeError || !strings.Contains(text,
		"another promptmill has this port already") || !strings.Contains(text, "choose another port with --listen") {
		t.Errorf("the same port: exit code %d:\n%s", code, text)
	}

	c.must("list")
}

// passwords sets the passwords that nats-config asks for, and returns each user's --nats-user.
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

// natsConfig is the output of nats-config, as nats-server reads it when it is included in
// a configuration.
func natsConfig(t *testing.T) *server.Options {
	t.Helper()

	dir := t.TempDir()
	var text bytes.Buffer
	if err := natsserver.WriteConfig(&text); err != nil {
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

// nats-server reads the output of nats-config as the same settings as those of the embedded
// server.
func TestNATSConfig(t *testing.T) {
	passwords(t)

	opts := natsConfig(t)
	if opts.MaxPayload != natsserver.MaxPayload || opts.MaxPending != 256<<20 {
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
	s := startNATSWith(t, natsConfig(t))

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
		!strings.Contains(stderr, "hint: correct --nats-user, or NATS_PASSWORD in the environment") {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
}
